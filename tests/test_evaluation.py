"""The protocol of the metric, against one plain pass over the text."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import tiny
import torch

from tune_rnn import evaluation, model
from tune_rnn.data import Split
from tune_rnn.feed import Feed
from tune_rnn.model import Sizes

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = Sizes("lstm", tiny.VOCABULARY.size, 6, (8, 7))


def parameters_of(sizes: Sizes = SIZES) -> model.Parameters:
    """Weights large enough that what was read long ago still matters."""
    initial = model.initialise(sizes, torch.Generator().manual_seed(0))
    return {
        name: value * (8 if name in ("embedding.weight", "decoder.weight") else 1) for name, value in initial.items()
    }


def torch_layers(parameters: model.Parameters) -> list[torch.nn.LSTM]:
    layers = [torch.nn.LSTM(6, 8), torch.nn.LSTM(8, 7)]
    names = ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
    for number, layer in enumerate(layers):
        for target, name in zip(layer.parameters(), names, strict=True):
            target.data.copy_(parameters[f"layer{number}.{name}"])
    return layers


@torch.no_grad()
def plain_loss_sum(parameters: model.Parameters, tokens: torch.Tensor) -> float:
    """Summed loss of a text read at once with `torch.nn.LSTM`, from a zero state."""
    values = parameters["embedding.weight"][tokens[:-1]]
    for layer in torch_layers(parameters):
        values = layer(values)[0]
    logits = values @ parameters["decoder.weight"].T + parameters["decoder.bias"]
    return float(torch.nn.functional.cross_entropy(logits.double(), tokens[1:], reduction="sum"))


def feed_of(split: Split, documents: str = "separate") -> Feed:
    return Feed(evaluation.evaluation_windows(split, documents), torch.device("cpu"))


def loss(split: Split, documents: str = "separate") -> float:
    return evaluation.evaluate(SIZES, parameters_of(), feed_of(split, documents))


def tokens_of(split: Split) -> torch.Tensor:
    return torch.from_numpy(split.tokens.astype("int64"))


def test_a_short_text_is_one_stream_read_once() -> None:
    split = tiny.split(900)
    expected = plain_loss_sum(parameters_of(), tokens_of(split)) / 899
    assert loss(split) == pytest.approx(expected, rel=1e-6)


def test_a_longer_text_is_several_streams_and_every_prediction_counts_once() -> None:
    split = tiny.split(5003)
    assert evaluation.evaluation_windows(split, "separate").streams == 4
    borders = [run * 5002 // 4 for run in range(5)]
    runs = [tokens_of(split)[begin : end + 1] for begin, end in pairwise(borders)]
    expected = sum(plain_loss_sum(parameters_of(), run) for run in runs) / 5002
    assert loss(split) == pytest.approx(expected, rel=1e-6)


def test_the_state_is_reset_where_a_document_begins() -> None:
    split = tiny.split(900, documents=3)
    parts = tokens_of(split).chunk(3)
    separate = sum(plain_loss_sum(parameters_of(), part) for part in parts) / 897
    assert loss(split) == pytest.approx(separate, rel=1e-6)
    joined = plain_loss_sum(parameters_of(), tokens_of(split)) / 899
    assert loss(split, "joined") == pytest.approx(joined, rel=1e-6)
    assert separate != pytest.approx(joined, rel=1e-5)


@pytest.mark.parametrize(
    ("characters", "streams"), [(100, 1), (1024, 1), (2048, 1), (2049, 2), (32768, 31), (32769, 32), (100_000, 32)]
)
def test_streams_depend_on_the_length_alone(characters: int, streams: int) -> None:
    assert evaluation.evaluation_windows(tiny.split(characters), "separate").streams == streams


@pytest.mark.parametrize("characters", [700, 5003])
def test_zero_weights_give_the_uniform_loss(characters: int) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in parameters_of().items()}
    feed = feed_of(tiny.split(characters))
    assert evaluation.evaluate(SIZES, zeros, feed) == pytest.approx(math.log(tiny.VOCABULARY.size), rel=1e-6)


def test_the_metric_does_not_depend_on_how_a_trial_trains() -> None:
    ways: list[dict[str, Any]] = [
        {"batch_size": 1, "sequence_length": 100},
        {"batch_size": 16, "sequence_length": 3},
        {"windows": "random", "optimizer": "sgd"},
    ]
    assert len({tiny.training(training=way).evaluate() for way in ways}) == 1


def test_evaluation_changes_nothing() -> None:
    one, undisturbed = tiny.training(), tiny.training()
    one.train_step()
    undisturbed.train_step()
    assert one.evaluate() == one.evaluate()
    assert float(one.train_step()[0]) == float(undisturbed.train_step()[0])
