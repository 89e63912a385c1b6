"""HyperOpt's tree-structured Parzen estimator (Bergstra et al. 2011), told what trials at any budget have shown.

HyperOpt itself learns from ended trials alone, and compares their last scores whatever their budgets were. Here it
is told an order instead, made anew for each proposal: first the trials that have shown something, by the score
expected of them; then the diverged ones; and last those that have not reported yet, so that proposals do not pile up
where trials have just begun (a constant liar, Ginsbourger et al. 2010).

Its densities are HyperOpt's, with its defaults (`tune_rnn.search.parzen`), without its `suggest`: that builds a graph
of them anew for each proposal, and walks through a document of each trial, which takes ten times as long. As they look
at each hyperparameter by itself, several proposals are made, some drawn anywhere in the space are put beside them, and
a Gaussian process picks one (`tune_rnn.search.picking`).
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
from tune_rnn.search.picking import most_promising

GAMMA = 0.35
"""The good trials are the best GAMMA √n of n, at most GOOD. HyperOpt's default is 0.25, the best 2 of 60."""

GOOD, REMEMBERED = 25, 25
"""HyperOpt's defaults: the most good trials, and how many of the latest trials count in full (the ones before count
the less, the older they are)."""

PROPOSALS, CANDIDATES = 16, 6
"""Of so many proposals one is picked, each the best of so many draws on each axis. HyperOpt's is the best of 24."""

ANYWHERE = 5
"""So many of them are drawn anywhere in the space instead. Of a few choices the good trials soon have only one, and
then nearly all proposals have that: others could not be picked."""

PICK_BEST, PICK_LATEST = 50, 80
"""It is picked by what so many of the best and of the latest trials have shown."""


class HyperOpt(Learner):
    """TPE over the unit cube of the space."""

    def ask(self, told: Told, seed: int) -> Point:
        points = [*told.points, *told.pending]
        ranks = np.append(told.ranks(), np.full(len(told.pending), len(told.points)))
        good = np.zeros(len(points), dtype=bool)
        good[np.argsort(ranks, kind="stable")[: min(math.ceil(GAMMA * math.sqrt(len(points))), GOOD)]] = True
        generator = np.random.default_rng(seed)
        anywhere = [self.cube.point(self.space.sample(generator)) for _ in range(ANYWHERE)]
        proposals = [*self.proposals(points, good, generator)[ANYWHERE:], *anywhere]
        return proposals[self._picked(told, proposals)]

    def proposals(self, points: Sequence[Point], good: NDArray[np.bool_], generator: Generator) -> list[Point]:
        """PROPOSALS of TPE's, of which each takes the branch that it likes best."""
        proposals = self._best_of_each(self.cube.shared, points, good, generator)
        of_branch = {
            branch: self._best_of_each(own, points, good, generator)
            for branch, own in self.cube.own.items()
            if own and any(self.cube.branch_of(point) == branch for point in proposals)
        }
        return [
            point | of_branch[branch][place] if (branch := self.cube.branch_of(point)) in of_branch else point
            for place, point in enumerate(proposals)
        ]

    def _picked(self, told: Told, proposals: list[Point]) -> int:
        """The place of the proposal that a Gaussian process of the best and the latest trials likes best."""
        ranks, known = told.ranks(), len(told.points)
        kept = np.union1d(np.nonzero(ranks < PICK_BEST)[0], np.arange(known)[-PICK_LATEST:])
        begun = told.features[known:][-PICK_LATEST:]
        ranks = np.append((ranks[kept] + 0.5) / known, np.full(len(begun), 0.5))  # what has only begun is ordinary
        candidates = np.array([self.cube.features_of(point) for point in proposals])
        return most_promising(np.vstack([told.features[kept], begun]), ranks, candidates, self.cube.dimensions)

    def _best_of_each(
        self, axes: Axes, points: Sequence[Point], good: NDArray[np.bool_], generator: Generator
    ) -> list[Point]:
        """PROPOSALS: for each axis, by itself, of CANDIDATES draws from the good trials' density the likeliest one."""
        first, best = next(iter(axes), ""), [Point() for _ in range(PROPOSALS)]
        there = [first in point for point in points]  # those of other branches are not
        within, good = list(compress(points, there)), good[there]
        for labels in _numbers_and_choices(axes):
            values_AN = np.array([[point[label] for point in within] for label in labels])
            categories = [axes[label] for label in labels]
            of_good, of_others = (self._densities(values_AN[:, which], categories) for which in (good, ~good))
            drawn_AC = of_good.draw(PROPOSALS * CANDIDATES, generator)
            # Logarithms, as HyperOpt compares them: what is equal but for rounding is rounded alike.
            gain_AC = np.log(of_good.density(drawn_AC)) - np.log(of_others.density(drawn_AC))
            best_AP = gain_AC.reshape(-1, PROPOSALS, CANDIDATES).argmax(axis=2)
            drawn_APC = drawn_AC.reshape(-1, PROPOSALS, CANDIDATES)
            best_PA = np.take_along_axis(drawn_APC, best_AP[:, :, None], axis=2)[:, :, 0].T
            for point, values in zip(best, best_PA.tolist(), strict=True):
                point |= zip(labels, values, strict=True)
        return best

    def _densities(self, values_AN: Array, categories: list[int | None]) -> Numbers | Choices:
        from hyperopt.tpe import (
            linear_forgetting_weights,  # not before it is needed: no study is to wait for it to begin
        )

        weights_N = linear_forgetting_weights(values_AN.shape[1], REMEMBERED)
        counts = [count for count in categories if count is not None]
        return Choices(values_AN, weights_N, counts) if counts else Numbers(values_AN, weights_N)


def _numbers_and_choices(axes: Axes) -> Iterator[list[str]]:
    """Labels of axes that are worked out together, as far as there are such."""
    for kind in (True, False):
        if labels := [label for label, categories in axes.items() if (categories is None) is kind]:
            yield labels
