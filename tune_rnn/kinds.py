"""What the kinds of task differ in where people look: what is predicted, and in which unit a loss is also given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A row of `KINDS`."""

    noun: str
    """What is predicted, one at a time."""
    metric: str
    """Name of what people read besides the loss, in summary and TensorBoard."""
    of_loss: Callable[[float], float]
    """That metric, from a loss in nats per prediction."""
    wording: str
    """The metric in a sentence, with its number as {}."""
    sample_length: int
    """How many of the noun make a sample."""


def bits(nats: float) -> float:
    """Nats to bits: bits per character from a loss per character."""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """exp(loss): among how many equally likely words the model hesitates."""
    return math.exp(nats) if nats < 700 else math.inf


KINDS = {
    "char_lm": Kind("character", "bits_per_character", bits, "{:.4f} bits per character", 300),
    "word_lm": Kind("word", "perplexity", perplexity, "perplexity {:.2f}", 60),
}
