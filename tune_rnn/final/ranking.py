"""Configurations trained again with new seeds: which is the best one, and whether that can be told.

Losses are lowest validation losses in nats per prediction, by seed; that of a training that diverged is infinite.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Set
from dataclasses import dataclass

from tune_rnn.confidence import Ends, bootstrap_interval, student_interval


@dataclass(frozen=True)
class Candidate:
    """A configuration, named by the search's trial it comes from, with its losses by seed."""

    trial: int
    losses: dict[int, float]

    @property
    def finite(self) -> list[float]:
        return [loss for loss in self.losses.values() if math.isfinite(loss)]

    @property
    def diverged(self) -> int:
        return len(self.losses) - len(self.finite)

    @property
    def mean(self) -> float | None:
        """Over the seeds that did not diverge."""
        return statistics.fmean(self.finite) if self.finite else None

    @property
    def std(self) -> float | None:
        """The sample's standard deviation, which takes two seeds."""
        return statistics.stdev(self.finite) if len(self.finite) > 1 else None

    def interval(self, seed: int) -> Ends | None:
        """95 % bootstrap interval of the mean (see `tune_rnn.confidence` for what it can tell)."""
        return bootstrap_interval(self.finite, seed)


@dataclass(frozen=True)
class Difference:
    """How much higher the second one's loss is, seed by seed, with both intervals of the mean."""

    seeds: int
    mean: float
    interval: Ends | None
    student: Ends | None

    @property
    def told_apart(self) -> bool:
        """Both intervals lie above 0: with few seeds the bootstrap's alone is too narrow to be trusted."""
        return all(ends is not None and ends[0] > 0 for ends in (self.interval, self.student))


def compared(
    losses: Mapping[int, Mapping[int, float]], asked_before: Mapping[int, Set[int]]
) -> dict[int, Mapping[int, float]]:
    """Leave out each candidate that joined a stage at work and has not caught up with those before it.

    What these have shown stays the answer until it has the seeds that they all have. `asked_before`: of each candidate
    the seeds that were asked of others before it joined; those asked of all since then are not to be caught up with.
    """
    kept: dict[int, Mapping[int, float]] = {}
    for trial, own in losses.items():
        shared = set.intersection(*map(set, kept.values())) if kept else set()
        if shared & asked_before[trial] <= own.keys():
            kept[trial] = own
    return kept


def ranked(losses: Mapping[int, Mapping[int, float]]) -> list[Candidate]:
    """Candidates by trial, the best mean first, each with the seeds that all have; nothing where there is no such seed.

    One that diverged with fewer seeds comes before one that diverged with more.
    """
    shared = set.intersection(*map(set, losses.values())) if losses else set()
    if not shared:
        return []
    common = [Candidate(trial, {s: own[s] for s in own if s in shared}) for trial, own in losses.items()]
    return sorted(common, key=lambda one: (one.diverged, math.inf if one.mean is None else one.mean, one.trial))


def winner(losses: Mapping[int, Mapping[int, float]]) -> int | None:
    """The trial whose configuration has the best mean; None where nothing can be compared yet, or all diverged."""
    first = next(iter(ranked(losses)), None)
    return None if first is None or first.mean is None else first.trial


def difference(first: Candidate, second: Candidate, seed: int) -> Difference | None:
    """The second's losses less the first's, paired by seed; None where one of them diverged."""
    if first.diverged or second.diverged:
        return None
    values = [second.losses[one] - first.losses[one] for one in first.losses]
    mean = statistics.fmean(values)
    return Difference(len(values), mean, bootstrap_interval(values, seed), student_interval(values))
