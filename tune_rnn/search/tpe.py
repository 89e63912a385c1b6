"""HyperOpt's tree-structured Parzen estimator (Bergstra et al. 2011), told what trials at any budget have shown.

HyperOpt itself learns from ended trials alone, and compares their last scores whatever their budgets were. Here it
is told an order instead, made anew for each proposal: first the trials that have shown something, by the score
expected of them; then the diverged ones; and last those that have not reported yet, so that proposals do not pile up
where trials have just begun (a constant liar, Ginsbourger et al. 2010).

Its densities are HyperOpt's, with its defaults (`tune_rnn.search.parzen`), without its `suggest`: that builds a graph
of them anew for each proposal, and walks through a document of each trial, which takes ten times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import compress

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tune_rnn.search.comparison import Array
from tune_rnn.search.coordinates import Axes, Point
from tune_rnn.search.learning import Learner, Told
from tune_rnn.search.parzen import Choices, Numbers
from tune_rnn.space import Space

GAMMA = 0.35
"""The good trials are the best GAMMA √n of n, at most GOOD. HyperOpt's default is 0.25, the best 2 of 60."""

GOOD, CANDIDATES, REMEMBERED = 25, 24, 25
"""HyperOpt's defaults: draws among which the best is proposed, and how many of the latest trials count in full (the
ones before count the less, the older they are)."""


class HyperOpt(Learner):
    """TPE over the unit cube of the space."""

    def __init__(self, space: Space, seed: int) -> None:
        from hyperopt import tpe  # 1.7 s, and only this searcher needs it

        super().__init__(space, seed)
        self._forgetting = tpe.linear_forgetting_weights

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
        first, best = next(iter(axes), ""), Point()
        there = [first in point for point in points]  # those of other branches are not
        within, good = list(compress(points, there)), good[there]
        for labels in _numbers_and_choices(axes):
            values_AN = np.array([[point[label] for point in within] for label in labels])
            categories = [axes[label] for label in labels]
            of_good, of_others = (self._densities(values_AN[:, which], categories) for which in (good, ~good))
            drawn_AC = of_good.draw(CANDIDATES, generator)
            # Logarithms, as HyperOpt compares them: what is equal but for rounding is rounded alike.
            best_A = (np.log(of_good.density(drawn_AC)) - np.log(of_others.density(drawn_AC))).argmax(axis=1)
            best |= zip(labels, drawn_AC[np.arange(len(labels)), best_A].tolist(), strict=True)
        return best

    def _densities(self, values_AN: Array, categories: list[int | None]) -> Numbers | Choices:
        weights_N = self._forgetting(values_AN.shape[1], REMEMBERED)
        counts = [count for count in categories if count is not None]
        return Choices(values_AN, weights_N, counts) if counts else Numbers(values_AN, weights_N)


def _numbers_and_choices(axes: Axes) -> Iterator[list[str]]:
    """Labels of axes that are worked out together, as far as there are such."""
    for kind in (True, False):
        if labels := [label for label, categories in axes.items() if (categories is None) is kind]:
            yield labels
