"""What one trial has shown: its score, the lowest loss so far, at each budget it reported at."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from tune_rnn.space import Assignment

OWN = ""
"""The group of this study's own trials."""


@dataclass
class Observed:
    """One trial: what it tried, its score at each budget it reported at, and whether it still runs.

    `bad` is a trial that diverged, or was refused before it was trained: worse than all others at any budget. Scores
    are comparable within a `group`: "" has this study's own trials, and those of earlier studies like it. `features`
    are its assignment as numbers (`tune_rnn.search.coordinates.Cube.features`).
    """

    assignment: Assignment
    spent: list[float] = field(default_factory=list)  # ascending, in epochs or tokens
    scores: list[float] = field(default_factory=list)
    running: bool = True
    bad: bool = False
    group: str = OWN
    features: tuple[float, ...] = ()
    _row: tuple[tuple[float, ...], bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def report(self, spent: float, score: float) -> bool:
        """It has reached `score` (lower is better) with a budget of `spent`; NaN and inf: it diverged.

        Returns whether that is news: a resumed trial makes its last report again, and Ray tells some twice.
        """
        if not math.isfinite(score):
            news, self.bad = not self.bad, True
        elif news := not self.spent or spent > self.spent[-1]:
            self.spent.append(spent)
            self.scores.append(min(score, self.scores[-1]) if self.scores else score)
            self._row = None
        return news

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
