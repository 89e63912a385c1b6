"""Distributions as they are written, `{uniform: [0, 0.5]}`, checked and built."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

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
)
from tune_rnn.errors import InputError

STEPS_LIMIT = 100_000


class _Refused(Exception):
    """Rule and remedy; `parse` adds the key and the value."""


def parse(mapping: Mapping[Any, Any], where: str) -> Distribution:
    """Build the distribution that `mapping`, for example {"uniform": [0, 0.5]}, describes.

    `where` is the dotted key it stands at. Raises InputError with that key, the value, the rule and a remedy.
    """
    shown = dict(mapping)
    if len(shown) != 1:
        remedy = "Write one, for example {uniform: [0, 0.5]}."
        raise InputError(where, "must be one value or one distribution", remedy, shown)
    ((name, arguments),) = shown.items()
    if name not in _BUILDERS:
        near = difflib.get_close_matches(str(name), _BUILDERS, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"There are {', '.join(_BUILDERS)}."
        raise InputError(where, f"there is no distribution {name!r}", remedy, shown)
    try:
        return _BUILDERS[name](arguments)
    except _Refused as error:
        rule, remedy = error.args
        raise InputError(where, rule, remedy, shown) from None


def _uniform(arguments: Any) -> Uniform:
    low, high, *step = map(float, _numbers(arguments, "uniform: [low, high]", "uniform: [low, high, step]"))
    _check_ascending(low, high)
    if step:
        _check_step(low, high, step[0])
    return Uniform(low, high, *step)


def _log_uniform(arguments: Any) -> LogUniform:
    low, high = map(float, _numbers(arguments, "log_uniform: [low, high]"))
    _check_positive(low, "1e-8", "uniform")
    _check_ascending(low, high)
    return LogUniform(low, high)


def _int(arguments: Any) -> Int:
    low, high, *step = _whole("uniform", _numbers(arguments, "int: [low, high]", "int: [low, high, step]"))
    _check_ascending(low, high)
    if step:
        _check_step(low, high, step[0])
    return Int(low, high, *step)


def _log_int(arguments: Any) -> LogInt:
    low, high = _whole("log_uniform", _numbers(arguments, "log_int: [low, high]"))
    _check_positive(low, "1", "int")
    _check_ascending(low, high)
    return LogInt(low, high)


def _normal(arguments: Any) -> Normal:
    mean, std, low, high = map(float, _numbers(arguments, "normal: [mean, std, low, high]"))
    if std <= 0:
        raise _Refused(f"std, {std:g}, must be greater than 0", "Write normal: [mean, std, low, high].")
    _check_ascending(low, high)
    distribution = Normal(mean, std, low, high)
    if distribution.mass() < 1e-3:  # also keeps the quantiles away from where floats run out of digits
        rule = "at least 1 in 1,000 draws of the normal must lie between low and high"
        raise _Refused(rule, "Move the mean, widen the range, or write uniform: [low, high].")
    return distribution


def _options(name: str, arguments: Any) -> tuple[Scalar, ...]:
    if not isinstance(arguments, (list, tuple)) or not arguments:
        raise _Refused("must be a list of at least one value", f"Write {name}: [value, value].")
    for option in arguments:
        if not isinstance(option, (bool, int, float, str)):
            rule = f"each value must be a number, a text or true/false, not {option!r}"
            raise _Refused(rule, "To choose between whole groups of settings write one_of.")
        if isinstance(option, float) and not math.isfinite(option):
            raise _Refused(f"each value must be finite, not {option!r}", "Remove it.")
        if arguments.count(option) > 1:
            raise _Refused(f"{option!r} must not stand there twice", "Write every value once.")
    return tuple(arguments)


_BUILDERS: dict[str, Callable[[Any], Distribution]] = {
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "int": _int,
    "log_int": _log_int,
    "normal": _normal,
    "choice": lambda arguments: Choice(_options("choice", arguments)),
    "grid": lambda arguments: Grid(_options("grid", arguments)),
}


def _numbers(arguments: Any, *forms: str) -> list[Any]:
    """Check that there are as many finite numbers as one of the forms has."""
    remedy = f"Write {' or '.join(forms)}."
    counts = [form.count(",") + 1 for form in forms]
    if not isinstance(arguments, (list, tuple)) or len(arguments) not in counts:
        raise _Refused(f"must have a list of {' or '.join(map(str, counts))} numbers", remedy)
    for number in arguments:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise _Refused(f"{number!r} must be a number", f"{remedy} For other values write choice.")
        if not abs(number) <= 1e15:  # NaN too; and beyond it, whole numbers have gaps as floats
            raise _Refused(f"{number!r} must be finite and between -1e15 and 1e15", remedy)
    return list(arguments)


def _whole(for_real_numbers: str, numbers: list[Any]) -> list[int]:
    for number in numbers:
        if number != int(number):
            raise _Refused(f"{number!r} must be a whole number", f"For real numbers write {for_real_numbers}.")
    return [int(number) for number in numbers]


def _check_ascending(low: float, high: float) -> None:
    if low >= high:
        remedy = "Swap the two." if low > high else f"Write the value itself, {low:g}, or a range."
        raise _Refused("low must be less than high", remedy)


def _check_positive(low: float, example: str, other: str) -> None:
    if low <= 0:
        remedy = f"Raise low, for example to {example}, or write {other}."
        raise _Refused("low must be greater than 0, as a logarithmic range cannot touch 0", remedy)


def _check_step(low: float, high: float, step: float) -> None:
    if step <= 0:
        raise _Refused("the step must be greater than 0", "Write a positive step, or none.")
    if step > (high - low) * (1 + 1e-9):  # 0.3 - 0.1 is less than 0.2
        raise _Refused("the step must not be larger than high - low", "Write a smaller step, or none.")
    if (high - low) / step > STEPS_LIMIT:
        raise _Refused(f"there must be at most {STEPS_LIMIT:,} steps", "Write a larger step, or none.")
