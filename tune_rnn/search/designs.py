"""Algorithms that learn nothing: every point of a grid, independent draws, and a low-discrepancy sequence."""

from __future__ import annotations

import numpy as np

from tune_rnn.search.evidence import Evidence
from tune_rnn.search.proposals import Proposal, trial_seed
from tune_rnn.space import Space

BRANCH = "one_of"


class Grid:
    """Every combination, the last key varying fastest; with several seeds, all combinations with one seed first."""

    def __init__(self, space: Space, seed: int = 0, seeds: int = 1) -> None:
        self.assignments, self.seed, self.seeds = space.grid(), seed, seeds

    def suggest(self, place: int, evidence: Evidence) -> Proposal | None:
        repeat, point = divmod(place, len(self.assignments))
        if repeat >= self.seeds:
            return None
        seed = trial_seed(self.seed, repeat) if self.seeds > 1 else None
        return Proposal(self.assignments[point], seed)


class Random:
    """Independent draws; an assignment depends on the study's seed and its place alone."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def suggest(self, place: int, evidence: Evidence) -> Proposal:
        return Proposal(self.space.sample(np.random.default_rng((self.seed, place))))


class Sobol:
    """The scrambled Sobol sequence (Owen 1998): each next point falls where the ones before left room.

    Branches take turns by a coordinate of their own; a branch's own keys have coordinates of their own as well.
    """

    def __init__(self, space: Space, seed: int) -> None:
        from scipy.stats import qmc

        self.space = space
        own = [(name, key) for name, keys in space.branches.items() for key in keys]
        self.labels = [(BRANCH, ""), *(("", key) for key in space.shared), *own]
        self._sequence = qmc.Sobol(len(self.labels), rng=np.random.default_rng((seed, 0x50B01)))
        self._points = np.empty((0, len(self.labels)))

    def suggest(self, place: int, evidence: Evidence) -> Proposal:
        while place >= len(self._points):  # powers of two, which keep the sequence balanced
            self._points = np.vstack([self._points, self._sequence.random(max(64, len(self._points)))])
        point = dict(zip(self.labels, self._points[place], strict=True))
        branches = list(self.space.branches)
        branch = branches[min(int(point[BRANCH, ""] * len(branches)), len(branches) - 1)] if branches else None
        values = {
            key: distribution.from_unit(float(point["" if key in self.space.shared else branch or "", key]))
            for key, distribution in self.space.distributions(branch).items()
        }
        return Proposal(values if branch is None else {BRANCH: branch, **values})
