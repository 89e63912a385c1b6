"""What trials have shown so far: all that a searcher learns from.

Every report of every trial is kept, those of running trials too; a score is the lowest loss a trial has reached at
a budget. Scores at different budgets cannot be compared as they are: see `tune_rnn.search.comparison`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tune_rnn.space import Assignment


@dataclass
class Observed:
    """One trial: what it tried, its score at each budget it reported at, and whether it still runs.

    `bad` is a trial that diverged, or was refused before it was trained: worse than all others at any budget.
    """

    assignment: Assignment
    spent: list[float] = field(default_factory=list)  # ascending, in epochs or tokens
    scores: list[float] = field(default_factory=list)
    running: bool = True
    bad: bool = False

    @property
    def is_informative(self) -> bool:
        """Whether it can be compared with others: a trial that failed for reasons of its own cannot."""
        return self.bad or bool(self.scores)


class Evidence:
    """Trials by number, in the order in which they began; refused assignments beside them."""

    def __init__(self) -> None:
        self.trials: dict[int, Observed] = {}
        self.refused: list[Observed] = []

    def begin(self, number: int, assignment: Assignment) -> None:
        """A trial begins."""
        self.trials[number] = Observed(assignment)

    def report(self, number: int, spent: float, score: float) -> None:
        """A trial has reached `score` (lower is better) with a budget of `spent`; NaN and inf: it diverged."""
        trial = self.trials[number]
        if not math.isfinite(score):
            trial.bad = True
        elif not trial.spent or spent > trial.spent[-1]:  # a resumed trial makes its last report again
            trial.spent.append(spent)
            trial.scores.append(min(score, trial.scores[-1]) if trial.scores else score)

    def end(self, number: int, diverged: bool = False) -> None:
        """A trial has ended, in whatever way."""
        trial = self.trials[number]
        trial.running = False
        trial.bad = trial.bad or diverged

    def refuse(self, assignment: Assignment) -> None:
        """An assignment was refused before it was trained."""
        self.refused.append(Observed(assignment, running=False, bad=True))
