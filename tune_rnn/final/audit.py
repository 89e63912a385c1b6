"""What the audit shows: whether early stopping stopped the right trials.

Trials drawn at random from those that the scheduler stopped were trained to the end of the search's budget, each with
its own seed and from its own checkpoint: as if it had never been stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tune_rnn.confidence import Ends, as_list, rank_correlation, share_interval
from tune_rnn.experiment import Experiment
from tune_rnn.results.journal import AUDIT, SEARCH, Journal, TrialRecord
from tune_rnn.rungs import rungs


@dataclass(frozen=True)
class Audit:
    """`stopped` trials drawn and trained to their end, and how they compare with the `finished` ones of the search.

    A stop was false if the trial ends with a loss no higher than `threshold`: that of the worst of the best
    `kept` (1/reduction_factor, rounded down, but at least one) of the trials that the search itself finished. Without
    such a trial there is no threshold. `would_have_won`: it ends with a lower loss than all of these.
    """

    asked: int
    stopped: list[TrialRecord]
    finished: list[TrialRecord]
    kept: int
    correlations: list[tuple[float, float | None, int]]

    @property
    def threshold(self) -> float | None:
        return _ascending(self.finished)[self.kept - 1] if self.finished else None

    @property
    def false_stops(self) -> list[TrialRecord]:
        limit = self.threshold
        return [] if limit is None else [trial for trial in self.stopped if trial.end_loss <= limit]

    @property
    def would_have_won(self) -> list[TrialRecord]:
        return [trial for trial in self.stopped if self.finished and trial.end_loss < _ascending(self.finished)[0]]

    @property
    def share(self) -> float | None:
        return len(self.false_stops) / len(self.stopped) if self.stopped and self.finished else None

    @property
    def interval(self) -> Ends | None:
        """The exact 95 % interval of the share."""
        return None if self.share is None else share_interval(len(self.false_stops), len(self.stopped))

    def to_dict(self, unit: str) -> dict[str, Any]:
        """What `summary.json` has."""
        return {
            "asked": self.asked,
            "finished": len(self.stopped),
            "false_stops": len(self.false_stops),
            "share": self.share,
            "interval": as_list(self.interval),
            "would_have_won": len(self.would_have_won),
            "threshold": self.threshold,
            "rank_correlation": [
                {unit: rung, "spearman": correlation, "trials": count} for rung, correlation, count in self.correlations
            ],
            "trials": [self._row(trial) for trial in self.stopped],
        }

    def _row(self, trial: TrialRecord) -> dict[str, Any]:
        ended = {"loss": trial.end_loss if math.isfinite(trial.end_loss) else None, "outcome": trial.outcome}
        return {"trial": trial.number, "of": trial.of, **ended, "false_stop": trial in self.false_stops}


def audit(journal: Journal, experiment: Experiment) -> Audit | None:
    """What the audited trials show so far; None where none was asked for."""
    drawn = journal.in_stage(AUDIT)
    asked = len(drawn) or (experiment.final.audit if experiment.final else 0)
    if not asked:
        return None
    stopped = [trial for trial in drawn if trial.outcome not in ("", "failed")]
    finished = [trial for trial in journal.in_stage(SEARCH) if _has_finished(trial)]
    kept = max(1, int(len(finished) / _factor(experiment)))
    correlations = [_correlation(rung, [*finished, *stopped]) for rung in _rungs(experiment)]
    return Audit(asked, stopped, finished, kept, correlations)


def _has_finished(trial: TrialRecord) -> bool:
    """Whether a trial ended by itself, at the end of its budget or of its patience, and did not diverge."""
    return trial.outcome in ("completed", "stopped_early") and bool(trial.reports[-1].finished)


def _factor(experiment: Experiment) -> float:
    """One in how many trials goes on past a rung; the median rule lets the better half go on."""
    return 2.0 if experiment.scheduler.algorithm == "median" else experiment.scheduler.reduction_factor


def _rungs(experiment: Experiment) -> list[float]:
    scheduler, amount = experiment.scheduler, experiment.budget.amount
    return rungs(scheduler.first_rung or experiment.report_every, scheduler.reduction_factor, amount)


def _correlation(rung: float, trials: list[TrialRecord]) -> tuple[float, float | None, int]:
    """Spearman's correlation of the losses reached at a rung with those at the end, over trials that reached both."""
    pairs = [(there, trial.end_loss) for trial in trials if (there := _loss_at(trial, rung)) is not None]
    return rung, rank_correlation([there for there, _ in pairs], [end for _, end in pairs]), len(pairs)


def _loss_at(trial: TrialRecord, rung: float) -> float | None:
    """The lowest loss up to a rung; None for a trial that ended before it, or had diverged."""
    reached = [report for report in trial.reports if report.spent <= rung]
    return reached[-1].best_loss if reached and trial.spent > rung else None


def _ascending(trials: list[TrialRecord]) -> list[float]:
    return sorted(trial.end_loss for trial in trials)
