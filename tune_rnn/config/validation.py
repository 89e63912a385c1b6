"""From what pydantic found wrong to one line a person can act on: dotted key, value, rule, remedy."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tune_rnn.errors import InputError
from tune_rnn.schema import SEARCHED, Budget, Final, Resources, StudyConfig, TrialConfig, Use, flatten

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], values: Mapping[str, Any], where: Callable[[str], str] = str) -> M:
    """Build `model`; the first problem becomes an InputError whose key went through `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(error.errors(include_url=False)[0], where) from None


@functools.cache
def known_keys() -> dict[str, type[BaseModel] | None]:
    """Return every dotted key in the schema's order, each with its model if it is a section."""
    return {"name": None, **dict(_keys(TrialConfig, "")), **dict(_keys(StudyConfig, ""))}


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel] | None]]:
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))  # Files | None
        section = next((kind for kind in kinds if _is_model(kind)), None)
        yield f"{prefix}{name}", section
        if section is not None:
            yield from _keys(section, f"{prefix}{name}.")


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def unknown_key(key: str, where: str | None = None) -> InputError:
    """Return the error for a dotted key that does not exist, with the nearest that do."""
    section, _, leaf = key.rpartition(".")
    there = {_leaf(known): known for known in known_keys() if known.rpartition(".")[0] == section}
    anywhere = {_leaf(known): known for known in known_keys()}
    exactly = [anywhere[leaf]] if leaf in anywhere else []
    near = exactly or _near(leaf, there) or _near(leaf, anywhere)
    remedy = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(there or anywhere)}."
    return InputError(where or key, "there is no such key", remedy)


def _near(name: str, keys: Mapping[str, str]) -> list[str]:
    """Return the keys whose last part is spelt like `name`, or contains it as dropout is in input_dropout."""
    containing = [leaf for leaf in keys if len(name) > 2 and name in leaf]
    return [keys[leaf] for leaf in containing or difflib.get_close_matches(name, keys, n=2, cutoff=0.7)]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _explain(error: ErrorDetails, where: Callable[[str], str]) -> InputError:
    loc = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return unknown_key(".".join(loc), where(".".join(loc)))
    while ".".join(loc) not in known_keys():  # an index in a list
        loc.pop()
    key, value = ".".join(loc), error["input"]
    if error["type"] == "missing":
        return InputError(where(key), "is missing", f"Add a value for {key}.")
    rule, remedy = _rule(error, key)
    return InputError(where(key), rule, _meant(key, value) or remedy, value)


def _rule(error: ErrorDetails, key: str) -> tuple[str, str]:
    """Return rule and remedy for one of pydantic's types of error."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "value_error":  # the checks of tune_rnn.config.fields
        rule, remedy = context["error"].args
        return rule, remedy
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}", _example(key)
    if kind == "literal_error":
        return _one_of_these(key, value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}", _other_type(kind, key, value)
    return error["msg"][:1].lower() + error["msg"][1:], _example(key)


_BOUNDS = {  # pydantic's name: our words, the bound's name in the error's context
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {  # pydantic's name: our words
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "model_type": "a section of keys",
}


def _one_of_these(key: str, value: Any, allowed: Sequence[str]) -> tuple[str, str]:
    rule = f"must be one of {', '.join(allowed)}" if len(allowed) > 1 else f"must be {allowed[0]}"
    if isinstance(value, bool):
        return rule, _quote(value)
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.7)  # gpu is not near cpu
    return rule, f"Did you mean {near[0]}?" if near else _example(key)


def _other_type(kind: str, key: str, value: Any) -> str:
    if kind == "string_type":
        return _quote(value) if isinstance(value, bool) else f"Quote it: {_leaf(key)}: '{value}'."
    return _example(key, "without quotes or units, " if isinstance(value, str) else "")


def _example(key: str, how: str = "") -> str:
    if key.startswith("regularizers.") and _examples()[key] == 0:
        return "0 switches it off."
    example = _examples()[key]
    return f"Write {how}for example {_leaf(key)}: {example if isinstance(example, str) else json.dumps(example)}."


@functools.cache
def _examples() -> dict[str, Any]:
    """Return a value for each key: its default, if it has one."""
    budget = Budget(epochs=8, trials=32, hours=2)
    resources = Resources(use=Use(cpu=8, gpu=2))
    study = StudyConfig(name="my-study", budget=budget, final=Final(epochs=8, audit=4), resources=resources)
    examples = {**flatten(TrialConfig().to_dict()), **flatten(study.model_dump(mode="json"))}
    own = {
        "task.vocabulary_size": 10_000,
        "budget.tokens": 2_000_000,
        "final.tokens": 2_000_000,
        "training.report_every": 1,
        "scheduler.first_rung": 1,
        "constraints.parameters": 10_000_000,
    }
    return {**{key: {} for key in known_keys()}, **examples, **own}


def _meant(key: str, value: Any) -> str:
    """Guess from a value of the wrong type what was meant, whatever the right type is."""
    if value is None:
        return "Write a value, or remove the key."
    if isinstance(value, list) and key.startswith(SEARCHED):
        return f"To search over these values write {_leaf(key)}: {{choice: {value}}}."
    return ""


def _quote(value: bool) -> str:
    words, example = ("yes, on and true", "on") if value else ("no, off and false", "off")
    return f"YAML reads {words} as {str(value).lower()}: if the text is meant, quote it, as in '{example}'."
