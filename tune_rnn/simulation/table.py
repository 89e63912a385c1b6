"""`tune-rnn simulate`: pairs of search and scheduler side by side on the same black boxes, as a table."""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from tune_rnn.display import Display, plural
from tune_rnn.errors import InputError
from tune_rnn.simulation.blackbox import BlackBox
from tune_rnn.simulation.history import History
from tune_rnn.simulation.playing import check_budget, check_pair, simulate
from tune_rnn.simulation.synthetic import FAMILIES, Synthetic
from tune_rnn.simulation.taskset import TaskSet

PARTS = (0.25, 0.5, 1.0)
"""At these parts of the time the best finished trial is shown."""


@dataclass(frozen=True)
class Play:
    """One simulated study."""

    search: str
    scheduler: str
    blackbox: BlackBox
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

    `blackbox`: a synthetic family, of which each seed searches another member, or the path of a TaskSet table. How many
    studies there are goes to standard error. Raises InputError for what `simulate` refuses.
    """
    check_budget("--budget", budget)
    boxes = open_blackboxes(blackbox, seeds)
    pairs = [(search, scheduler) for search in searches for scheduler in schedulers]
    for pair in pairs:
        check_pair(*pair, boxes[0])
    plays = [Play(*pair, box, workers, budget, seed) for pair in pairs for seed, box in enumerate(boxes)]
    studies = "1 study" if len(plays) == 1 else f"{len(plays)} studies"
    Display(sys.stderr).say(f"simulating {studies} of {plural(budget, 'whole training')} …")
    processes = min(os.cpu_count() or 1, len(plays))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        outcomes = list(pool.map(play, plays))
    rows = [outcomes[index : index + seeds] for index in range(0, len(outcomes), seeds)]
    return "\n".join(_lines(pairs, rows, blackbox, workers, budget, seeds))


def play(one: Play) -> Outcome:
    """Play one study."""
    history = simulate(one.search, one.scheduler, one.blackbox, one.workers, one.budget, one.seed)
    return outcome(history, one.budget)


def outcome(history: History, budget: float) -> Outcome:
    """What counts of a history."""
    end = budget * history.max_resource / history.workers
    losses = tuple(history.finished_loss_at(part * end) for part in PARTS)
    return Outcome(losses, len(history.trials), history.count_finished())


def open_blackboxes(name: str, seeds: int) -> list[BlackBox]:
    """What each seed searches: members of a synthetic family, or one table for all, whose model is fitted here."""
    if name in FAMILIES:
        return [Synthetic(name, seed) for seed in range(seeds)]
    if os.path.exists(name):
        return [TaskSet(name)] * seeds
    remedy = f"There are {', '.join(FAMILIES)}, and TaskSet tables by their path."
    raise InputError("--blackbox", "there is no such black box", remedy, name)


def _lines(
    pairs: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[Outcome]],
    blackbox: str,
    workers: int,
    budget: float,
    seeds: int,
) -> Iterator[str]:
    means = "1 seed" if seeds == 1 else f"means of {seeds} seeds ± standard errors"
    yield f"{blackbox}: {plural(workers, 'worker')}, {plural(budget, 'whole training')}; {means}"
    yield ""
    heads = [f"{part:.0%} of the time" for part in PARTS]
    yield f"{'search':10}{'scheduler':11}" + "".join(f"{head:>19}" for head in heads) + f"{'trials':>9}{'finished':>10}"
    for (search, scheduler), row in zip(pairs, rows, strict=True):
        losses = "".join(f"{_mean([one.losses[place] for one in row]):>19}" for place in range(len(PARTS)))
        counts = [statistics.fmean(values) for values in zip(*((o.trials, o.finished) for o in row), strict=True)]
        yield f"{search:10}{scheduler:11}{losses}{counts[0]:9.0f}{counts[1]:10.0f}"
    yield ""
    yield "The loss of the best trial that had finished by then; lower is better."
    yield from _too_short(rows, workers, budget)


def _too_short(rows: Sequence[Sequence[Outcome]], workers: int, budget: float) -> Iterator[str]:
    """Why there is no figure, where no cell has one."""
    cells = [[one.losses[place] for one in row] for row in rows for place in range(len(PARTS))]
    if any(all(map(math.isfinite, cell)) for cell in cells):
        return
    nothing = not any(math.isfinite(loss) for cell in cells for loss in cell)
    who = "No trial" if nothing else "In some studies no trial"
    each = plural(round(budget / workers, 2), "whole training")
    yield f"{who} came to its end in that time, {each} for each worker: a larger --budget is needed."


def _mean(losses: Sequence[float]) -> str:
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < len(losses):
        return f"none in {len(losses) - len(known)} of {len(losses)}"
    if len(known) == 1:
        return f"{known[0]:.4f}"
    return f"{statistics.fmean(known):.4f} ± {statistics.stdev(known) / math.sqrt(len(known)):.4f}"
