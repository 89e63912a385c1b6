"""How much of a study is done, in trials: what the display makes a percentage and a time of."""

from __future__ import annotations

from dataclasses import dataclass

from tune_rnn.results.journal import SEARCH, Journal


@dataclass(frozen=True)
class Plan:
    """What a study uses: slots, each one's threads and device, trials (None: no limit), a trial's whole budget.

    `trials` are the search's; `points` is how many a grid has to offer: where one of them is refused, no other takes
    its place. `extra` trials of `extra_amount` each come after them, in the final stage.
    """

    slots: int
    threads: int
    device: str
    trials: int | None
    amount: float
    points: int | None = None
    extra: int = 0
    extra_amount: float = 0.0

    def together(self, slots: int) -> int:
        """How many of so many slots there are trials for."""
        return min(slots, max(self.trials or slots, self.extra))


def work_done(journal: Journal, plan: Plan) -> float:
    """Trials ended, plus the part that unfinished ones have had of what a trial uses on average.

    Trials of the final stage, which nobody stops, count as so many of the search's as use the same budget.
    """
    trials = journal.in_stage(SEARCH)
    again = [trial for trial in journal.trials.values() if trial.stage != SEARCH]
    ended = sum(bool(trial.outcome) for trial in trials)
    spent = [trial.spent for trial in trials if not trial.outcome]
    usual, longer = _usual(journal, plan), plan.extra_amount or plan.amount
    unended = sum(part / min(plan.amount, max(usual, 1.25 * part)) for part in spent if part > 0)
    parts = (1.0 if trial.outcome else min(1.0, (trial.spent - trial.spent_before) / longer) for trial in again)
    return ended + unended + sum(parts) * longer / usual


def work_planned(journal: Journal, plan: Plan) -> float:
    """What `work_done` comes to in the end, where the number of trials is known."""
    longer = plan.extra_amount or plan.amount
    return (planned_by_search(journal, plan) or 0) + extra_trials(journal, plan) * longer / _usual(journal, plan)


def planned_by_search(journal: Journal, plan: Plan) -> int | None:
    """How many trials the search will have; None where time alone ends it."""
    trials, points = plan.trials, plan.points
    return trials if trials is None or points is None else min(trials, points - len(journal.refused))


def extra_trials(journal: Journal, plan: Plan) -> int:
    """Trials of the final stage: those written down where it has begun, else as many as there may be."""
    return sum(trial.stage != SEARCH for trial in journal.trials.values()) or plan.extra


def _usual(journal: Journal, plan: Plan) -> float:
    """What a trial of the search uses of its budget on average."""
    ended = [trial.spent for trial in journal.in_stage(SEARCH) if trial.outcome and trial.spent]
    return sum(ended) / len(ended) if ended else plan.amount
