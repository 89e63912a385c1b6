"""What a simulation searches: any object with a space, a resource and curves; others are refused before it plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol

from tune_rnn.errors import InputError
from tune_rnn.space import Distribution, Space

PARTS = ("space", "max_resource", "curve")


class BlackBox(Protocol):
    """Learning curves to search.

    `space`: a distribution of `tune_rnn.space` for each key, {"x": space.uniform(0, 1)}, or a `Space` with branches.
    `max_resource`: how many units a whole trial takes.
    """

    @property
    def space(self) -> Space | Mapping[str, Distribution]: ...

    @property
    def max_resource(self) -> int: ...

    def curve(self, config: Mapping[str, Any]) -> Sequence[float]:
        """Losses after 1, 2, … `max_resource` units; after NaN or inf, which is divergence, it may end."""
        ...


def space_of(blackbox: Any) -> Space:
    """The space of a black box; InputError where it is no black box."""
    if isinstance(blackbox, type):
        raise InputError("blackbox", "is a class", "Give an object of it, with its arguments.", blackbox)
    lacking = [part for part in PARTS if not hasattr(blackbox, part)]
    if lacking:
        rule = f"must have space, max_resource and curve(config), and has no {lacking[0]}"
        remedy = 'Take tune_rnn.simulation.Synthetic("noisy"), for example, TaskSet(path), or an object of your own.'
        raise InputError("blackbox", rule, remedy, blackbox)
    if not callable(blackbox.curve):
        raise InputError("blackbox.curve", "must be a function of a configuration", "Define it so.", blackbox.curve)
    whole("blackbox.max_resource", blackbox.max_resource, "Write 50, for example.")
    given = blackbox.space
    if not isinstance(given, (Space, Mapping)):
        rule = "must have a distribution for each key"
        raise InputError("blackbox.space", rule, 'Write {"x": tune_rnn.space.uniform(0, 1)}, for example.', given)
    space = given if isinstance(given, Space) else Space(dict(given), {})
    for keys in (space.shared, *space.branches.values()):
        for key, distribution in keys.items():
            _check_searched(key, distribution)
    return space


def _check_searched(key: Any, distribution: Any) -> None:
    where = f"blackbox.space[{key!r}]"
    if not isinstance(key, str):
        raise InputError(where, "a key must be a text", f"Write {str(key)!r}.", key)
    if not isinstance(distribution, Distribution):
        remedy = "Write tune_rnn.space.log_uniform(0.001, 1), for example; leave out what does not vary."
        raise InputError(where, "must be a distribution of tune_rnn.space", remedy, distribution)


def whole(where: str, value: Any, remedy: str, least: int = 1) -> int:
    """The whole number that was given, one of NumPy's too; InputError for anything else, or below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(where, f"must be a whole number of at least {least}", remedy, value)
    return int(value)
