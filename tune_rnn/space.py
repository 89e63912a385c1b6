"""The search space: all distributions of an experiment, and how to write them in Python.

    from tune_rnn import Experiment, space
    Experiment(name="demo", model={"hidden_size": space.int(64, 512, 64), "layers": space.choice(1, 2)}, …)

The names are those of the experiment file, and the same mistakes are refused with the same words.
"""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_rnn.config.distributions import (
    Choice,
    Distribution,
    Grid,
    Int,
    LogInt,
    LogUniform,
    Normal,
    Scalar,
    Uniform,
    as_value,
)
from tune_rnn.config.parsing import parse
from tune_rnn.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Assignment",
    "Choice",
    "Distribution",
    "Grid",
    "Int",
    "LogInt",
    "LogUniform",
    "Normal",
    "Scalar",
    "Space",
    "Uniform",
    "choice",
    "grid",
    "int",
    "log_int",
    "log_uniform",
    "normal",
    "parse",
    "uniform",
]

Assignment = dict[str, Any]  # dotted key -> value, and "one_of" -> name of the branch where there are branches
GRID_LIMIT = 100_000


@dataclass(frozen=True)
class Space:
    """All distributions by dotted key: those every branch of `one_of` shares, and each branch's own."""

    shared: dict[str, Distribution]
    branches: dict[str, dict[str, Distribution]]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to search, so that one configuration is all there is."""
        return not self.shared and not self.branches

    def distributions(self, branch: str | None = None) -> dict[str, Distribution]:
        """Return what is searched in one branch; None where there are no branches."""
        return {**self.shared, **(self.branches[branch] if branch is not None else {})}

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw one assignment; every branch is equally likely."""
        return self.complete({}, rng)

    def complete(self, given: Mapping[str, Any], rng: np.random.Generator) -> Assignment:
        """Draw what an assignment lacks; the branch is one that allows all that is given."""
        names = [name for name in self.branches if self.allows(given, name)]
        branch = given.get("one_of", names[rng.integers(len(names))] if names else None)
        drawn = {key: one.from_unit(rng.random()) for key, one in self.distributions(branch).items()}
        return {**self.assign({}, branch), **drawn, **self.assign(given, branch)}

    def assign(self, values: Mapping[str, Any], branch: str | None) -> Assignment:
        """Return values in their distributions' types, and the branch; KeyError or ValueError for what does not fit."""
        searched = self.distributions(branch)
        assignment = {key: as_value(searched[key], value) for key, value in values.items() if key != "one_of"}
        return assignment if branch is None else {"one_of": branch, **assignment}

    def allows(self, given: Mapping[str, Any], branch: str | None) -> bool:
        """Return whether all that is given is searched in a branch, and lies in the distributions there."""
        try:
            self.assign(given, branch)
        except (KeyError, ValueError):
            return False
        return True

    def grid_size(self) -> builtins.int:
        """Return how many points the grid has; InputError where that is infinite, or beyond any budget."""
        branches = self.branches or (None,)
        size = sum(math.prod(len(values) for values in self._axes(branch).values()) for branch in branches)
        if size > GRID_LIMIT:
            rule = f"the grid must not have more than {GRID_LIMIT:,} points, and has {size:,}"
            remedy = "Use larger steps, or search.algorithm: random."
            raise InputError("search.algorithm", rule, remedy, "grid")
        return size

    def grid(self) -> list[Assignment]:
        """Return every assignment, branch by branch, the last key varying fastest."""
        self.grid_size()
        assignments: list[Assignment] = []
        for branch in self.branches or (None,):
            axes = self._axes(branch)
            chosen = {} if branch is None else {"one_of": branch}
            points = itertools.product(*axes.values())
            assignments += [{**chosen, **dict(zip(axes, point, strict=True))} for point in points]
        return assignments

    def _axes(self, branch: str | None) -> dict[str, Sequence[Scalar]]:
        axes = {}
        for key, distribution in self.distributions(branch).items():
            values = distribution.values()
            if values is None:
                rule = "a grid needs finitely many values, and this distribution is continuous"
                remedy = f"{_finite_form(distribution)}, or search.algorithm: random."
                raise InputError(key, rule, remedy, distribution.to_yaml())
            axes[key] = values
        return axes


def _finite_form(distribution: Distribution) -> str:
    if isinstance(distribution, Uniform):
        return "Write a step, uniform: [low, high, step], or values, grid: [value, value]"
    return "Write values, grid: [value, value]"


# Distributions in Python. `int` hides the builtin from here on, as that is its name in the experiment file.


def uniform(low: float, high: float, step: float | None = None) -> Distribution:
    """Real numbers from low to high; with a step only low, low + step, … up to high."""
    return parse({"uniform": [low, high] if step is None else [low, high, step]}, "space.uniform")


def log_uniform(low: float, high: float) -> Distribution:
    """Positive real numbers whose logarithm is uniform."""
    return parse({"log_uniform": [low, high]}, "space.log_uniform")


def int(low: builtins.int, high: builtins.int, step: builtins.int = 1) -> Distribution:
    """Whole numbers low, low + step, … up to high."""
    return parse({"int": [low, high] if step == 1 else [low, high, step]}, "space.int")


def log_int(low: builtins.int, high: builtins.int) -> Distribution:
    """Whole numbers from low to high, uniform on the log scale."""
    return parse({"log_int": [low, high]}, "space.log_int")


def normal(mean: float, std: float, low: float, high: float) -> Distribution:
    """Real numbers from a normal distribution truncated to [low, high]."""
    return parse({"normal": [mean, std, low, high]}, "space.normal")


def choice(*values: Any) -> Distribution:
    """One of the values, given one by one or as a list."""
    return parse({"choice": _listed(values)}, "space.choice")


def grid(*values: Any) -> Distribution:
    """Each of the values under `search.algorithm: grid`; given one by one or as a list."""
    return parse({"grid": _listed(values)}, "space.grid")


def _listed(values: tuple[Any, ...]) -> list[Any]:
    return list(values[0]) if len(values) == 1 and isinstance(values[0], (list, tuple)) else list(values)
