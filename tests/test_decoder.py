"""The decoders against the plain softmax and its gradients, whatever the blocks and however many symbols.

Shapes: T time steps, B streams, V symbols, H hidden size, K trials.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from tune_rnn import data, decoder, model
from tune_rnn.data import Split
from tune_rnn.data.words import WordVocabulary
from tune_rnn.exported import export, load_model
from tune_rnn.report import TrialBudget
from tune_rnn.training import Training, TrainingData

pytestmark = pytest.mark.usefixtures("one_thread")

T, B, V, H = 7, 5, 120, 16


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of eight positions, for however few symbols; 35 positions make four whole ones and a rest."""
    monkeypatch.setattr(decoder, "LARGE", 2)
    monkeypatch.setattr(decoder, "BLOCK", {"cpu": 8 * V})
    monkeypatch.setattr(decoder, "SMALLEST_BLOCK", 1)


def parameters_of(kind: str, seed: int = 0) -> model.Parameters:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedding.weight": (V, H), **decoder.shapes(kind, V, H)}
    return {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}


def outputs_and_targets(seed: int = 1, padded: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs_TBH = torch.randn(T, B, H, generator=generator).requires_grad_()
    targets_TB = torch.randint(V, (T, B), generator=generator)
    targets_TB.view(-1)[:padded] = decoder.IGNORED
    return outputs_TBH, targets_TB


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, of)


@pytest.mark.parametrize("smoothing", [None, 0.2])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("padded", [0, 4, 20])
def test_blocks_give_the_loss_and_the_gradients_of_the_whole(
    blocks: None, tied: bool, smoothing: float | None, padded: int
) -> None:
    parameters, (outputs_TBH, targets_TB) = parameters_of("softmax"), outputs_and_targets(padded=padded)
    if tied:
        del parameters["decoder.weight"]
    weight = parameters["embedding.weight" if tied else "decoder.weight"]
    loss, total = decoder.cross_entropy(parameters, outputs_TBH, targets_TB, smoothing)
    logits_TBV = decoder.logits(parameters, outputs_TBH)
    expected = torch.nn.functional.cross_entropy(
        logits_TBV.flatten(0, 1), targets_TB.flatten(), ignore_index=-100, label_smoothing=smoothing or 0.0
    )
    torch.testing.assert_close(loss, decoder.of_logits(logits_TBV, targets_TB))
    torch.testing.assert_close(total, expected)
    assert not loss.requires_grad
    of = (outputs_TBH, weight, parameters["decoder.bias"])
    for found, right in zip(gradients(3 * total, *of), gradients(3 * expected, *of), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)


def test_blocks_do_not_overflow(blocks: None) -> None:
    parameters, (outputs_TBH, targets_TB) = parameters_of("softmax"), outputs_and_targets()
    loss, total = decoder.cross_entropy(parameters, 1e4 * outputs_TBH, targets_TB)
    assert math.isfinite(float(loss))
    assert bool(gradients(total, outputs_TBH)[0].isfinite().all())


def test_blocks_multiply_in_bf16_under_autocast(blocks: None) -> None:
    parameters, (outputs_TBH, targets_TB) = parameters_of("softmax"), outputs_and_targets()
    _, exact = decoder.cross_entropy(parameters, outputs_TBH, targets_TB)
    with torch.autocast("cpu", torch.bfloat16):
        loss, total = decoder.cross_entropy(parameters, outputs_TBH, targets_TB)
    assert loss.dtype == total.dtype == torch.float32
    assert 0 < abs(float(total.detach()) - float(exact.detach())) < 0.02 * float(exact.detach())
    weight = parameters["decoder.weight"]
    torch.testing.assert_close(*gradients(total, weight), *gradients(exact, weight), rtol=0.1, atol=0.01)


def test_blocks_in_fp16_push_unlikely_symbols_down_as_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a probability of 1/3000, which is 8e-8 of the mean over 4,096 positions, where fp16 ends at 6e-8."""
    symbols, positions = 3000, 4096
    generator = torch.Generator().manual_seed(0)
    outputs = torch.rand(1, positions, H, generator=generator).requires_grad_()
    shape = {"decoder.weight": (symbols, H), "decoder.bias": (symbols,)}
    parameters = {name: torch.zeros(size).requires_grad_() for name, size in shape.items()}
    targets = torch.randint(10, (1, positions), generator=generator)
    parameters["embedding.weight"] = parameters["decoder.weight"]
    of = (parameters["decoder.weight"], parameters["decoder.bias"], outputs)
    _, exact = decoder.cross_entropy(parameters, outputs, targets)
    with torch.autocast("cpu", torch.float16):
        _, total = decoder.cross_entropy(parameters, outputs.half(), targets)
    scale = 2.0**17  # no number of fp16
    for found, right in zip(gradients(scale * total, *of), gradients(exact, *of), strict=True):
        torch.testing.assert_close(found / scale, right, rtol=0.01, atol=1e-7)


@pytest.mark.parametrize("kind", ["softmax", "adaptive"])
@pytest.mark.parametrize("large", [2, 10_000])
def test_the_total_is_the_mean_times_the_count(kind: str, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "LARGE", large)
    parameters, (outputs_TBH, targets_TB) = parameters_of(kind), outputs_and_targets()
    loss, _ = decoder.cross_entropy(parameters, outputs_TBH, targets_TB)
    total = decoder.total_cross_entropy(parameters, outputs_TBH, targets_TB)
    assert float(total) == pytest.approx(float(loss.detach()) * (T * B - 4), rel=1e-5)
    assert not total.requires_grad


@pytest.mark.parametrize("kind", ["softmax", "adaptive"])
def test_the_loss_is_that_of_probabilities_that_sum_to_one(kind: str) -> None:
    parameters, (outputs_TBH, targets_TB) = parameters_of(kind), outputs_and_targets(padded=0)
    log_TBV = decoder.log_probabilities(parameters, outputs_TBH)
    torch.testing.assert_close(log_TBV.exp().sum(-1), torch.ones(T, B))
    chosen_TB = log_TBV.gather(-1, targets_TB.unsqueeze(-1))
    loss, _ = decoder.cross_entropy(parameters, outputs_TBH, targets_TB)
    torch.testing.assert_close(loss, -chosen_TB.mean())


def test_blocks_map_over_trials(blocks: None) -> None:
    """Two trials at once equal two calls, each with its own weights and smoothing."""
    trials = [{name: value.detach() for name, value in parameters_of("softmax", seed).items()} for seed in (0, 1)]
    batches = [outputs_and_targets(seed) for seed in (2, 3)]

    def loss(
        parameters: model.Parameters, outputs_TBH: torch.Tensor, targets_TB: torch.Tensor, smoothing: torch.Tensor
    ) -> torch.Tensor:
        return decoder.cross_entropy(parameters, outputs_TBH, targets_TB, smoothing)[1]

    gradient_and_loss = torch.func.grad_and_value(loss)
    stacked = {name: torch.stack([trial[name] for trial in trials]) for name in trials[0]}
    outputs_KTBH, targets_KTB = (torch.stack([batch[k].detach() for batch in batches]) for k in range(2))
    smoothing_K = torch.tensor([0.1, 0.3])
    gradients_K, loss_K = torch.func.vmap(gradient_and_loss)(stacked, outputs_KTBH, targets_KTB, smoothing_K)
    for k in range(2):
        alone, value = gradient_and_loss(trials[k], outputs_KTBH[k], targets_KTB[k], smoothing_K[k])
        torch.testing.assert_close(loss_K[k], value)
        torch.testing.assert_close(gradients_K["decoder.weight"][k], alone["decoder.weight"])


def test_the_adaptive_softmax_has_fewer_weights_for_rare_symbols() -> None:
    def count(kind: str) -> int:
        return sum(math.prod(shape) for shape in decoder.shapes(kind, 10_000, 200).values())

    assert count("adaptive") < 0.25 * count("softmax")
    assert decoder.shapes("adaptive", 10_000, 200)["decoder.head.weight"] == (200 + 3, 200)


@pytest.mark.parametrize("vocabulary", [4, 5, 6, 10, 33, 1000])
def test_the_adaptive_softmax_takes_small_vocabularies(vocabulary: int) -> None:
    shapes = decoder.shapes("adaptive", vocabulary, 8)
    parameters = {name: torch.zeros(shape) for name, shape in shapes.items()}
    parameters["embedding.weight"] = torch.zeros(vocabulary, 8)
    log_TBV = decoder.log_probabilities(parameters, torch.zeros(1, 1, 8))
    assert log_TBV.shape == (1, 1, vocabulary)
    assert float(log_TBV.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adaptive_softmax_computes_in_fp32_under_autocast(dtype: torch.dtype) -> None:
    parameters, (outputs_TBH, targets_TB) = parameters_of("adaptive"), outputs_and_targets()
    outputs_TBH = outputs_TBH.detach().to(dtype)
    exact, _ = decoder.cross_entropy(parameters, outputs_TBH.float(), targets_TB)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = decoder.cross_entropy(parameters, outputs_TBH, targets_TB)
        log_TBV = decoder.log_probabilities(parameters, outputs_TBH)
    assert torch.equal(loss, exact)
    assert log_TBV.dtype == torch.float32


def test_the_adaptive_softmax_is_penalised_also_where_no_target_needs_it() -> None:
    """PyTorch leaves out the weights of symbols that no target of a window is among; L2 and L1 do not."""
    words, _ = word_data()
    config = tiny.config(
        model={"hidden_size": 32, "decoder": "adaptive"},
        training={"batch_size": 1, "sequence_length": 2, "optimizer": "sgd", "learning_rate": 1.0},
        regularizers={"l2": 0.05},
    )
    one = Training(config, words, TrialBudget("epochs", (1.0,)), seed=0)
    before = {name: value.detach().clone() for name, value in one.parameters.items()}
    assert [name for name in before if "decoder" in name and "weight" not in name] == []
    one.train_step()
    targets = one.windows.batch(0).targets_TB
    tails = [name for name in before if name.startswith("decoder.tail")]
    unused = [name for name in tails if not _needs(name, targets, words.vocabulary_size)]
    assert unused
    for name in unused:
        torch.testing.assert_close(one.parameters[name].detach(), 0.9 * before[name])


def _needs(name: str, targets: Any, vocabulary: int) -> bool:
    part = int(name.split(".")[2])
    cutoffs = [*decoder._adaptive(vocabulary, 32).cutoffs]
    return bool(((targets >= cutoffs[part]) & (targets < cutoffs[part + 1])).any())


def word_data() -> tuple[TrainingData, WordVocabulary]:
    """The words of the tiny text, in an order that is not theirs by frequency, which only costs."""
    words = re.findall(r"\w+", tiny.text(8000))
    vocabulary = WordVocabulary(("<unk>", "<eos>", *sorted(set(words))))
    tokens = np.array([vocabulary.symbols.index(word) for word in words], dtype=np.uint8)
    split = Split(tokens, np.zeros(1, dtype=np.int64))
    return TrainingData(vocabulary.size, split, split, "separate"), vocabulary


@pytest.mark.parametrize("sections", [{"decoder": "adaptive"}, {}])
def test_a_model_with_it_learns_is_exported_and_samples(sections: dict[str, Any], blocks: None, tmp_path: Path) -> None:
    words, vocabulary = word_data()
    config = tiny.config(model={"hidden_size": 32, **sections}, training={"learning_rate": 0.03})
    one = Training(config, words, TrialBudget("epochs", (4.0,)), seed=0)
    (report,) = one.run()
    assert report.validation_loss is not None
    assert report.validation_loss < 0.5 * words.baseline_loss
    export(tmp_path / "best", one.sizes, one.parameters, vocabulary, {"precision": "fp32"})
    trained = load_model(tmp_path / "best")
    assert trained.evaluate(words.validation) == report.validation_loss
    drawn = trained.sample("zwei", length=40, temperature=0.5).split()
    assert len(drawn) == 40
    assert set(drawn) <= set(vocabulary.symbols) - {data.vocabulary.UNKNOWN}
