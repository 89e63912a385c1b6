"""What a searched hyperparameter may be: seven distributions, each a map from [0, 1] to its values.

Everything a search needs follows from that map: a uniform draw gives a sample, `to_unit` the place on an
axis of a plot, and the corners are what the schema is checked against. `tune_rnn.config.parsing` checks what
people write before it builds one; here the ends are taken to be right.

Finite distributions divide [0, 1] into cells of equal width, `LogInt` into cells by the log scale.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any, ClassVar, Literal

Scalar = bool | int | float | str
Edge = Literal["low", "high"]
EDGE = 0.02  # a value within this share of the range of an end lies at the edge


class Distribution(ABC):
    """`from_unit` and `to_unit` are inverse to each other, up to the width of a cell."""

    name: ClassVar[str]

    @abstractmethod
    def from_unit(self, u: float) -> Scalar:
        """Map u in [0, 1] to a value, in ascending order where values have one."""

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """Map a value to its u, or to the middle of its cell; ValueError if it is none of the values."""

    @abstractmethod
    def values(self) -> Sequence[Scalar] | None:
        """Return all values in the order of u, or None for a continuous distribution."""

    @abstractmethod
    def corners(self) -> Sequence[Scalar]:
        """Return both ends, or every choice: if these are valid for a hyperparameter, all values are."""

    @abstractmethod
    def categories(self) -> int | None:
        """Return the number of values without an order, or None where values have an order."""

    @abstractmethod
    def at_edge(self, value: Any) -> Edge | None:
        """Say whether the value lies at an end of the range, so that a better one may lie beyond."""

    @abstractmethod
    def to_yaml(self) -> dict[str, list[Any]]:
        """Return the distribution as it stands in an experiment file."""


class _Numeric(Distribution):
    """What the distributions over numbers share."""

    def categories(self) -> None:
        return None

    def at_edge(self, value: Any) -> Edge | None:
        low, high = map(float, self.corners())
        return _edge((value - low) / (high - low))


@dataclass(frozen=True)
class Uniform(_Numeric):
    """Real numbers from low to high; with a step only low, low + step, … up to high."""

    low: float
    high: float
    step: float | None = None
    name: ClassVar[str] = "uniform"

    def from_unit(self, u: float) -> float:
        if self.step is not None:
            return self._nth(_cell(u, self._count()), self.step)
        return _clamp(self.low + u * (self.high - self.low), self.low, self.high)

    def to_unit(self, value: Any) -> float:
        number = _number_within(self, value, self.low, self.high)
        if self.step is None:
            return (number - self.low) / (self.high - self.low)
        index = min(round((number - self.low) / self.step), self._count() - 1)
        if not math.isclose(number, self._nth(index, self.step), abs_tol=1e-9 * self.step):
            raise ValueError(f"{value!r} is no step of {self.to_yaml()}")
        return (index + 0.5) / self._count()

    def values(self) -> tuple[float, ...] | None:
        step = self.step
        return None if step is None else tuple(self._nth(index, step) for index in range(self._count()))

    def corners(self) -> tuple[float, float]:
        return (self.low, self.high if self.step is None else self._nth(self._count() - 1, self.step))

    def to_yaml(self) -> dict[str, list[Any]]:
        return {self.name: [self.low, self.high] + ([] if self.step is None else [self.step])}

    def _count(self) -> int:
        low, high, step = (Decimal(repr(number)) for number in (self.low, self.high, self.step))
        return int((high - low) / step) + 1

    def _nth(self, index: int, step: float) -> float:
        """Decimal, so that 0.1 + 2 * 0.1 is 0.3, as one would write it."""
        return float(Decimal(repr(self.low)) + index * Decimal(repr(step)))


@dataclass(frozen=True)
class LogUniform(_Numeric):
    """Positive real numbers whose logarithm is uniform."""

    low: float
    high: float
    name: ClassVar[str] = "log_uniform"

    def from_unit(self, u: float) -> float:
        low, high = math.log(self.low), math.log(self.high)
        return _clamp(math.exp(low + u * (high - low)), self.low, self.high)

    def to_unit(self, value: Any) -> float:
        number = _number_within(self, value, self.low, self.high)
        return math.log(number / self.low) / math.log(self.high / self.low)

    def values(self) -> None:
        return None

    def corners(self) -> tuple[float, float]:
        return (self.low, self.high)

    def at_edge(self, value: Any) -> Edge | None:
        return _edge(self.to_unit(value))

    def to_yaml(self) -> dict[str, list[Any]]:
        return {self.name: [self.low, self.high]}


@dataclass(frozen=True)
class Int(_Numeric):
    """Whole numbers low, low + step, … up to high, which is included if a step ends there."""

    low: int
    high: int
    step: int = 1
    name: ClassVar[str] = "int"

    def from_unit(self, u: float) -> int:
        values = self.values()
        return values[_cell(u, len(values))]

    def to_unit(self, value: Any) -> float:
        index, rest = divmod(_number_within(self, value, *self.corners()) - self.low, self.step)
        if rest:
            raise ValueError(f"{value!r} is no step of {self.to_yaml()}")
        return (index + 0.5) / len(self.values())

    def values(self) -> range:
        return range(self.low, self.high + 1, self.step)

    def corners(self) -> tuple[int, int]:
        return (self.low, self.values()[-1])

    def to_yaml(self) -> dict[str, list[Any]]:
        return {self.name: [self.low, self.high] + ([] if self.step == 1 else [self.step])}


@dataclass(frozen=True)
class LogInt(_Numeric):
    """Whole numbers from low >= 1 to high; n takes the interval from log(n - 0.5) to log(n + 0.5)."""

    low: int
    high: int
    name: ClassVar[str] = "log_int"

    def from_unit(self, u: float) -> int:
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(math.floor(math.exp(low + u * (high - low)) + 0.5), self.low), self.high)

    def to_unit(self, value: Any) -> float:
        number = _number_within(self, value, self.low, self.high)
        if number != int(number):
            raise ValueError(f"{value!r} is no whole number")
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        middle = (math.log(number - 0.5) + math.log(number + 0.5)) / 2
        return (middle - low) / (high - low)

    def values(self) -> range:
        return range(self.low, self.high + 1)

    def corners(self) -> tuple[int, int]:
        return (self.low, self.high)

    def at_edge(self, value: Any) -> Edge | None:
        return _edge(math.log(value / self.low) / math.log(self.high / self.low))

    def to_yaml(self) -> dict[str, list[Any]]:
        return {self.name: [self.low, self.high]}


@dataclass(frozen=True)
class Normal(_Numeric):
    """Normal with mean and standard deviation `std`, truncated to [low, high]; u is the quantile within."""

    mean: float
    std: float
    low: float
    high: float
    name: ClassVar[str] = "normal"

    def from_unit(self, u: float) -> float:
        quantile = self._cdf(self.low) + u * self.mass()
        if not 0 < quantile < 1:  # an end so far out that rounding puts it at 0 or 1
            return self.low if quantile <= 0 else self.high
        return _clamp(NormalDist(self.mean, self.std).inv_cdf(quantile), self.low, self.high)

    def to_unit(self, value: Any) -> float:
        number = _number_within(self, value, self.low, self.high)
        return (self._cdf(number) - self._cdf(self.low)) / self.mass()

    def values(self) -> None:
        return None

    def corners(self) -> tuple[float, float]:
        return (self.low, self.high)

    def to_yaml(self) -> dict[str, list[Any]]:
        return {self.name: [self.mean, self.std, self.low, self.high]}

    def mass(self) -> float:
        """Return the share of the whole normal that lies between low and high."""
        return self._cdf(self.high) - self._cdf(self.low)

    def _cdf(self, value: float) -> float:
        return NormalDist(self.mean, self.std).cdf(value)


@dataclass(frozen=True)
class Choice(Distribution):
    """One of several values without an order; each keeps its type."""

    options: tuple[Scalar, ...]
    name: ClassVar[str] = "choice"

    def from_unit(self, u: float) -> Scalar:
        return self.options[_cell(u, len(self.options))]

    def to_unit(self, value: Any) -> float:
        return (self.options.index(value) + 0.5) / len(self.options)

    def values(self) -> tuple[Scalar, ...]:
        return self.options

    def corners(self) -> tuple[Scalar, ...]:
        return self.options

    def categories(self) -> int:
        return len(self.options)

    def at_edge(self, value: Any) -> None:
        return None

    def to_yaml(self) -> dict[str, list[Any]]:
        return {self.name: list(self.options)}


@dataclass(frozen=True)
class Grid(Choice):
    """Values for `search.algorithm: grid`; any other search takes them as a choice."""

    name: ClassVar[str] = "grid"


def as_value(distribution: Distribution, value: Any) -> Scalar:
    """Return the value of a distribution that was written as `value`, in its own type: 1.0 for 1 of a uniform.

    Raises ValueError if it is none of the values; `true` is no number, and 1 not `true`.
    """
    found = distribution.from_unit(distribution.to_unit(value))
    if isinstance(found, bool) != isinstance(value, bool):
        raise ValueError(f"{value!r} is of another type than {distribution.to_yaml()}")
    rounded = isinstance(found, float) and distribution.categories() is None
    return float(value) if rounded else found


def _cell(u: float, count: int) -> int:
    return min(int(u * count), count - 1)


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _edge(fraction: float) -> Edge | None:
    return "low" if fraction <= EDGE else "high" if fraction >= 1 - EDGE else None


def _number_within(distribution: Distribution, value: Any, low: float, high: float) -> float:
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{value!r} is not in {distribution.to_yaml()}")
    return value
