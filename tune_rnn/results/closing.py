"""The text that ends a command: the best configuration, its metrics and a sample, warnings, where things are."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_rnn.display import Progress, counts, duration
from tune_rnn.space import Distribution

DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Bidirectional classes of the invisible characters that turn the direction of what follows."""


def edge_warnings(
    best: Mapping[str, Any], space: Mapping[str, Distribution], allows: Callable[[str, Any], bool]
) -> list[str]:
    """One warning for each of the best trial's values at an end of its range where the range could be wider.

    `allows` tells whether a key may have a value at all: nothing is said of a dropout near 0.
    """
    warnings = []
    for key, distribution in space.items():
        edge = distribution.at_edge(best[key])
        if edge is None or not allows(key, _beyond(distribution, edge)):
            continue
        ends = ", ".join(f"{kind}: {values}" for kind, values in distribution.to_yaml().items())
        value = f"{key} = {_scalar(best[key])} lies at the {edge} end of its range"
        warnings.append(f"{value} ({ends}): better values may lie beyond it")
    return warnings


def _beyond(distribution: Distribution, edge: str) -> float:
    """A value just outside the range, whole where its ends are."""
    low, high = distribution.corners()[0], distribution.corners()[-1]
    end: Any = low if edge == "low" else high
    step: float = 1 if isinstance(end, int) else max(abs(end) * 1e-3, 1e-12)
    beyond: float = end - step if edge == "low" else end + step
    return beyond


def final_report(
    progress: Progress,
    *,
    configuration: Mapping[str, Any],
    searched: Collection[str],
    metrics: Mapping[str, float],
    final: Sequence[str] = (),
    sample: str,
    warnings: Iterable[str],
    places: Mapping[str, Path | str],
    board: Path,
    again: int | None = None,
) -> str:
    """The text that ends a study.

    configuration: the best trial's values by dotted key, those as by default left out; the keys in `searched` were
    varied and come first.
    metrics: validation metrics of the best trial. final: what the final stage found, line by line. places: what lies
    where. board: directory for TensorBoard. again: the trial of the search whose configuration the best trial is with
    another seed.
    """
    first = {key: value for key, value in configuration.items() if key in searched}
    fixed = ", ".join(f"{key}={_scalar(v)}" for key, v in configuration.items() if key not in searched)
    parts = [
        f"{progress.name}: {counts(progress)}, in {duration(progress.elapsed_s)}",
        _section(f"Best configuration (trial {progress.best_trial}{_again(again)})", _rows(first)),
        _section("Fixed (all else is the default)", textwrap.wrap(fixed, 96)),
        _section("Validation" if again is None else "Validation (of this seed alone)", _rows(metrics)),
        _section("Final stage", final),
        _section("Sample", _printable(sample).splitlines()),
        _section("Warnings", list(warnings)),
        _section("Where", _rows({**places, "curves": tensorboard_command(board)})),
    ]
    return "\n\n".join(part for part in parts if part)


def tensorboard_command(directory: Path) -> str:
    """The command that shows the curves, with the path of TensorBoard where the shell would not find it."""
    beside_python = Path(sys.executable).with_name("tensorboard")
    on_path = shutil.which("tensorboard")
    program = str(beside_python) if on_path is None and beside_python.exists() else "tensorboard"
    return shlex.join([program, "--logdir", str(directory)])


def _printable(text: str) -> str:
    """The text without what would confuse a terminal: control characters, and those that turn its direction."""
    return "".join("\ufffd" if _confuses(symbol) else symbol for symbol in text)


def _confuses(symbol: str) -> bool:
    if symbol in "\n\t":
        return False
    return unicodedata.category(symbol) in ("Cc", "Cs") or unicodedata.bidirectional(symbol) in DIRECTIONS


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""


def _rows(values: Mapping[str, Any]) -> list[str]:
    width = max(map(len, values), default=0)
    return [f"{key:<{width}}  {_scalar(value)}" for key, value in values.items()]


def _scalar(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _again(trial: int | None) -> str:
    return "" if trial is None else f": that of trial {trial} with another seed"
