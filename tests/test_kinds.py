"""The units in which people read a loss."""

from __future__ import annotations

import math

import pytest

from tune_rnn.kinds import KINDS, bits, perplexity
from tune_rnn.schema import Task


def test_every_kind_of_task_has_its_row() -> None:
    assert set(KINDS) == set(Task.model_fields["kind"].annotation.__args__)  # type: ignore[union-attr]


def test_a_uniform_choice_among_eight() -> None:
    assert bits(math.log(8)) == pytest.approx(3)
    assert perplexity(math.log(8)) == pytest.approx(8)
    assert perplexity(1e4) == math.inf


@pytest.mark.parametrize(("kind", "text"), [("char_lm", "3.0000 bits per character"), ("word_lm", "perplexity 8.00")])
def test_a_loss_in_words(kind: str, text: str) -> None:
    assert KINDS[kind].wording.format(KINDS[kind].of_loss(math.log(8))) == text
