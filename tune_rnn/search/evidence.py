"""What trials have shown so far: all that a searcher learns from.

Every report of every trial is kept, those of running trials too; a score is the lowest loss a trial has reached at
a budget. Scores at different budgets cannot be compared as they are: see `tune_rnn.search.comparison`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from tune_rnn.space import Assignment

OWN = ""
"""The group of this study's own trials."""


@dataclass
class Observed:
    """One trial: what it tried, its score at each budget it reported at, and whether it still runs.

    `bad` is a trial that diverged, or was refused before it was trained: worse than all others at any budget. Scores
    are comparable within a `group`: "" has this study's own trials, and those of earlier studies like it.
    """

    assignment: Assignment
    spent: list[float] = field(default_factory=list)  # ascending, in epochs or tokens
    scores: list[float] = field(default_factory=list)
    running: bool = True
    bad: bool = False
    group: str = OWN
    _row: tuple[tuple[float, ...], bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def report(self, spent: float, score: float) -> None:
        """It has reached `score` (lower is better) with a budget of `spent`; NaN and inf: it diverged."""
        if not math.isfinite(score):
            self.bad = True
        elif not self.spent or spent > self.spent[-1]:  # a resumed trial makes its last report again
            self.spent.append(spent)
            self.scores.append(min(score, self.scores[-1]) if self.scores else score)
            self._row = None

    def scores_at(self, budgets: tuple[float, ...]) -> bytes:
        """Its score at each of the budgets, NaN where it has not come that far, as a row of NumPy's.

        Asked of all trials for each proposal, so the answer is kept until there is a new report.
        """
        if self._row is None or self._row[0] != budgets:
            self._row = budgets, array("d", map(self._score_at, budgets)).tobytes()
        return self._row[1]

    def _score_at(self, budget: float) -> float:
        place = bisect_right(self.spent, budget) - 1
        return self.scores[place] if place >= 0 and budget <= self.spent[-1] else math.nan

    @property
    def is_informative(self) -> bool:
        """Whether it can be compared with others: a trial that failed for reasons of its own cannot."""
        return self.bad or bool(self.scores)


class Evidence:
    """Trials by number, in the order in which they began; refused assignments and earlier studies' trials beside them.

    An algorithm reads `known`, and may compare these with `expected_scores`; it need not know where they come from.
    """

    def __init__(self, earlier: Iterable[Observed] = ()) -> None:
        self.earlier = [one for one in earlier if one.is_informative]
        self.trials: dict[int, Observed] = {}
        self.refused: list[Observed] = []
        # So that not all trials are looked through for each proposal: those that tell something, each with its place in
        # the order, and by number those that do not, with theirs.
        self._begun = 0
        self._telling: list[tuple[int, Observed]] = []
        self._silent: dict[int, tuple[int, Observed]] = {}

    @property
    def known(self) -> list[Observed]:
        """All that tells something, what is oldest first."""
        return [*self.earlier, *map(itemgetter(1), self._telling), *self.refused]

    @property
    def shown(self) -> int:
        """How many trials have shown something, earlier studies' included: what was refused tells of no loss."""
        return len(self.earlier) + len(self._telling)

    @property
    def pending(self) -> list[Observed]:
        """Trials that run and have not reported yet."""
        return [trial for _, trial in self._silent.values() if trial.running]

    def begin(self, number: int, assignment: Assignment) -> None:
        """A trial begins; one that had begun before begins anew."""
        if before := self.trials.pop(number, None):
            self._telling = [pair for pair in self._telling if pair[1] is not before]
        self.trials[number] = Observed(assignment)
        self._begun += 1
        self._silent[number] = self._begun, self.trials[number]

    def report(self, number: int, spent: float, score: float) -> None:
        """A trial has reached `score` (lower is better) with a budget of `spent`; NaN and inf: it diverged."""
        self.trials[number].report(spent, score)
        self._listen(number)

    def end(self, number: int, diverged: bool = False) -> None:
        """A trial has ended, in whatever way."""
        trial = self.trials[number]
        trial.running = False
        trial.bad = trial.bad or diverged
        self._listen(number)

    def _listen(self, number: int) -> None:
        if number in self._silent and self.trials[number].is_informative:
            insort(self._telling, self._silent.pop(number))

    def refuse(self, assignment: Assignment) -> None:
        """An assignment was refused before it was trained."""
        self.refused.append(Observed(assignment, running=False, bad=True))
