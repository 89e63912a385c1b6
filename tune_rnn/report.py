"""What a trial is asked for and what it answers: a budget with the amounts to report at, and a report at each.

No torch here: the study, the journal and the pictures read reports without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from tune_rnn.experiment import Experiment
from tune_rnn.rungs import rungs_of

CHECKPOINT = "checkpoint.pt"
"""The file in a checkpoint directory (`checkpoint.save`)."""


@dataclass(frozen=True)
class TrialBudget:
    """How long a trial trains, in epochs or tokens, and the amounts at which it reports (the last is the whole)."""

    unit: str
    report_at: tuple[float, ...]

    @classmethod
    def of(cls, experiment: Experiment) -> TrialBudget:
        """Reports at each multiple of `report_every`, at the rungs of early stopping, and at the end."""
        amount, every = experiment.budget.amount, experiment.report_every
        fixed = [*rungs(experiment), amount]
        regular = [every * number for number in range(1, math.ceil(amount / every))]
        # 3 * 0.3 is not quite 0.9: what differs by rounding alone is one report.
        regular = [at for at in regular if not any(math.isclose(at, other, rel_tol=1e-9) for other in fixed)]
        return cls(experiment.budget.unit, tuple(sorted({*regular, *fixed})))


@dataclass(frozen=True)
class Report:
    """A trial's metrics at the end of a training iteration. Losses in nats per predicted symbol.

    `finished` is "" while training goes on, else "budget", "patience" or "diverged"; `reason` says it in words.
    A diverged trial has no validation loss. `training_s` counts training steps and validation, nothing else.
    """

    spent: float
    tokens: int
    step: int
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
    learning_rate: float
    gradient_norm: float | None
    tokens_per_second: float
    training_s: float
    improved: bool = False
    finished: str = ""
    reason: str = ""

    @property
    def score(self) -> float:
        """The lowest validation loss so far; infinity for a trial that has diverged, whatever it reached before."""
        return math.inf if self.finished == "diverged" or self.best_loss is None else self.best_loss

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))  # `asdict` copies each value, and takes ten times as long

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The inverse of `to_dict`; keys of others (Ray adds some) are left out."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def rungs(experiment: Experiment) -> list[float]:
    """Budgets below a trial's whole one at which trials are compared, where the scheduler has such."""
    return rungs_of(experiment.scheduler, experiment.budget.amount)
