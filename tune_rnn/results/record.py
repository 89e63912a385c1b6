"""What is known of one trial: the journal's record of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tune_rnn.report import Report
from tune_rnn.space import Assignment

SEARCH, FINAL, AUDIT = "search", "final", "audit"
"""Stages: trials of the search, and after it trainings of its best with new seeds, and of stopped ones to their end."""


@dataclass(frozen=True)
class Stretch:
    """What trial `trial` trained the weights with for the reports up to number `until`, before they were taken over."""

    until: int
    trial: int
    assignment: Assignment
    config: dict[str, Any]


@dataclass
class TrialRecord:
    """What is known of one trial. `outcome` is "" until it has ended; `checkpoint` is relative to the run.

    A trial of a later stage trains what trial `of` tried; an audit's goes on from it, so its first `inherited` reports
    are that trial's. So are those of a trial that took over another's weights: `reports` tell the story of the weights
    that it has now, `earlier` what they were trained with before, and `left` are its own reports of those it gave up.
    """

    number: int
    seed: int
    assignment: Assignment
    config: dict[str, Any]
    reports: list[Report] = field(default_factory=list)
    checkpoint: str = ""
    checkpoint_reports: int = 0
    outcome: str = ""
    reason: str = ""
    stage: str = SEARCH
    of: int | None = None
    inherited: int = 0
    joined: bool = False  # a final stage that was at work already
    earlier: list[Stretch] = field(default_factory=list)
    left: list[Report] = field(default_factory=list)
    tokens_left: int = 0
    taken_over: int = 0  # how often
    lost: int = 0  # how often in this session it has had to go on in another process
    machine: str = ""  # the last that it was trained on, where there are several, or one with GPUs
    gpus: list[int] = field(default_factory=list)  # those of the machine that Ray gave it
    checkpoints: dict[float, str] = field(default_factory=dict)  # by what was spent; some may have been deleted

    @property
    def own_reports(self) -> list[Report]:
        """Reports that this trial made itself, those of weights that it gave up too."""
        return [*self.left, *self.reports[self.inherited :]]

    @property
    def diverged(self) -> bool:
        """Whether it ended so, or stands so until it takes over other weights."""
        return self.outcome == "diverged" or (bool(self.reports) and self.reports[-1].finished == "diverged")

    @property
    def spent_before(self) -> float:
        """What the trial it goes on from had spent."""
        return self.reports[self.inherited - 1].spent if self.inherited else 0.0

    @property
    def tokens(self) -> int:
        """Training tokens that this trial itself has processed."""
        before = self.reports[self.inherited - 1].tokens if self.inherited else 0
        return self.tokens_left + (self.reports[-1].tokens - before if self.reports else 0)

    @property
    def best(self) -> Report | None:
        """The report of the lowest validation loss that a checkpoint holds the model of."""
        covered = range(min(self.checkpoint_reports, len(self.reports)))
        return next((self.reports[place] for place in reversed(covered) if self.reports[place].improved), None)

    @property
    def best_stretch(self) -> Stretch:
        """What the best model was trained with; for most trials what they have been trained with all along."""
        best = self.best
        count = sum(report.spent <= best.spent for report in self.reports) if best else len(self.reports)
        now = Stretch(len(self.reports), self.number, self.assignment, self.config)
        return next(stretch for stretch in (*self.earlier, now) if count <= stretch.until)

    @property
    def best_loss(self) -> float | None:
        return self.best.validation_loss if self.best else None

    @property
    def end_loss(self) -> float:
        """The lowest validation loss of a trial that has ended; infinite for one that diverged."""
        return math.inf if self.outcome == "diverged" or self.best_loss is None else self.best_loss

    @property
    def spent(self) -> float:
        return self.reports[-1].spent if self.reports else 0.0

    def return_to(self, spent: float) -> None:
        """Forget what came after the checkpoint that it had with a budget of `spent`; 0: it begins anew."""
        self.reports = [report for report in self.reports if report.spent <= spent]
        self.checkpoints = {at: path for at, path in self.checkpoints.items() if at <= spent}
        self.checkpoint, self.checkpoint_reports = self.checkpoints.get(spent, ""), len(self.reports)

    def take_over(self, other: TrialRecord, spent: float, assignment: Assignment, config: dict[str, Any]) -> None:
        """Go on from the checkpoint that `other` had with a budget of `spent`, with other values.

        What is given up still counts for time and tokens.
        """
        self.left, self.tokens_left = self.own_reports, self.tokens
        self.reports = [report for report in other.reports if report.spent <= spent]
        self.inherited = self.checkpoint_reports = len(self.reports)
        self.checkpoint = other.checkpoints[spent]
        self.earlier = [*other.earlier, Stretch(self.inherited, other.number, other.assignment, other.config)]
        self.assignment, self.config = assignment, config
        self.taken_over += 1
        self.outcome = self.reason = ""
