"""What the final stage found: the section `final` of `summary.json`, and its sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tune_rnn.confidence import BOOTSTRAP_HOLDS, as_list
from tune_rnn.display import plural
from tune_rnn.experiment import Experiment
from tune_rnn.final.audit import Audit, audit
from tune_rnn.final.ranking import Candidate, Difference, difference, ranked, winner
from tune_rnn.kinds import KINDS
from tune_rnn.results.journal import FINAL, Journal


@dataclass(frozen=True)
class Findings:
    """The final stage so far: candidates the best first, those that cannot be compared (yet) in the search's order.

    `seeds`: with how many each candidate was trained; `asked`: with how many each was to be; `missing` trainings have
    not ended, or failed. `incomplete` candidates joined later, and are not compared before they have these seeds.
    """

    candidates: list[Candidate]
    seeds: int
    asked: int
    missing: int
    difference: Difference | None
    audit: Audit | None
    incomplete: list[Candidate]

    @property
    def told_apart(self) -> bool | None:
        """Whether the first is better than the second for all one can tell; None where there are no two to compare."""
        return None if self.difference is None else self.difference.told_apart

    @property
    def verdict(self) -> str:
        """Whether the first two can be told apart, in a sentence; empty for a single candidate."""
        if self.seeds == 0:
            return (
                "No seed is complete for all candidates, so they are not compared: the best is the lowest loss of all."
            )
        if len(self.candidates) < 2:
            return ""
        first, second = self.candidates[:2]
        if self.difference is None:
            how_often = f"with {second.diverged} of {plural(self.seeds, 'seed')}"
            return f"Trials {first.trial} and {second.trial} are not compared, as the latter diverged {how_often}."
        return _comparison(first.trial, second.trial, self.difference)


def _comparison(first: int, second: int, found: Difference) -> str:
    differ = f"{found.mean:.4f} nats, 95 % interval"
    if found.told_apart and found.interval:
        return f"Trial {first} is better than trial {second} by {differ} {_ends(found.interval)}."
    unknown = f"With {plural(found.seeds, 'seed')} trials {first} and {second} cannot be told apart"
    if found.interval is None or found.student is None:
        return f"{unknown}: that takes at least two."
    narrow = found.interval[0] > 0  # few seeds happen to agree on the sign
    ends = f"{_ends(found.student)} by Student's t" if narrow else _ends(found.interval)
    return f"{unknown}: they differ by {differ} {ends}."


def findings(journal: Journal, experiment: Experiment) -> Findings | None:
    """What the final stage has found so far; None where there is none."""
    trials = journal.in_stage(FINAL)
    if experiment.final is None and not trials:
        return None
    losses = journal.compared_losses
    order = ranked(losses)
    compared = difference(order[0], order[1], experiment.search.seed) if len(order) > 1 else None
    asked = experiment.final.seeds if experiment.final else len({trial.seed for trial in trials})
    return Findings(
        candidates=order or [Candidate(trial, dict(own)) for trial, own in losses.items()],
        seeds=len(order[0].losses) if order else 0,
        asked=asked,
        missing=sum(trial.outcome in ("", "failed") for trial in trials),
        difference=compared,
        audit=audit(journal, experiment),
        incomplete=[Candidate(trial, own) for trial, own in journal.final_losses.items() if trial not in losses],
    )


def section(found: Findings, journal: Journal, experiment: Experiment) -> dict[str, Any]:
    """The section `final` of `summary.json`."""
    budget, final = experiment.budget, experiment.final
    compared = found.difference
    return {
        budget.unit: budget.amount if final is None else final.amount(budget),
        "seeds": found.seeds,
        "asked": found.asked,
        "missing": found.missing,
        "interval_holds": BOOTSTRAP_HOLDS.get(found.seeds),
        "winner": winner(journal.compared_losses),
        "candidates": [_row(one, journal, experiment) for one in found.candidates],
        "incomplete": [_row(one, journal, experiment) for one in found.incomplete],
        "difference": None if compared is None else _difference(compared),
        "told_apart": found.told_apart,
        "verdict": found.verdict,
        "audit": None if found.audit is None else found.audit.to_dict(budget.unit),
    }


def _row(candidate: Candidate, journal: Journal, experiment: Experiment) -> dict[str, Any]:
    kind, mean = KINDS[experiment.task.kind], candidate.mean
    trained = {trial.seed: trial for trial in journal.in_stage(FINAL) if trial.of == candidate.trial}
    losses = [loss if math.isfinite(loss) else None for loss in candidate.losses.values()]
    return {
        "trial": candidate.trial,
        "search_loss": journal.trials[candidate.trial].best_loss,
        "trials": [trained[seed].number for seed in candidate.losses],
        "seeds": list(candidate.losses),
        "losses": losses,
        "diverged": candidate.diverged,
        "mean": mean,
        "std": candidate.std,
        "interval": as_list(candidate.interval(experiment.search.seed)),
        kind.metric: None if mean is None else kind.of_loss(mean),
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {"mean": found.mean, "interval": as_list(found.interval), "student": as_list(found.student)}


def _ends(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.4f} to {interval[1]:+.4f}"
