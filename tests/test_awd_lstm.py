"""The AWD-LSTM's file at a reduced size: every part is active, and switched off it changes what it should, no more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tune_rnn.data import Split
from tune_rnn.experiment import Experiment
from tune_rnn.report import TrialBudget
from tune_rnn.training import Training, TrainingData

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = Path(__file__).resolve().parents[1] / "experiments" / "awd_lstm" / "model.yaml"
SMALLER = ["model.embedding_size=12", "model.hidden_size=16", "training.batch_size=4", "training.sequence_length=12"]


@dataclass
class Seen:
    """What one training showed: before it, at its first step, and after some."""

    untrained: float
    first_loss: float
    first_norm: float
    after_first: list[torch.Tensor]
    lengths: list[int]
    evaluated: float
    averaged: bool


def words(count: int, seed: int) -> Split:
    """A text in which each of forty words tells much about the next one."""
    generator, tokens = np.random.default_rng(seed), [0]
    for _ in range(count - 1):
        tokens.append(int(7 * tokens[-1] + generator.integers(3)) % 40)
    return Split(np.array(tokens, dtype=np.uint8), np.zeros(1, dtype=np.int64))


DATA = TrainingData(40, words(4000, 0), words(1000, 1), "separate")


def training(*overrides: str) -> Training:
    experiment = Experiment.load(FILE).with_overrides([*SMALLER, "training.precision=fp32", *overrides])
    return Training(experiment.trial_config({}), DATA, TrialBudget("epochs", (1.0, 2.0, 3.0)), seed=0)


def seen(*overrides: str) -> Seen:
    one = training(*overrides)
    untrained = one.evaluate()
    assert one.evaluate() == untrained, "evaluation is deterministic"
    loss, norm = one.train_step()
    after = [value.detach().clone() for value in one.parameters.values()]
    lengths = []
    for _ in range(40):
        lengths.append(one.windows.batch(one.step).inputs_TB.shape[0])
        one.train_step()
    one.averaging.first_step = one.step if one.averaging.interval else one.averaging.first_step  # as if triggered
    for _ in range(5):
        one.train_step()
    return Seen(
        untrained, float(loss), float(norm), after, lengths, one.evaluate(), averaged=bool(one.averaging.parameters)
    )


@pytest.fixture(scope="module")
def whole(one_thread: None) -> Seen:
    return seen()


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "name", ["input_dropout", "hidden_dropout", "output_dropout", "embedding_dropout", "weight_drop"]
)
def test_what_drops_changes_the_first_step_and_no_evaluation(name: str, whole: Seen) -> None:
    without = seen(f"regularizers.{name}=0")
    assert without.untrained == whole.untrained
    assert without.first_loss != whole.first_loss
    assert not same(without.after_first, whole.after_first)


@pytest.mark.parametrize("name", ["activation", "temporal_activation"])
def test_penalties_change_the_gradient_and_not_the_loss(name: str, whole: Seen) -> None:
    without = seen(f"regularizers.{name}=0")
    assert (without.untrained, without.first_loss) == (whole.untrained, whole.first_loss)
    assert without.first_norm != whole.first_norm
    assert not same(without.after_first, whole.after_first)


@pytest.mark.parametrize("name", ["clip_norm", "weight_decay"])
def test_what_acts_on_the_step_changes_the_weights_alone(name: str, whole: Seen) -> None:
    without = seen(f"regularizers.{name}=0")
    assert (without.untrained, without.first_loss, without.first_norm) == (
        whole.untrained,
        whole.first_loss,
        whole.first_norm,
    )
    assert whole.first_norm > 0.25
    assert not same(without.after_first, whole.after_first)


def test_the_average_is_evaluated_and_training_goes_on_without_it(whole: Seen) -> None:
    without = seen("regularizers.nt_asgd=0")
    assert same(without.after_first, whole.after_first)
    assert (whole.averaged, without.averaged) == (True, False)
    assert without.evaluated != whole.evaluated


def test_windows_are_of_variable_length_with_their_share_of_the_learning_rate(whole: Seen) -> None:
    assert len(set(whole.lengths)) > 3
    assert set(seen("training.windows=streams").lengths[:-1]) == {12}
    one = training()
    length = one.windows.batch(0).inputs_TB.shape[0]
    one.train_step()
    assert one.learning_rate == pytest.approx(30 * length / 12)


def test_the_decoder_is_the_embedding_and_the_last_layer_has_its_size() -> None:
    parameters: dict[str, Any] = training().parameters
    assert "decoder.weight" not in parameters
    assert parameters["layer1.weight_hidden"].shape == (64, 16)
    assert parameters["layer2.weight_hidden"].shape == (48, 12)
