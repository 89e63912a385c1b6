"""The unit cube of a space, where algorithms that learn search.

Numbers are searched as their place in [0, 1] (so that log scales, steps and integers are the distribution's
business, never a model's), choices and branches as the numbers 0, 1, 2 … of their categories.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

from tune_rnn.search.designs import BRANCH
from tune_rnn.space import Assignment, Distribution, Space

Point = dict[str, float]  # label -> place in [0, 1], or the number of a category

APART = math.sqrt(0.5)
"""What a category counts for, so that two are 1 apart, as the ends of a number's range are."""

Axes = dict[str, int | None]
"""Label -> how many categories there are, or None for a number. A branch's own keys have the branch before them."""


class Cube:
    """The axes of a space: those of every point, and those that each branch's points have besides.

    `shared` has an axis for the branch, too, where there are branches; `own` is by branch.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.branches = space, list(space.branches)
        self.shared: Axes = {key: one.categories() for key, one in space.shared.items()}
        if self.branches:
            self.shared[BRANCH] = len(self.branches)
        self.own: dict[str, Axes] = {
            name: {_label(name, key): one.categories() for key, one in keys.items()}
            for name, keys in space.branches.items()
        }

        own = chain.from_iterable(axes.items() for axes in self.own.values())
        self._all_axes = [*self.shared.items(), *own]

    @property
    def dimensions(self) -> int:
        """How many numbers and choices a trial has at most."""
        return len(self.space.shared) + max((len(axes) for axes in self.own.values()), default=0)

    def branch_of(self, point: Mapping[str, float]) -> str | None:
        """The branch a point takes; None where there are none."""
        return self.branches[int(point[BRANCH])] if self.branches else None

    def point(self, assignment: Assignment) -> Point:
        """Coordinates of an assignment: those of the shared parameters, and those of its branch."""
        branch = assignment.get(BRANCH)
        point = {key: _coordinate(one, assignment[key]) for key, one in self.space.shared.items()}
        if branch is not None:
            point[BRANCH] = self.branches.index(branch)
            for key, distribution in self.space.branches[branch].items():
                point[_label(branch, key)] = _coordinate(distribution, assignment[key])
        return point

    def features(self, assignment: Assignment) -> tuple[float, ...]:
        """An assignment as numbers of mean 0, for models of distances: see `features_of`."""
        return self.features_of(self.point(assignment))

    def features_of(self, point: Mapping[str, float]) -> tuple[float, ...]:
        """A number's place, and for each category whether it is that one, times `APART`.

        What a branch has of its own is 0 in the other branches.
        """
        features: list[float] = []
        for label, categories in self._all_axes:
            taken = point.get(label)
            if categories is None:
                features.append(0.0 if taken is None else taken - 0.5)
            else:
                chosen = ((taken == one) - 1 / categories for one in range(categories))
                features += [0.0] * categories if taken is None else [APART * one for one in chosen]
        return tuple(features)

    def assignment(self, point: Mapping[str, float]) -> Assignment:
        """Values of a point: the shared parameters' and those of the branch it takes."""
        branch = self.branch_of(point)
        assignment = {key: _value(distribution, point[key]) for key, distribution in self.space.shared.items()}
        if branch is not None:
            for key, distribution in self.space.branches[branch].items():
                assignment[key] = _value(distribution, point[_label(branch, key)])
            assignment[BRANCH] = branch
        return assignment


def _label(branch: str, key: str) -> str:
    return f"{branch}:{key}"


def _coordinate(distribution: Distribution, value: Any) -> float:
    categories, unit = distribution.categories(), distribution.to_unit(value)
    if categories is not None:
        return int(unit * categories)
    return min(max(unit, 0.0), 1.0)  # rounding may put an end a hair outside, which some models refuse


def _value(distribution: Distribution, coordinate: float) -> Any:
    categories = distribution.categories()
    if categories is None:
        return distribution.from_unit(float(coordinate))
    return distribution.from_unit((int(coordinate) + 0.5) / categories)
