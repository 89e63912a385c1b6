"""HyperOpt's tree-structured Parzen estimator (Bergstra et al. 2011), told what trials at any budget have shown.

HyperOpt itself learns from ended trials alone, and compares their last scores whatever their budgets were. Here it
is told an order instead, made anew for each proposal: first the trials that have shown something, by the score
expected of them; then the diverged ones; and last those that have not reported yet, so that proposals do not pile up
where trials have just begun (a constant liar, Ginsbourger et al. 2010).

Its densities are HyperOpt's own, with its defaults, but they are called without its `suggest`: that builds a graph of
them anew for each proposal, and walks through a document of each trial, which takes several times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tune_rnn.search.comparison import Array
from tune_rnn.search.coordinates import Axes, Point
from tune_rnn.search.learning import Learner, Told
from tune_rnn.space import Space

GAMMA = 0.35
"""The good trials are the best GAMMA √n of n, at most GOOD. HyperOpt's default is 0.25, the best 2 of 60."""

GOOD, CANDIDATES, PRIOR_WEIGHT, REMEMBERED = 25, 24, 1.0, 25
"""HyperOpt's defaults: draws among which the best is proposed, the prior's weight in trials, and how many of the latest
trials count in full (the ones before count the less, the older they are)."""


class HyperOpt(Learner):
    """TPE over the unit cube of the space."""

    def __init__(self, space: Space, seed: int) -> None:
        from hyperopt import tpe  # 1.7 s, and only this searcher needs it

        super().__init__(space, seed)
        self._tpe = tpe

    def ask(self, told: Told, seed: int) -> Point:
        points = [*told.points, *told.pending]
        ranks = np.append(told.ranks(), np.full(len(told.pending), len(told.points)))
        good = np.zeros(len(points), dtype=bool)
        good[np.argsort(ranks, kind="stable")[: min(math.ceil(GAMMA * math.sqrt(len(points))), GOOD)]] = True
        generator = np.random.default_rng(seed)
        point = self._best_of_each(self.cube.shared, points, good, generator)
        branch = self.cube.branch_of(point)
        return point if branch is None else point | self._best_of_each(self.cube.own[branch], points, good, generator)

    def _best_of_each(
        self, axes: Axes, points: Sequence[Point], good: NDArray[np.bool_], generator: Generator
    ) -> Point:
        """For each axis, by itself, the draw from the good trials' density that is likeliest to be a good one."""
        best = {}
        for label, categories in axes.items():
            there = np.array([label in point for point in points])  # those of other branches are not
            values = np.array([point[label] for point in points if label in point])
            of_good, of_others = (self._density(values[which[there]], categories) for which in (good, ~good))
            drawn = of_good.draw(generator)
            best[label] = float(drawn[np.argmax(of_good.log(drawn) - of_others.log(drawn))])
        return best

    def _density(self, values: Array, categories: int | None) -> _Numbers | _Choices:
        return _Numbers(self._tpe, values) if categories is None else _Choices(self._tpe, values, categories)


class _Numbers:
    """A truncated Gaussian for each value and for the prior, as wide as it is far to the neighbours."""

    def __init__(self, tpe: Any, values: Array) -> None:
        self.tpe, self.mixture = tpe, tpe.adaptive_parzen_normal(values, PRIOR_WEIGHT, 0.5, 1.0, REMEMBERED)

    def draw(self, generator: Generator) -> Array:
        drawn: Array = self.tpe.GMM1(*self.mixture, low=0, high=1, rng=generator, size=(CANDIDATES,))
        return drawn

    def log(self, drawn: Array) -> Array:
        densities: Array = self.tpe.GMM1_lpdf(drawn, *self.mixture, low=0, high=1)
        return densities


class _Choices:
    """How often each category was chosen, and the prior once for each."""

    def __init__(self, tpe: Any, values: Array, categories: int) -> None:
        weights = tpe.linear_forgetting_weights(len(values), REMEMBERED)
        counts = np.bincount(values.astype(int), weights, categories) + PRIOR_WEIGHT
        self.shares = counts / counts.sum()

    def draw(self, generator: Generator) -> Array:
        return generator.choice(np.arange(len(self.shares), dtype=float), CANDIDATES, p=self.shares)

    def log(self, drawn: Array) -> Array:
        logs: Array = np.log(self.shares[drawn.astype(int)])
        return logs
