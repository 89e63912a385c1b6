"""Starting points, `search.start`: read by dotted key, kept in step with overrides, checked against the space.

    start: [{training: {learning_rate: 1e-3}}, {model: {hidden_size: 256}, one_of: sgd}]

A point gives values to some of the searched keys, or to all of them; a branch's keys tell the branch where `one_of`
does not. Which values the others get is for the searcher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_rnn.config.distributions import Distribution, as_value
from tune_rnn.config.validation import known_keys, unknown_key
from tune_rnn.errors import InputError
from tune_rnn.schema import SAME_IN_ALL_TRIALS, SEARCHED
from tune_rnn.space import Space

START, ONE_OF = "search.start", "one_of"
Point = dict[str, Any]  # values by dotted key


def read_start(given: Any) -> list[Point]:
    """Read points as a file or Python has them; InputError for keys that do not exist."""
    example = "Write for example search.start: [{training: {learning_rate: 0.001}}]."
    if given is None:
        return []
    if not isinstance(given, (list, tuple)):
        raise InputError(START, "must be a list of starting points", example, given)
    for number, point in enumerate(given):
        if not isinstance(point, Mapping) or not point:
            rule = "a starting point must have values for some of the searched keys"
            raise InputError(f"{START}[{number}]", rule, example, point)
    return [_read_point(point, f"{START}[{number}].") for number, point in enumerate(given)]


def _read_point(given: Mapping[Any, Any], where: str) -> Point:
    point: Point = {}
    for key, value in _leaves(given, "", where):
        if key in point:
            raise InputError(f"{where}{key}", "is given twice", "Keep one of the two.", value)
        point[key] = str(value) if key == ONE_OF and type(value) is int else value  # as a branch's name is read
    return point


def _leaves(section: Mapping[Any, Any], prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, whether keys were nested or dotted."""
    for name, value in section.items():
        key = f"{prefix}{name}"
        if key not in known_keys():
            raise unknown_key(key, f"{where}{key}")
        if known_keys()[key] is None and isinstance(value, (Mapping, list, tuple, Distribution)):
            raise InputError(f"{where}{key}", "must be a single value", "Write one of its distribution.", value)
        if known_keys()[key] is not None and not isinstance(value, Mapping):
            raise InputError(f"{where}{key}", "must be a section of keys", "Put keys below it.", value)
        yield from _leaves(value, f"{key}.", where) if isinstance(value, Mapping) else [(key, value)]


def without_key(points: Sequence[Point], key: str) -> list[Point]:
    """What is left of points when a key gets a single value: one without any other key is gone."""
    left = ({other: value for other, value in point.items() if other != key} for point in points)
    return [point for point in left if point]


def of_branch(points: Sequence[Point], chosen: str, branches: Mapping[str, Mapping[str, Any]]) -> list[Point]:
    """What is left of points when a branch is chosen: those that another branch alone can take are gone."""
    kept = [
        point
        for point in points
        if point.get(ONE_OF, chosen) == chosen
        and (_fits(point, branches[chosen]) or not any(_fits(point, keys) for keys in branches.values()))
    ]
    return without_key(kept, ONE_OF)


def check_start(points: Sequence[Point], space: Space) -> None:
    """Refuse a point that no trial can begin with: keys that are not searched together, values that are not allowed."""
    for number, point in enumerate(points):
        where = f"{START}[{number}]"
        branches = _branches(point, space, where)
        values = {key: value for key, value in point.items() if key != ONE_OF}
        for key in values:
            if not (there := _searching(key, branches, space)):
                raise _not_searched(key, point, branches, space, where)
            branches = there
        for key, value in values.items():
            if not (there := [name for name in branches if _holds(space.distributions(name)[key], value)]):
                raise _not_allowed(key, value, branches, space, where)
            branches = there


def _branches(point: Point, space: Space, where: str) -> list[str | None]:
    """The branch that a point names, or all."""
    name = point.get(ONE_OF)
    if ONE_OF not in point:
        return list(space.branches) or [None]
    if name not in space.branches:
        there = f"There are {', '.join(space.branches)}." if space.branches else "The experiment has no one_of."
        raise InputError(f"{where}.{ONE_OF}", "there is no such branch", there, name)
    return [name]


def _searching(key: str, branches: Sequence[str | None], space: Space) -> list[str | None]:
    return [name for name in branches if key in space.distributions(name)]


def _not_searched(key: str, point: Point, branches: Sequence[str | None], space: Space, where: str) -> InputError:
    """The error for a key that none of `branches` searches."""
    others = _searching(key, list(space.branches), space)
    if not others:
        never = key in known_keys() and (key.partition(".")[0] not in SEARCHED or key in SAME_IN_ALL_TRIALS)
        remedy = "Remove it." if never else f"Remove it, or give {key} a distribution."
        return InputError(f"{where}.{key}", "is not searched, so that no trial can begin with it", remedy, point[key])
    before = "one_of is" if ONE_OF in point else "what stands before it in"
    rule = f"is searched in {_named(others)}, and {before} {_named(branches)}"
    return InputError(f"{where}.{key}", rule, "Keep the keys of one branch.", point[key])


def _not_allowed(key: str, value: Any, branches: Sequence[str | None], space: Space, where: str) -> InputError:
    """The error for a value that none of `branches` has."""
    texts: dict[str, list[str | None]] = {}
    for name in branches:
        ((kind, arguments),) = space.distributions(name)[key].to_yaml().items()
        texts.setdefault(f"{kind}: {arguments}", []).append(name)
    several = key not in space.shared
    named = " or ".join(text + (f" in {_named(names)}" if several else "") for text, names in texts.items())
    return InputError(f"{where}.{key}", f"is no value of {named}", "Change it, or widen the distribution.", value)


def _named(branches: Sequence[str | None]) -> str:
    return " and ".join(map(str, branches))


def _fits(point: Point, keys: Mapping[str, Any]) -> bool:
    return all(key == ONE_OF or _holds(keys.get(key), value) for key, value in point.items())


def _holds(distribution: Any, value: Any) -> bool:
    """Whether it is a distribution that has a value."""
    try:
        return isinstance(distribution, Distribution) and as_value(distribution, value) is not None
    except ValueError:
        return False
