"""Schedulers by name: which trials go on, given the scores of all at the same budget.

A scheduler knows trials by their numbers and nothing of Ray: the study, a resumed study and a simulation drive the
same objects. Scores are lowest losses so far; budgets are epochs or tokens, never seconds, so that trials of
different batch sizes compare fairly. A trial that diverged has ended and is never asked about.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Protocol

from tune_rnn.rungs import rungs_of
from tune_rnn.schema import Scheduler as Settings
from tune_rnn.search import Evidence


class Scheduler(Protocol):
    """Decides after every report of a trial whether it goes on."""

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        """Whether trial `number` goes on after it has reached `score` with a budget of `spent`."""
        ...


class RunAll:
    """Every trial runs to its end."""

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        return True


def build_scheduler(settings: Settings, amount: float, evidence: Evidence) -> Scheduler:
    """The scheduler that the section `scheduler` of an experiment names, for trials with a budget of `amount`.

    `evidence`: what the searcher has been told, each report before the scheduler is asked about it.
    """
    first = settings.first_rung or 1.0
    budgets = rungs_of(settings, amount)
    match settings.algorithm:
        case "asha":
            halving = ExpectantAsha(budgets, settings.reduction_factor, evidence)
            return Yardstick(halving, max(first, amount / settings.reduction_factor**2), amount)
        case "hyperband":
            return Hyperband(budgets, settings.reduction_factor)
        case "median":
            return Median(first)
        case "pbt":
            return Legs(budgets)
        case "none":
            return RunAll()


class Legs:
    """Population based training: a trial stops at each rung, and `tune_rnn.study.population` says how it goes on."""

    def __init__(self, budgets: Sequence[float]) -> None:
        self.budgets = frozenset(budgets)

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        return spent not in self.budgets


class Rung:
    """The scores that trials had at one budget, each trial's once."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.scores: list[float] = []  # ascending

    def passes(self, number: int, score: float, factor: float) -> bool:
        """Enter a trial; whether it is among the best 1/factor of those that came before it, or the first."""
        passes = not self.scores or score <= _quantile(self.scores, 1 / factor)
        self.seen.add(number)
        bisect.insort(self.scores, score)
        return passes


class Asha:
    """Asynchronous successive halving in its stopping form (Li et al. 2020, arXiv 1810.05934, as Ray Tune has it).

    At each rung a trial goes on if its score is among the best 1/factor of the scores that other trials had there.
    """

    def __init__(self, budgets: Sequence[float], factor: float) -> None:
        self.factor = factor
        self.rungs = [(budget, Rung()) for budget in reversed(budgets)]

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        for budget, rung in self.rungs:
            if spent >= budget and number not in rung.seen:
                return rung.passes(number, score, self.factor)
        return True


class ExpectantAsha:
    """Asynchronous successive halving by what trials are expected to reach, not by what they have reached.

    At each rung a trial goes on if the score expected of it at the deepest budget there is (`Evidence.expected`) is
    among the best 1/factor of those expected of all that have come to the rung; of the latest, where they are very
    many. So a trial that begins slowly goes on where trials like it have ended well.
    """

    def __init__(self, budgets: Sequence[float], factor: float, evidence: Evidence) -> None:
        self.budgets, self.factor, self.evidence = list(budgets), factor, evidence
        self.entered: dict[int, float] = {}  # the last rung of each trial

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        rung = max((budget for budget in self.budgets if budget <= spent), default=0.0)
        if rung <= self.entered.get(number, 0.0):
            return True
        self.entered[number] = rung
        trial, expected = self.evidence.trials[number], self._expected_now()
        there = (one for one in self.evidence.latest if one is not trial and not one.bad and one.spent[-1] >= rung)
        others = [expected[id(one)] for one in there]
        return not others or expected[id(trial)] <= _quantile(sorted(others), 1 / self.factor)

    def _expected_now(self) -> dict[int, float]:
        """By identity of what is known."""
        known = map(id, self.evidence.known)
        return dict(zip(known, self.evidence.expected.tolist(), strict=True))


class Yardstick:
    """Halving, and from a budget of `first` on the curve of the best trial of those that came to the end.

    A trial whose score is above that curve is stopped, at whichever report. A search that learns proposes more and more
    that is nearly as good as the best: it passes every rung, and would take most of the study's time to end above it.
    """

    def __init__(self, halving: Scheduler, first: float, amount: float) -> None:
        self.halving, self.first, self.amount = halving, first, amount
        # Score by budget, of each trial that has not come to its end. Those of stopped ones stay: a resumed study tells
        # of one trial after another, so that one which would be stopped by then may have gone on to become the best.
        self.curves: dict[int, dict[float, float]] = {}
        self.best: dict[float, float] = {}

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        curve = self.curves.setdefault(number, {})
        curve[spent] = score
        if spent >= self.amount:
            if score < self.best.get(spent, math.inf):
                self.best = curve
            del self.curves[number]
            return True
        passes = self.halving.goes_on(number, spent, score)
        return passes and (spent < self.first or score <= self.best.get(spent, math.inf))


class Hyperband:
    """Asynchronous Hyperband (Li et al. 2018, 2020): brackets of ASHA whose first rungs differ, against late bloomers.

    Bracket s lacks the s lowest rungs. Trials are dealt out by number, so that all brackets get about the same
    budget, as in Hyperband.
    """

    def __init__(self, budgets: Sequence[float], factor: float) -> None:
        self.brackets = [Asha(budgets[skipped:], factor) for skipped in range(len(budgets) + 1)]
        # A trial of the bracket without rungs costs 1; those of one with n rungs about (n + 1) / factor^n.
        costs = [(count + 1) / factor**count for count in range(len(budgets), -1, -1)]
        self.shares = [1 / cost / sum(1 / one for one in costs) for cost in costs]

    def bracket(self, number: int) -> Asha:
        """The bracket of a trial: the golden-ratio sequence spreads each bracket's share evenly over the numbers."""
        place = (number + 1) * (math.sqrt(5) - 1) / 2 % 1
        for bracket, share in zip(self.brackets, self.shares, strict=True):
            place -= share
            if place < 0:
                return bracket
        return self.brackets[-1]

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        return self.bracket(number).goes_on(number, spent, score)


MEDIAN_OF = 5
"""The median stops nobody before so many others have come as far."""


class Median:
    """The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    From `first` on, a trial goes on unless its score is above the median of the others' mean scores up to the same
    budget; a trial stops nobody before `least` others have come that far.
    """

    def __init__(self, first: float, least: int = MEDIAN_OF) -> None:
        self.first, self.least = first, least
        self.means: dict[float, dict[int, float]] = {}
        self.sums: dict[int, tuple[int, float]] = {}

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        count, total = self.sums.get(number, (0, 0.0))
        self.sums[number] = count + 1, total + score
        reached = self.means.setdefault(spent, {})
        others = [mean for other, mean in reached.items() if other != number]
        reached[number] = (total + score) / (count + 1)
        if spent < self.first or len(others) < self.least:
            return True
        return score <= _quantile(sorted(others), 0.5)


def _quantile(ascending: Sequence[float], fraction: float) -> float:
    """The quantile, interpolated between neighbours."""
    place = fraction * (len(ascending) - 1)
    low = int(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (place - low) * (ascending[high] - ascending[low])
