"""From the `task` section of an experiment to the documents it means."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_rnn.data.corpora import CORPORA, find_corpus
from tune_rnn.data.symbols import WordLimits
from tune_rnn.data.text import Source
from tune_rnn.data.tokens import SPLITS, Recipe
from tune_rnn.errors import InputError

DEFAULT_CORPUS = "pydoc"
DEFAULT_SPLIT = (0.8, 0.1, 0.1)


def recipe_of(task: Any, beside: Path | None, cache: Path) -> Recipe:
    """Resolve `task` (its attributes: see `load_corpus`); `cache` is where downloads go.

    Relative paths are looked up in the current directory, then in `beside`. Raises InputError for whatever is
    missing or contradicts itself; what the files hold is checked when they are read.
    """
    if task.files is not None:
        if task.corpus is not None:
            raise InputError("task", "corpus and files exclude each other", "Keep one of the two.")
        name, groups = _groups_of_files(task.files, beside)
    else:
        corpus = DEFAULT_CORPUS if task.corpus is None else task.corpus
        name, groups = _groups_of_corpus(corpus, beside, cache)
    fractions = _fractions(task.split, name, len(groups) > 1)
    return Recipe(name, groups, fractions, task.documents == "joined", _word_limits(task))


def _word_limits(task: Any) -> WordLimits | None:
    return WordLimits(task.vocabulary_size, task.minimum_count) if task.kind == "word_lm" else None


def absolute_paths(task: Any, beside: Path | None) -> dict[str, str | list[str]]:
    """Return what `task` gives as paths, by dotted key, each absolute and without `..`."""
    keys = {"task.corpus": task.corpus}
    if task.files is not None:
        keys |= {f"task.files.{name}": getattr(task.files, name) for name in SPLITS}
    found: dict[str, str | list[str]] = {}
    for key, given in keys.items():
        if isinstance(given, str) and not (key == "task.corpus" and given in CORPORA):
            found[key] = str(_existing(given, key, beside).resolve())
        elif given is not None and not isinstance(given, str):
            found[key] = [str(_existing(path, key, beside).resolve()) for path in given]
    return found


def _groups_of_files(files: Any, beside: Path | None) -> tuple[str, tuple[tuple[Source, ...], ...]]:
    given = dict(files) if isinstance(files, Mapping) else {name: getattr(files, name) for name in SPLITS}
    for name in ("train", "validation"):
        if given.get(name) is None:
            raise InputError(f"task.files.{name}", "is missing", "Name files for train and for validation.")
    groups = tuple(
        () if given.get(name) is None else _documents(given[name], f"task.files.{name}", beside) for name in SPLITS
    )
    return _title(given["train"]), groups


def _groups_of_corpus(
    corpus: str | list[str], beside: Path | None, cache: Path
) -> tuple[str, tuple[tuple[Source, ...], ...]]:
    if isinstance(corpus, str) and corpus in CORPORA:
        sources = find_corpus(corpus, cache)
        official = len(CORPORA[corpus].files) == len(SPLITS)
        return corpus, tuple((source,) for source in sources) if official else (sources,)
    documents = _documents(corpus, "task.corpus", beside)
    return _title(corpus), (documents,)


def _documents(given: str | list[str], where: str, beside: Path | None) -> tuple[Source, ...]:
    """Return one source for each file; a directory stands for its *.txt files in alphabetical order."""
    sources: list[Source] = []
    for text in [given] if isinstance(given, str) else given:
        path = _existing(text, where, beside)
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files:
            raise InputError(where, "the directory has no .txt file", "Name the files themselves.", text)
        sources += [Source(str(file), file) for file in files]
    if not sources:
        raise InputError(where, "names no file", "Name at least one.", given)
    return tuple(sources)


def _existing(text: str, where: str, beside: Path | None) -> Path:
    path = Path(text).expanduser()
    for candidate in [path, beside / path] if beside is not None else [path]:
        if text and os.path.exists(candidate):  # Path.exists would raise for a name that is too long
            return candidate
    if where != "task.corpus":
        remedy = "Relative paths start at the current directory or beside the experiment file."
        raise InputError(where, "no such file or directory", remedy, text)
    near = difflib.get_close_matches(text, CORPORA, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]}?" if near else f"The named corpora are {', '.join(CORPORA)}."
    raise InputError(where, "neither a named corpus nor an existing path", remedy, text)


def _title(given: str | list[str]) -> str:
    first, *others = [given] if isinstance(given, str) else given
    return Path(first).name + (f" and {len(others)} more" if others else "")


def _fractions(split: Any, name: str, official: bool) -> tuple[float, float, float]:
    if split is None or tuple(split) == DEFAULT_SPLIT:
        return DEFAULT_SPLIT
    if official:
        rule = f"{name} has its own train and validation files, which are kept"
        raise InputError("task.split", rule, "Remove task.split.", list(split))
    numbers = [float(fraction) for fraction in split]
    if len(numbers) != 3 or not (min(numbers[:2]) > 0 and numbers[2] >= 0 and math.isclose(sum(numbers), 1)):
        rule = "must be three fractions that sum to 1, train and validation above 0"
        raise InputError("task.split", rule, "Write for example split: [0.8, 0.1, 0.1]", list(split))
    return numbers[0], numbers[1], numbers[2]
