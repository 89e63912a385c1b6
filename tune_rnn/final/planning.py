"""What the final stage trains: which configurations with which seeds, and which stopped trials go on to their end."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune_rnn.config.resolution import REPORTS_LIMIT
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.journal import AUDIT, FINAL, SEARCH, Journal, TrialRecord, lowest
from tune_rnn.space import Assignment

SEEDS, DRAWS = 0xF17A1, 0xA0D17
"""What keeps the random numbers of this stage apart from those of the search, which number trials from 0."""


@dataclass(frozen=True)
class Training:
    """What trial `of` tried, trained once more with a seed; an audit's goes on from its first `inherits` reports."""

    stage: str
    of: int
    seed: int
    inherits: int = 0


def final_seed(study_seed: int, index: int) -> int:
    """The seed of the candidates' trainings number `index`, the same for all of them so that they can be paired."""
    return int(np.random.SeedSequence([study_seed, SEEDS, 1 + index]).generate_state(1)[0])


def final_experiment(experiment: Experiment) -> Experiment:
    """The experiment as the candidates' trainings have it: with the final budget, and no final stage after it.

    Reports and rungs that were derived from the search's budget are derived again, so that a run's own file, where all
    is written, gives the same. Raises InputError where those that are written are too frequent for a longer budget.
    """
    if experiment.final is None:
        return experiment.without_final()
    unit, amount = experiment.budget.unit, experiment.final.amount(experiment.budget)
    whole = int(amount) if unit == "tokens" else amount
    try:
        return experiment.without_final().with_overrides([f"budget.{unit}={whole}"])
    except InputError as error:
        rule = f"{error.where} must be at least 1/{REPORTS_LIMIT:,} of it"
        raise InputError(f"final.{unit}", rule, f"Lower it, or raise {error.where}.", whole) from None


def amount_of(trial: TrialRecord, experiment: Experiment) -> float:
    """A trial's whole budget, whichever stage it is of."""
    final, budget = experiment.final, experiment.budget
    return final.amount(budget) if final is not None and trial.stage == FINAL else budget.amount


def planned_trainings(experiment: Experiment) -> tuple[int, int]:
    """At most how many trainings of candidates the final stage has, and how many of an audit."""
    final, trials = experiment.final, experiment.planned_trials
    if final is None:
        return 0, 0
    grid = experiment.search.algorithm == "grid"  # its seeds, and starting points, try the same configurations again
    limits = [trials, experiment.space.grid_size() if grid else None]
    candidates = min([final.top_k, *(limit for limit in limits if limit is not None)])
    return candidates * final.seeds, final.audit if trials is None else min(final.audit, max(trials - 1, 0))


def trainings(journal: Journal, experiment: Experiment) -> list[Training]:
    """All trainings of the final stage, in the order in which they begin, once the search has ended.

    Every candidate is trained with one seed before any is with the next, so that what is complete when time runs out
    can be compared. Candidates that an earlier session chose stay, whichever of its trials is now the best of one.
    """
    final, study_seed = experiment.final, experiment.search.seed
    if final is None:
        return []
    chosen = [trial.of for trial in journal.in_stage(FINAL) if trial.of is not None]
    known = {_key(journal.trials[number].assignment) for number in chosen}
    best = [trial.number for trial in candidates(journal, final.top_k) if _key(trial.assignment) not in known]
    numbers = [*dict.fromkeys(chosen), *best]
    seeds = [final_seed(study_seed, index) for index in range(final.seeds)]
    again = [Training(FINAL, number, seed) for seed in seeds for number in numbers]
    stopped = audited(journal, final.audit, study_seed)
    return [*again, *(_to_the_end(journal.trials[number], journal.path.parent) for number in stopped)]


def candidates(journal: Journal, count: int) -> list[TrialRecord]:
    """The trials of the `count` best configurations of the search, the best first.

    A configuration's loss is the lowest of its trial, whatever budget that had; of several trials (a grid with seeds)
    the mean, and it is named by the best of them.
    """
    groups: dict[tuple[tuple[str, object], ...], list[TrialRecord]] = defaultdict(list)
    for trial in journal.in_stage(SEARCH):
        if trial.outcome != "diverged" and trial.best_loss is not None:
            groups[_key(trial.assignment)].append(trial)
    best = sorted(groups.values(), key=lambda group: (_mean_loss(group), group[0].number))
    named = (lowest(group) for group in best[:count])
    return [trial for trial in named if trial is not None]


def audited(journal: Journal, count: int, study_seed: int) -> list[int]:
    """Numbers of `count` trials that the scheduler stopped, drawn at random; those drawn by earlier sessions stay."""
    stopped = [trial.number for trial in journal.in_stage(SEARCH) if was_stopped(trial)]
    begun = [trial.of for trial in journal.in_stage(AUDIT) if trial.of is not None]
    drawn = np.random.default_rng((study_seed, DRAWS)).permutation(stopped).tolist()
    return [*begun, *(int(number) for number in drawn if number not in begun)][:count]


def was_stopped(trial: TrialRecord) -> bool:
    """Whether the scheduler stopped a trial; one that patience ended has ended by itself."""
    return trial.outcome == "stopped_early" and not trial.reports[-1].finished


def _to_the_end(trial: TrialRecord, run: Path) -> Training:
    """From the last checkpoint; from the start, with the same seed, where somebody has removed that."""
    there = trial.checkpoint and (run / trial.checkpoint).exists()
    return Training(AUDIT, trial.number, trial.seed, inherits=trial.checkpoint_reports if there else 0)


def _mean_loss(trials: Sequence[TrialRecord]) -> float:
    return statistics.fmean(trial.best_loss for trial in trials if trial.best_loss is not None)


def _key(assignment: Assignment) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(assignment.items(), key=lambda item: item[0]))
