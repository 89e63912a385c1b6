"""How long the trainings of the final stage take, told from those of the search."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import amount_of, candidates
from tune_rnn.results.journal import FINAL, SEARCH, Journal, TrialRecord

OVERHEAD = 1.25
"""A trial's time in relation to that of its training steps and validation: checkpoints, waiting, other loads."""

SET_UP_S = 2.0
"""Seconds before a trial's first step: a model is built, perhaps a process started."""


def seconds_left(trial: TrialRecord, journal: Journal, experiment: Experiment) -> float:
    """What a trial still needs to reach the end of its budget."""
    left = max(0.0, amount_of(trial, experiment) - trial.spent)
    return SET_UP_S + OVERHEAD * _pace(journal, trial.number if trial.of is None else trial.of) * left


def final_seconds(journal: Journal, experiment: Experiment, slots: int) -> float:
    """How long the final stage would take if the search ended now; 0 where no trial has reported yet.

    The audit's trials, which cannot be known before the search has ended, count with a whole budget of the usual pace.
    """
    final, budget = experiment.final, experiment.budget
    best = [] if final is None else candidates(journal, final.top_k)
    if final is None or not best:
        return 0.0
    again = [SET_UP_S + OVERHEAD * final.amount(budget) * _pace(journal, trial.number) for trial in best]
    to_the_end = [SET_UP_S + OVERHEAD * budget.amount * _usual_pace(journal)] * final.audit
    return makespan([], again * final.seeds + to_the_end, slots)


def longest_report_s(journal: Journal) -> float:
    """How long one may have to wait for a trial's next report."""
    reports = (report for trial in journal.in_stage(SEARCH) for report in trial.reports)
    return OVERHEAD * max((report.training_s for report in reports), default=0.0)


def makespan(busy: Iterable[float], jobs: Sequence[float], slots: int) -> float:
    """When the last of `jobs` ends, each begun in order by the slot that is free first; `busy`: what slots still do."""
    free = sorted(busy)[-slots:]
    free = [0.0] * (slots - len(free)) + free
    heapq.heapify(free)
    ends = [0.0]
    for job in jobs:
        ends.append(heapq.heappop(free) + job)
        heapq.heappush(free, ends[-1])
    return max(ends)


def _pace(journal: Journal, number: int) -> float:
    """Training seconds for a unit of the budget, as with the latest trainings of the configuration of a trial."""
    again = [trial for trial in journal.in_stage(FINAL) if trial.of == number and trial.reports]
    return _mean_pace(again or [journal.trials[number]]) or _usual_pace(journal)


def _usual_pace(journal: Journal) -> float:
    return _mean_pace(journal.in_stage(SEARCH))


def _mean_pace(trials: Sequence[TrialRecord]) -> float:
    spent = sum(trial.spent for trial in trials)
    return sum(report.training_s for trial in trials for report in trial.reports) / spent if spent else 0.0
