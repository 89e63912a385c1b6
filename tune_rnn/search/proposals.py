"""What a searcher hands out: the values of a trial, and where its seed comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune_rnn.experiment import Experiment
from tune_rnn.space import Assignment


@dataclass(frozen=True)
class Proposal:
    """What is to be tried next."""

    assignment: Assignment
    seed: int | None = None  # None: that of the trial's number
    start: int | None = None  # the starting point that it is


def trial_seed(study_seed: int, number: int) -> int:
    """A trial's own seed: from the study's seed and the trial's number, never from the order of events."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


def planned_trials(experiment: Experiment) -> int | None:
    """How many trials a study has, where it is not only time that ends it."""
    limits = experiment.budget.trials, grid_points(experiment)
    return min((limit for limit in limits if limit is not None), default=None)


def grid_points(experiment: Experiment) -> int | None:
    """How many proposals a grid has, its starting points and all seeds included; None for another search.

    What searches nothing is a grid of one point.
    """
    if experiment.search.algorithm != "grid" and not experiment.space.is_empty:
        return None
    return len(experiment.search.start) + experiment.space.grid_size() * experiment.search.seeds
