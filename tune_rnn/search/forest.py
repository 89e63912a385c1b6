"""A random forest and expected improvement, as SMAC searches (Hutter et al. 2011, Lindauer et al. 2022).

The forest is SMAC's, and so are its settings; what it is asked is decided here. SMAC's own ask and tell keeps a history
of its own, in files: told anew for each proposal, as a resumed study asks for, it takes over a second, most of it for
candidates that are Python objects each, some of which come from a set, whose order is that of one process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_rnn.search.comparison import Array
from tune_rnn.search.coordinates import Point
from tune_rnn.search.designs import BRANCH
from tune_rnn.search.learning import Learner, Told
from tune_rnn.space import Space

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from smac.model.random_forest import RandomForest

CANDIDATES = 5000
STARTS, NEIGHBOURS, ROUNDS = 10, 20, 12
"""The best candidates are improved one coordinate at a time: so many, each into so many others, so often."""

SPARE = 100  # candidates that stand in where all of the best have been tried
STEPS = (0.2, 0.02)  # standard deviation of a change in the first round and in the last


class Forest(Learner):
    """Rows are points with a column for each axis (N, D); NaN where a point lacks it, being in another branch."""

    random = 0.2  # as SMAC: where a forest has seen nothing it is flat, and certain of itself

    def __init__(self, space: Space, seed: int) -> None:
        import smac.model.random_forest  # noqa: F401 (2 s, so that no trial waits for it)

        super().__init__(space, seed)
        self._configurations = self._configuration_space()
        axes = self.cube.shared | {label: one for own in self.cube.own.values() for label, one in own.items()}
        branch_of = {label: number for number, own in enumerate(self.cube.own.values()) for label in own}
        self._labels = list(self._configurations)  # in an order of its own
        self._categories = np.array([axes[label] or 0 for label in self._labels])  # 0: a number
        self._branches = np.array([branch_of.get(label, -1) for label in self._labels])  # -1: an axis of all points
        self._changeable = np.array([label != BRANCH for label in self._labels])

    def ask(self, told: Told, seed: int) -> Point:
        generator = np.random.default_rng(seed)
        drawn = self._drawn(CANDIDATES, generator)
        points, scores = told.believed()
        known = self._rows(points)
        forest = self._fitted(known, scores, seed)
        lowest = float(forest.predict_marginalized(known)[0].min())
        best = self._climb(partial(_expected_improvement, forest, lowest), np.vstack([known, drawn]), generator)
        tried = [self.cube.assignment(point) for point in points]
        asked = [self._point(row) for row in (*best, *drawn[:SPARE])]
        return next((point for point in asked if self.cube.assignment(point) not in tried), asked[0])

    def _fitted(self, known: Array, scores: Array, seed: int) -> RandomForest:
        """A forest with the settings of SMAC's facade for hyperparameters, but for the last two.

        Its logarithm of the scores is left out, too: they need not be positive.
        """
        from smac.model.random_forest import RandomForest

        forest = RandomForest(
            self._configurations,
            n_trees=10,
            ratio_features=1.0,
            min_samples_split=2,
            min_samples_leaf=1,
            seed=seed,
            max_leaf_nodes=max(2, len(known)),  # its default, a million, allocates as much for each tree: 0.1 s
            n_jobs=1,  # threads cost more than these few trees do
        )
        return forest.train(known, scores[:, None])

    def _climb(self, gain: Callable[[Array], Array], rows: Array, generator: np.random.Generator) -> Array:
        """The best rows (STARTS, D), best first, after a search in their neighbourhood."""
        best = _highest(gain, rows)
        for step in np.geomspace(*STEPS, ROUNDS):
            changed = self._changed(np.repeat(best, NEIGHBOURS, axis=0), step, generator)
            best = _highest(gain, np.vstack([best, changed]))
        return best

    def _changed(self, rows: Array, step: float, generator: np.random.Generator) -> Array:
        """Rows with another value on one of their axes, never the branch: that would need the axes of another one."""
        open_to_change = ~np.isnan(rows) & self._changeable
        column = (generator.random(rows.shape) * open_to_change).argmax(axis=1)
        row = np.arange(len(rows))
        value, categories = rows[row, column], self._categories[column]
        number = np.clip(value + step * generator.standard_normal(len(rows)), 0, 1)
        other = (value + 1 + np.floor(generator.random(len(rows)) * (categories - 1))) % np.maximum(categories, 1)
        changed = rows.copy()
        changed[row, column] = np.where(categories > 0, other, number)
        return np.where(open_to_change.any(axis=1)[:, None], changed, rows)

    def _drawn(self, count: int, generator: np.random.Generator) -> Array:
        """Random rows; every branch is equally likely."""
        rows = generator.random((count, len(self._labels)))
        rows = np.where(self._categories > 0, np.floor(rows * self._categories), rows)
        if self.cube.branches:
            branch = rows[:, [self._labels.index(BRANCH)]]
            rows[(self._branches >= 0) & (self._branches != branch)] = np.nan
        return rows

    def _rows(self, points: list[Point]) -> Array:
        return np.array([[point.get(label, np.nan) for label in self._labels] for point in points])

    def _point(self, row: Array) -> Point:
        return {label: float(value) for label, value in zip(self._labels, row, strict=True) if not np.isnan(value)}

    def _configuration_space(self) -> ConfigurationSpace:
        """The axes as the forest needs them: it puts a value of its own where a point lacks an axis."""
        from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float

        def parameter(label: str, categories: int | None) -> Any:
            return Float(label, (0, 1)) if categories is None else Categorical(label, list(range(categories)))

        configurations = ConfigurationSpace()
        configurations.add(*(parameter(*axis) for axis in self.cube.shared.items()))
        for number, own in enumerate(self.cube.own.values()):
            for axis in own.items():
                child = parameter(*axis)
                configurations.add(child, EqualsCondition(child, configurations[BRANCH], number))
        return configurations


def _highest(gain: Callable[[Array], Array], rows: Array) -> Array:
    return rows[np.argsort(-gain(rows), kind="stable")[:STARTS]]


def _expected_improvement(forest: RandomForest, lowest: float, rows: Array) -> Array:
    """(N,), over the lowest score there is by the forest's own account (Jones et al. 1998)."""
    from scipy.special import ndtr

    mean, variance = (column[:, 0] for column in forest.predict_marginalized(rows))
    deviation = np.sqrt(variance)
    z = (lowest - mean) / deviation
    improvement: Array = deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
    return improvement
