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


ONE_AVERAGE = "Weights have one average: choose one of the two, for example by branches of one_of."
INSIDE = "acts between two time steps, where model.kernels {} lets nothing in"
NOT_FUSED = "Write model.kernels: auto, which is slower here, or remove it."

Values = Callable[[str], Sequence[Any]]


def acting_dropouts(layers: int) -> list[str]:
    """Keys of what drops something in so many layers: one has nothing between them."""
    return [key for key in MASKED if layers > 1 or key != "regularizers.hidden_dropout"]


@dataclass(frozen=True)
class Rule:
    """`key` cannot be on, or have the value `at`, together with what `clashes` finds; `rule` and `remedy` say it."""

    key: str
    clashes: Callable[[Values], Any]
    rule: str
    remedy: str
    at: str | None = None

    def reason(self, values: Values) -> Any:
        """The value of `key` in some trial that this rule is about; None if there is none."""
        own = [value for value in values(self.key) if value and (self.at is None or value == self.at)]
        return max(own, default=None)


def _on(*keys: str) -> Callable[[Values], list[str]]:
    """Those keys that are above 0, or true, in some trial."""
    return lambda values: [key for key in keys if any(values(key))]


def _other(key: str, *allowed: Any) -> Callable[[Values], list[Any]]:
    """Values of a key that are not among the allowed ones."""
    return lambda values: [value for value in values(key) if value not in allowed]


RULES = (
    Rule(
        "regularizers.fraternal_dropout",
        lambda values: [] if _on(*acting_dropouts(max(values("model.layers"))))(values) else ["no"],
        "compares two draws of dropout, and there is {} dropout",
        "Set one of regularizers.input_dropout, output_dropout, weight_drop, …, or remove it.",
    ),
    Rule(
        "regularizers.nt_asgd",
        _other("training.optimizer", "sgd"),
        "averages the iterates of plain SGD, not of {}",
        "Write training.optimizer: sgd, or use regularizers.ema or regularizers.swa.",
    ),
    Rule("regularizers.swa", _on("regularizers.ema"), "cannot be on together with {}", ONE_AVERAGE),
    Rule("regularizers.nt_asgd", _on(*AVERAGES[:2]), "cannot be on together with {}", ONE_AVERAGE),
    Rule(
        "regularizers.zoneout_cell",
        _other("model.cell", "lstm"),
        "is for an LSTM's cell state, and cell {} has none",
        "Write model.cell: lstm, or use regularizers.zoneout_hidden.",
    ),
    Rule("regularizers.zoneout_hidden", _other("model.kernels", "auto"), INSIDE, NOT_FUSED),
    Rule("regularizers.zoneout_cell", _other("model.kernels", "auto"), INSIDE, NOT_FUSED),
    Rule("model.layer_norm", _other("model.kernels", "auto"), INSIDE, NOT_FUSED, at="cell"),
    Rule(
        "model.decoder",
        _on("model.tied"),
        "has weights of its own for rare words, which {} forbids",
        "Write model.tied: false, or model.decoder: softmax.",
        at="adaptive",
    ),
    Rule(
        "model.decoder",
        _on("regularizers.label_smoothing", "regularizers.fraternal_dropout"),
        "has no one softmax over all words, which {} needs",
        "Remove that one, or write model.decoder: softmax.",
        at="adaptive",
    ),
    Rule(
        "model.decoder",
        _other("task.kind", "word_lm"),
        "needs symbols in order of their frequency, as word_lm has them, not {}",
        "Write model.decoder: softmax, which is as fast for few symbols.",
        at="adaptive",
    ),
)


def check_conflicts(flat: Mapping[str, Any]) -> None:
    """Raise InputError where a branch's keys, each with its value or distribution, may clash in some trial."""

    def values(key: str) -> Sequence[Any]:
        value = flat.get(key)
        if not isinstance(value, Distribution):
            return (value,)
        searched.append(key)
        return value.corners()

    for rule in RULES:
        searched: list[str] = []
        value = rule.reason(values)
        found = rule.clashes(values) if value is not None else []
        if found:
            branches = " Or search each in a branch of one_of." if searched and "one_of" not in rule.remedy else ""
            raise InputError(rule.key, rule.rule.format(found[0]), rule.remedy + branches, value)
