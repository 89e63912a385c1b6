"""Values that exclude each other, each right by itself: a table, checked for every branch of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_rnn.config.distributions import Distribution
from tune_rnn.errors import InputError

AVERAGES = ("regularizers.ema", "regularizers.swa", "regularizers.nt_asgd")

DROPOUTS = tuple(f"regularizers.{name}" for name in ("input_dropout", "hidden_dropout", "output_dropout"))
MASKED = (*DROPOUTS, "regularizers.embedding_dropout", "regularizers.weight_drop")

Values = Callable[[str], Sequence[Any]]


@dataclass(frozen=True)
class Rule:
    """`key` cannot be on together with what `clashes` finds; `rule` and `remedy` say it."""

    key: str
    clashes: Callable[[Values], Any]
    rule: str
    remedy: str


RULES = (
    Rule(
        "regularizers.fraternal_dropout",
        lambda values: [] if any(_on(values(key)) for key in MASKED) else ["no"],
        "compares two draws of dropout, and there is {} dropout",
        "Set one of regularizers.input_dropout, output_dropout, weight_drop, …, or remove it.",
    ),
    Rule(
        "regularizers.nt_asgd",
        lambda values: [name for name in values("training.optimizer") if name != "sgd"],
        "averages the iterates of plain SGD, not of {}",
        "Write training.optimizer: sgd, or use regularizers.ema or regularizers.swa.",
    ),
    Rule(
        "regularizers.swa",
        lambda values: [key for key in AVERAGES if key == "regularizers.ema" and _on(values(key))],
        "cannot be on together with {}",
        "Weights have one average: choose one of the two, for example by branches of one_of.",
    ),
    Rule(
        "regularizers.nt_asgd",
        lambda values: [key for key in AVERAGES[:2] if _on(values(key))],
        "cannot be on together with {}",
        "Weights have one average: choose one of the two, for example by branches of one_of.",
    ),
)


def check_conflicts(flat: Mapping[str, Any]) -> None:
    """Raise InputError where a branch's keys, each with its value or distribution, may clash in some trial."""

    def values(key: str) -> Sequence[Any]:
        value = flat.get(key)
        return value.corners() if isinstance(value, Distribution) else (value,)

    for rule in RULES:
        found = rule.clashes(values) if _on(values(rule.key)) else []
        if found:
            raise InputError(rule.key, rule.rule.format(found[0]), rule.remedy, max(values(rule.key)))


def _on(values: Sequence[Any]) -> bool:
    """Whether a strength is above 0 in some trial."""
    return any(value for value in values)
