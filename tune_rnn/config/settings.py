"""An experiment's keys as they were written: by dotted key, distributions read, nothing filled in.

    {"model.layers": Int(1, 2), "training.batch_size": 32, …}, and the same for each branch of `one_of`

Flat because that is how overrides, branches, searchers and messages name a key. Here a key must exist and a
distribution must stand where one may; whether values are right is for the schema.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.config.distributions import Distribution
from tune_rnn.config.parsing import parse
from tune_rnn.config.starting import START, of_branch, read_start, without_key
from tune_rnn.config.validation import known_keys, unknown_key
from tune_rnn.errors import InputError
from tune_rnn.schema import SAME_IN_ALL_TRIALS, SEARCHED
from tune_rnn.yaml_io import load_yaml_value

Flat = dict[str, Any]

FILES = ("task.corpus", "task.files.train", "task.files.validation", "task.files.test")
TEXTS = ("name", "one_of", "storage", "search.warm_start", *FILES)


@dataclass(frozen=True)
class Settings:
    """What stands at the root, and what each branch of `one_of` says instead of it."""

    root: Flat
    branches: dict[str, Flat]

    @classmethod
    def read(cls, tree: Mapping[Any, Any]) -> Settings:
        """Read nested keys as a file or Python has them; InputError for keys that do not exist."""
        tree = dict(tree)
        branches = _read_branches(tree.pop("one_of", None))
        return cls(_read_section(tree, "", ""), branches)

    def merged(self, branch: str | None) -> Flat:
        """Return the root with one branch's values in place of its own."""
        return {**self.root, **(self.branches[branch] if branch is not None else {})}

    def override(self, text: str) -> Settings:
        """Apply one `KEY=VALUE`; the value is YAML, but paths and names are taken as they are."""
        key, equals, raw = text.partition("=")
        if not equals or not key:
            raise InputError("override", "must be KEY=VALUE", "Write for example budget.trials=4.", text)
        as_it_is = key in TEXTS and not raw.startswith("[") and raw != "null"
        return self.replace(key, raw if as_it_is else load_yaml_value(raw, key))

    def replace(self, key: str, value: Any) -> Settings:
        """Set a key at the root, and let no branch and no starting point say otherwise; one_of chooses a branch."""
        if key == "one_of":
            return self.only(value)
        if "." not in key and known_keys().get(key) is not None:
            remedy = f"Set the keys in it one by one, for example {_first_key(key)}."
            raise InputError(key, "is a section of keys", remedy)
        new = _read_value(key, value, key)
        branches = {name: _without(key, branch) for name, branch in self.branches.items()}
        root = {**_without(key, self.root), **new}
        if START in root and not isinstance(new.get(key), Distribution):
            root[START] = without_key(root[START], key)
        return Settings(root, branches)

    def drop(self, key: str) -> Settings:
        """Leave a key out everywhere, as if it had not been written."""
        branches = {name: _without(key, branch) for name, branch in self.branches.items()}
        return Settings(_without(key, self.root), branches)

    def only(self, branch: str) -> Settings:
        """Merge one branch into the root and drop `one_of`."""
        if branch not in self.branches:
            raise unknown_branch(branch, self.branches)
        root = self.merged(branch)
        if START in root:
            root[START] = of_branch(root[START], branch, {name: self.merged(name) for name in self.branches})
        return Settings(root, {})


def unknown_branch(branch: Any, branches: Mapping[str, Any]) -> InputError:
    """Return the error for a branch that does not exist."""
    near = difflib.get_close_matches(str(branch), branches, n=1)
    there = f"There are {', '.join(branches)}." if branches else "The experiment has no one_of."
    remedy = f"Did you mean {near[0]}?" if near else there
    return InputError("one_of", "there is no such branch", remedy, branch)


def _without(key: str, flat: Flat) -> Flat:
    """Leave out a key, what stands below it, and the null of a section it stands in."""
    return {
        old: value
        for old, value in flat.items()
        if not (f"{old}.".startswith(f"{key}.") or f"{key}.".startswith(f"{old}."))
    }


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"model": {"layers": 1}} for {"model.layers": 1}."""
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        *sections, leaf = dotted.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return nested


def _read_section(section: Mapping[Any, Any], prefix: str, branch: str) -> Flat:
    """Read the keys below `prefix` ("" or "model."); `branch` ("" or "one_of.sgd.") is for messages."""
    flat: Flat = {}
    for key, value in section.items():
        if not isinstance(key, str):
            place = f"{branch}{prefix}".rstrip(".") or "experiment"
            remedy = "Quote it (YAML reads no, off, yes and on as false and true)."
            raise InputError(place, "a key must be a text", remedy, key)
        flat |= _read_value(f"{prefix}{key}", value, f"{branch}{prefix}{key}", branch)
    return flat


def _read_value(key: str, value: Any, where: str, branch: str = "") -> Flat:
    keys = known_keys()
    if key not in keys:
        raise unknown_key(key, where)
    if key == "one_of":
        raise InputError(where, "a branch cannot have branches", "Write one branch for each combination.")
    if key == START:
        return {key: read_start(value)}
    if keys[key] is not None:
        return _read_subsection(key, value, where, branch)
    if isinstance(value, (Mapping, Distribution)):
        return {key: _read_distribution(key, value, where)}
    return {key: _plain(value)}


def _read_subsection(key: str, value: Any, where: str, branch: str) -> Flat:
    """An empty section at the top is like none; deeper, null and {} mean something to the schema."""
    if value is None and "." not in key:
        return {}
    if isinstance(value, Mapping) and (value or "." not in key):
        return _read_section(value, f"{key}.", branch)
    if value is None or value == {}:
        return {key: value}
    leaf = _first_key(key)
    raise InputError(where, "must be a section of keys", f"Put keys below it, for example {leaf}.", value)


def _read_distribution(key: str, value: Any, where: str) -> Distribution:
    mapping = value.to_yaml() if isinstance(value, Distribution) else value
    section = key.partition(".")[0]
    if section == "task":
        rule = "must be a single value, as losses on different data cannot be compared"
    elif key in SAME_IN_ALL_TRIALS:
        rule = "must be a single value, the same in all trials"
    elif section not in SEARCHED:
        rule = f"must be a single value; distributions stand under {', '.join(SEARCHED)}"
    else:
        return parse(mapping, where)
    raise InputError(where, rule, "Write one value.", mapping)


def _read_branches(given: Any) -> dict[str, Flat]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        remedy = "Write for example one_of: {sgd: {training: {…}}, adam: {training: {…}}}."
        raise InputError("one_of", "must be named branches", remedy, given)
    if len(given) < 2:
        rule = "there must be at least two branches"
        raise InputError("one_of", rule, "Merge the branch into the root, or add another.", dict(given))
    return {_branch_name(name): _read_branch(f"one_of.{name}", branch) for name, branch in given.items()}


def _branch_name(name: Any) -> str:
    if isinstance(name, bool):
        remedy = "Quote it: YAML reads no, off, yes and on as false and true."
        raise InputError("one_of", "a branch's name must be a text", remedy, name)
    if not re.fullmatch(r"[\w.-]{1,100}", str(name)):
        rule = "a branch's name must be letters, digits, dots, dashes or underscores"
        raise InputError("one_of", rule, "Rename it, for example to sgd.", name)
    return str(name)


def _read_branch(where: str, branch: Any) -> Flat:
    if branch is not None and not isinstance(branch, Mapping):
        remedy = f"Put {', '.join(SEARCHED)} below it."
        raise InputError(where, "must be a section of keys", remedy, branch)
    flat = _read_section(branch or {}, "", f"{where}.")
    for key in flat:
        if key.partition(".")[0] not in SEARCHED or key in SAME_IN_ALL_TRIALS:
            rule = "must be the same in all branches"
            raise InputError(f"{where}.{key}", rule, f"Write {key} once, outside one_of.")
    return flat


def _first_key(section: str) -> str:
    return next(key for key in known_keys() if key.startswith(f"{section}."))


def _plain(value: Any) -> Any:
    """What Python users may give in place of what a file has."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
