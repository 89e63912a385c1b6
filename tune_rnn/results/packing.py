"""An experiment with its data beside it, for another machine: what names files of this one is copied along."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tune_rnn.data import absolute_paths
from tune_rnn.experiment import Experiment

WARM_START = "search.warm_start"
OF_A_RUN = ("experiment.yaml", "trials.jsonl")
"""What a search learns from an earlier run by."""


def paths_of(experiment: Experiment) -> dict[str, str | list[str]]:
    """Data and earlier runs that an experiment names, by dotted key, with absolute paths; InputError if one is gone."""
    paths = absolute_paths(experiment.task, experiment.beside)
    if earlier := experiment.search.warm_start:
        found = {given: existing_path(given, experiment.beside) or Path(given) for given in earlier}
        paths[WARM_START] = [str(found[given].resolve()) for given in earlier]
    return paths


def existing_path(given: str, beside: Path | None) -> Path | None:
    """What a relative path means: in the current directory, or else beside the experiment file; None if nothing."""
    path = Path(given).expanduser()
    candidates = [path, beside / path] if beside is not None else [path]
    return next((candidate for candidate in candidates if os.path.exists(candidate)), None)


def pack(experiment: Experiment, folder: Path) -> Experiment:
    """Copy what an experiment names into `folder`/data; returns it with paths relative to `folder`.

    What is there already stays as it is.
    """
    for key, value in paths_of(experiment).items():
        given = [value] if isinstance(value, str) else value
        copied = [_copy(Path(path), folder, key, number) for number, path in enumerate(given)]
        experiment = experiment.replace(key, copied[0] if isinstance(value, str) else copied)
    return experiment


def _copy(path: Path, folder: Path, key: str, number: int) -> str:
    if path.is_relative_to(folder.resolve()):
        return str(path.relative_to(folder.resolve()))
    target = Path("data", key, str(number), path.name)
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        _copy_files(path, folder / target, OF_A_RUN if key == WARM_START else ("*.txt",))
    else:
        shutil.copyfile(path, folder / target)
    return str(target)


def _copy_files(path: Path, target: Path, patterns: Sequence[str]) -> None:
    target.mkdir(exist_ok=True)
    for file in [file for pattern in patterns for file in path.glob(pattern)]:
        shutil.copyfile(file, target / file.name)
