"""What a searcher hands out: the values of a trial, and where its seed comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
