"""`tune-rnn simulate`: pairs of search and scheduler side by side on the same black boxes, as a table."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

from tune_rnn.errors import InputError
from tune_rnn.simulation.history import History
from tune_rnn.simulation.playing import BlackBox, simulate
from tune_rnn.simulation.synthetic import FAMILIES, Synthetic
from tune_rnn.simulation.taskset import TaskSet

PARTS = (0.25, 0.5, 1.0)
"""At these parts of the time the best finished trial is shown."""


@dataclass(frozen=True)
class Play:
    """One simulated study: with another seed another member of a synthetic family is searched."""

    search: str
    scheduler: str
    blackbox: str
    workers: int
    budget: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """The lowest losses of finished trials at `PARTS` of the time (inf: none yet), and how many there were."""

    losses: tuple[float, ...]
    trials: int
    finished: int


def compare(
    searches: Sequence[str], schedulers: Sequence[str], blackbox: str, workers: int, budget: float, seeds: int
) -> str:
    """Play every pair with every seed, in as many processes as there are processors; return the table as text.

    `blackbox`: a synthetic family, or the path of a TaskSet table. Raises InputError for what `simulate` refuses.
    """
    pairs = [(search, scheduler) for search in searches for scheduler in schedulers]
    plays = [Play(*pair, blackbox, workers, budget, seed) for pair in pairs for seed in range(seeds)]
    open_blackbox(blackbox, 0)  # refuses here what the processes would refuse
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as processes:
        outcomes = list(processes.map(play, plays))
    rows = [outcomes[index : index + seeds] for index in range(0, len(outcomes), seeds)]
    return "\n".join(_lines(pairs, rows, blackbox, workers, budget, seeds))


def play(one: Play) -> Outcome:
    """Play one study."""
    box = open_blackbox(one.blackbox, one.seed)
    return outcome(simulate(one.search, one.scheduler, box, one.workers, one.budget, one.seed), one.budget)


def outcome(history: History, budget: float) -> Outcome:
    """What counts of a history."""
    end = budget * history.max_resource / history.workers
    losses = tuple(history.finished_loss_at(part * end) for part in PARTS)
    return Outcome(losses, len(history.trials), history.count_finished())


@cache
def open_blackbox(name: str, seed: int) -> BlackBox:
    """A synthetic family's member, or a table."""
    if name in FAMILIES:
        return Synthetic(name, seed)
    if os.path.exists(name):
        return _table(name)
    remedy = f"There are {', '.join(FAMILIES)}, and TaskSet tables by their path."
    raise InputError("--blackbox", "there is no such black box", remedy, name)


@cache
def _table(path: str) -> TaskSet:
    return TaskSet(path)


def _lines(
    pairs: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[Outcome]],
    blackbox: str,
    workers: int,
    budget: float,
    seeds: int,
) -> Iterator[str]:
    yield f"{blackbox}: {workers} workers, {budget:g} whole trainings; means of {seeds} seeds ± standard errors"
    yield ""
    heads = [f"{part:.0%} of the time" for part in PARTS]
    yield f"{'search':10}{'scheduler':11}" + "".join(f"{head:>19}" for head in heads) + f"{'trials':>9}{'finished':>10}"
    for (search, scheduler), row in zip(pairs, rows, strict=True):
        losses = "".join(f"{_mean([one.losses[place] for one in row]):>19}" for place in range(len(PARTS)))
        counts = [statistics.fmean(values) for values in zip(*((o.trials, o.finished) for o in row), strict=True)]
        yield f"{search:10}{scheduler:11}{losses}{counts[0]:9.0f}{counts[1]:10.0f}"
    yield ""
    yield "The loss of the best trial that had finished by then; lower is better."


def _mean(losses: Sequence[float]) -> str:
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < len(losses):
        return f"none in {len(losses) - len(known)} of {len(losses)}"
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else 0.0
    return f"{statistics.fmean(known):.4f} ± {error:.4f}"
