"""Every regulariser: its formula against NumPy or a closed form, and that strength 0 is as if it did not exist."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn import decoder, model, regularizers
from tune_rnn.model import Sizes
from tune_rnn.objective import forward_pass, objective
from tune_rnn.optimization import Optimizer
from tune_rnn.regularizers import Dropout

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = Sizes("lstm", 11, 200, (300, 300, 250))
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")


def tensors(seed: int = 0, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in ((4, 3), (7,), (2, 5))]


def norm_of(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))


# On the loss: L1, L2, elastic net


def penalty_gradients(l1: float, l2: float, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    weights = [weight.to(dtype).requires_grad_() for weight in tensors()]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    regularizers.add_penalty(weights, l1, l2)
    return [weight.grad - 1 for weight in weights if weight.grad is not None]


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_the_penalty_s_gradient_is_that_of_its_formula(l1: float, l2: float) -> None:
    weights = [weight.double().requires_grad_() for weight in tensors()]
    sum(l1 * weight.abs().sum() + l2 * (weight**2).sum() for weight in weights).backward()  # type: ignore[union-attr]
    for found, weight in zip(penalty_gradients(l1, l2), weights, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(found, weight.grad)


def test_l1_leaves_zero_weights_alone() -> None:
    weight = torch.tensor([[0.0, -2.0, 3.0]], requires_grad=True)
    weight.grad = torch.zeros(1, 3)
    regularizers.add_penalty([weight], 0.5, 0.0)
    assert weight.grad.tolist() == [[0.0, -0.5, 0.5]]


@given(*[st.floats(0, 10)] * 4)
def test_penalty_is_linear_in_its_strengths(l1: float, l2: float, other_l1: float, other_l2: float) -> None:
    both = penalty_gradients(l1 + other_l1, l2 + other_l2)
    for found, one, other in zip(both, penalty_gradients(l1, l2), penalty_gradients(other_l1, other_l2), strict=True):
        torch.testing.assert_close(found, one + other)
    for found, one, other in zip(
        penalty_gradients(l1, l2), penalty_gradients(1, 0), penalty_gradients(0, 1), strict=True
    ):
        torch.testing.assert_close(found, l1 * one + l2 * other)


@pytest.mark.parametrize("tied", [False, True])
def test_weight_matrices_are_penalised_once_and_biases_are_not(tied: bool) -> None:
    sizes = Sizes.of(11, cell="lstm", embedding_size=5, hidden_size=7, layers=2, tied=tied)
    parameters = model.initialise(sizes, torch.Generator().manual_seed(0))
    matrices = [value for value in parameters.values() if value.ndim == 2]
    assert len(matrices) == 5 + (not tied)  # embedding, two for each layer, decoder
    found = regularizers.penalised(parameters)
    assert [id(weight) for weight in found] == [id(weight) for weight in matrices]


# On the forward pass: dropout


@pytest.mark.parametrize(("locked", "steps"), [(True, 1), (False, 6)])
def test_masks_of_all_places(locked: bool, steps: int) -> None:
    dropout = Dropout(input=0.25, hidden=0.5, output=0.1, locked=locked)
    masks = regularizers.draw_masks(SIZES, dropout, (6, 40), torch.Generator().manual_seed(0))
    expected = {"input": (200, 0.25), "hidden0": (300, 0.5), "hidden1": (300, 0.5), "output": (250, 0.1)}
    assert set(masks) == set(expected)
    for name, (size, rate) in expected.items():
        mask = masks[name].double()
        assert mask.shape == (steps, 40, size)
        kept = mask[mask != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-6, atol=0)
        deviations = (float((mask == 0).double().mean()) - rate) / math.sqrt(rate * (1 - rate) / mask.numel())
        assert abs(deviations) < 4  # the rate, and with it the mean of the mask, 1
        assert not torch.equal(mask[:, 0], mask[:, 1])  # each stream has its own


def test_masks_differ_from_step_to_step_unless_they_are_locked() -> None:
    mask = regularizers.draw_masks(SIZES, Dropout(input=0.5, locked=False), (6, 4), torch.Generator())["input"]
    assert not torch.equal(mask[0], mask[1])


def test_a_place_with_rate_0_has_no_mask_and_one_layer_no_hidden_dropout() -> None:
    one_layer = Sizes("lstm", 11, 5, (7,))
    masks = regularizers.draw_masks(one_layer, Dropout(hidden=0.5, output=0.1), (6, 4), torch.Generator())
    assert set(masks) == {"output"}


@given(rate=st.floats(0.01, 0.9), seed=st.integers(0, 100))
def test_inverted_dropout_preserves_the_mean(rate: float, seed: int) -> None:
    masks = regularizers.draw_masks(SIZES, Dropout(input=rate), (6, 40), torch.Generator().manual_seed(seed))
    spread = math.sqrt(rate / (1 - rate) / masks["input"].numel())
    assert float(masks["input"].mean()) == pytest.approx(1, abs=5 * spread)


def test_masks_are_a_function_of_seed_and_step_alone() -> None:
    def mask(seed: int, step: int) -> torch.Tensor:
        generator = regularizers.seed_for_step(torch.Generator(), seed, step)
        return regularizers.draw_masks(SIZES, Dropout(input=0.5), (6, 4), generator)["input"]

    torch.manual_seed(1)
    one = mask(3, 7)
    torch.manual_seed(2)
    assert torch.equal(one, mask(3, 7))
    assert not torch.equal(one, mask(3, 8))
    assert not torch.equal(one, mask(4, 7))
    assert not torch.equal(mask(7, 3), mask(3, 7))
    assert mask(2**40, 2**40).shape == (1, 4, 200)


def test_embedding_dropout_takes_whole_symbols_and_weight_drop_single_weights() -> None:
    masks = regularizers.draw_masks(SIZES, Dropout(embedding=0.4, weight=0.5), (6, 4), torch.Generator().manual_seed(0))
    assert {name: mask.shape for name, mask in masks.items()} == {
        "embedding": (11, 1),
        "weight0": (1200, 300),
        "weight1": (1200, 300),
        "weight2": (1000, 250),
    }
    kept = masks["embedding"][masks["embedding"] > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.6))
    assert float((masks["weight0"] == 0).double().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_weight_drop_acts_from_the_second_step_on_and_gradients_reach_the_raw_weights(cell: str) -> None:
    """From a zero state the first step multiplies the hidden-to-hidden weights by zeros."""
    sizes = Sizes(cell, 11, 5, (7,))
    parameters = model.initialise(sizes, torch.Generator().manual_seed(0))
    parameters["layer0.weight_hidden"].requires_grad_()
    state, inputs_TB = model.zero_state(sizes, 3), torch.arange(18).reshape(6, 3) % 11
    masks = regularizers.draw_masks(sizes, Dropout(weight=0.5), (6, 3), torch.Generator().manual_seed(1))
    plain_TBV, _ = model.forward(sizes, parameters, state, inputs_TB)
    dropped_TBV, _ = model.forward(sizes, parameters, state, inputs_TB, masks)
    torch.testing.assert_close(dropped_TBV[0], plain_TBV[0])
    assert not torch.allclose(dropped_TBV[1:], plain_TBV[1:])
    dropped_TBV.square().sum().backward()
    gradient = parameters["layer0.weight_hidden"].grad
    assert gradient is not None
    assert bool((gradient[masks["weight0"] == 0] == 0).all())
    assert bool((gradient[masks["weight0"] > 0] != 0).any())


def test_a_dropped_symbol_is_read_as_zeros_and_others_are_scaled() -> None:
    parameters = model.initialise(SIZES, torch.Generator().manual_seed(0))
    inputs_TB = torch.tensor([[2, 3], [3, 2]])
    symbols_V1 = torch.full((11, 1), 1.25)
    symbols_V1[3] = 0
    plain, dropped = model.embed(parameters, inputs_TB), model.embed(parameters, inputs_TB, None, symbols_V1)
    torch.testing.assert_close(dropped[0, 0], 1.25 * plain[0, 0])
    assert not dropped[0, 1].any()
    assert not dropped[1, 0].any()


def test_state_reset_is_its_rate_and_keeps_what_is_fresh() -> None:
    fresh_B = torch.zeros(10_000, dtype=torch.bool)
    fresh_B[:100] = True
    reset_B = regularizers.reset_some(fresh_B, 0.3, torch.Generator().manual_seed(0))
    assert bool(reset_B[:100].all())
    assert float(reset_B[100:].double().mean()) == pytest.approx(0.3, abs=0.02)


# On the loss: activations, smoothed targets, two passes


def test_penalties_of_activations() -> None:
    outputs = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    values = outputs.double().numpy()
    all_count = torch.ones(5, 2, dtype=torch.bool)
    of_differences = (np.diff(values, axis=0) ** 2).mean()
    assert float(regularizers.activation(outputs, all_count)) == pytest.approx((values**2).mean())
    assert float(regularizers.temporal_activation(outputs, all_count)) == pytest.approx(of_differences)
    assert float(regularizers.temporal_activation(outputs[:1], all_count[:1])) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["activation", "temporal_activation"])
def test_gradients_of_penalties_of_activations_are_autograds(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 2, 3, generator=generator).to(dtype).requires_grad_()
    counts = torch.tensor([[True, True], [True, True], [True, True], [True, False], [True, False]])
    values = outputs.float() if name == "activation" else (outputs[1:] - outputs[:-1]).float()
    plain = values.square()[counts[-len(values) :]].mean()
    (expected,) = torch.autograd.grad(3 * plain, outputs)
    (gradient,) = torch.autograd.grad(3 * getattr(regularizers, name)(outputs, counts), outputs)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("name", ["activation", "temporal_activation", "fraternal"])
def test_penalties_of_activations_leave_padding_out(name: str) -> None:
    """A text of three steps in one stream is one of five whose last two are padding, whatever is there."""
    generator = torch.Generator().manual_seed(0)
    outputs, others = torch.randn(2, 5, 1, 3, generator=generator)
    weight = torch.randn(4, 3, generator=generator)
    counts = torch.tensor([[True], [True], [True], [False], [False]])

    def penalty(steps: int) -> float:
        more = (others[:steps], weight) if name == "fraternal" else ()
        return float(getattr(regularizers, name)(outputs[:steps], *more, counts[:steps]))

    assert penalty(5) == pytest.approx(penalty(3))
    assert penalty(3) > 0


@given(epsilon=st.floats(0, 0.99), seed=st.integers(0, 20))
def test_smoothed_targets_are_torchs(epsilon: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_TBV = 3 * torch.randn(4, 3, 7, generator=generator)
    targets_TB = torch.randint(7, (4, 3), generator=generator)
    targets_TB[2:, 1] = -100
    loss, ours = decoder.smoothed(logits_TBV, targets_TB, epsilon)
    assert torch.equal(loss, decoder.of_logits(logits_TBV, targets_TB))
    theirs = torch.nn.functional.cross_entropy(
        logits_TBV.flatten(0, 1), targets_TB.flatten(), ignore_index=-100, label_smoothing=epsilon
    )
    torch.testing.assert_close(ours, theirs)


def test_fraternal_is_the_mean_squared_difference_of_the_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other, weight = (torch.randn(shape, generator=generator) for shape in ((4, 3, 5), (4, 3, 5), (11, 5)))
    expected = (((one - other).double() @ weight.double().t()) ** 2).mean()
    all_count = torch.ones(4, 3, dtype=torch.bool)
    assert float(regularizers.fraternal(one, other, weight, all_count)) == pytest.approx(float(expected))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(regularizers.fraternal(one, other, weight, all_count)) == pytest.approx(float(expected))


@pytest.mark.parametrize("fraternal", [0.0, 0.7])
def test_what_is_minimised_is_written_out(fraternal: float) -> None:
    """Cross-entropy with smoothed targets, AR of the dropped outputs, TAR of the raw ones; of two passes the mean."""
    strengths = {"activation": 2.0, "temporal_activation": 3.0, "label_smoothing": 0.2, "fraternal_dropout": fraternal}
    config = tiny.config(regularizers={**strengths, "output_dropout": 0.5})
    sizes = Sizes("lstm", 11, 5, (7,))
    parameters = model.initialise(sizes, torch.Generator().manual_seed(0))
    inputs_TB, targets_TB = torch.arange(18).reshape(6, 3) % 11, torch.arange(18).reshape(6, 3) % 7
    passes, expected, logits = [], [], []
    for seed in range(2 if fraternal else 1):
        masks = regularizers.draw_masks(sizes, Dropout(output=0.5), (6, 3), torch.Generator().manual_seed(seed))
        one = forward_pass(sizes, parameters, model.zero_state(sizes, 3), inputs_TB, masks)
        passes.append(one)
        logits.append(decoder.logits(parameters, one.dropped_TBH))
        smoothed = torch.nn.functional.cross_entropy(
            logits[-1].flatten(0, 1), targets_TB.flatten(), label_smoothing=0.2
        )
        steps = (one.raw_TBH[1:] - one.raw_TBH[:-1]).square().mean()
        expected.append(float(smoothed + 2 * one.dropped_TBH.square().mean() + 3 * steps))
    total = sum(expected) / len(expected)
    if fraternal:
        total += fraternal * float((logits[0] - logits[1]).square().mean())
    loss, minimised = objective(parameters, passes, targets_TB, config.regularizers)
    assert float(minimised) == pytest.approx(total, rel=1e-5)
    assert float(loss) == pytest.approx(float(decoder.of_logits(logits[0], targets_TB)), rel=1e-6)


# On the gradient: noise; on the step: max-norm


@pytest.mark.parametrize("step", [0, 99])
def test_gradient_noise_has_its_variance(step: int) -> None:
    gradients = [torch.zeros(200, 300), torch.zeros(1000)]
    regularizers.add_noise(gradients, regularizers.noise_deviation(0.3, step), torch.Generator().manual_seed(0))
    variance = float(torch.cat([gradient.flatten() for gradient in gradients]).double().var())
    assert variance == pytest.approx(0.3 / (1 + step) ** 0.55, rel=0.03)


@pytest.mark.parametrize("tied", [False, True])
def test_max_norm_shortens_rows_and_spares_short_ones_embeddings_and_biases(tied: bool) -> None:
    """Embeddings that are the decoder, too, are units' incoming weights."""
    sizes = Sizes.of(11, cell="gru", embedding_size=5, hidden_size=7, layers=2, tied=tied, layer_norm="cell")
    parameters = model.initialise(sizes, torch.Generator().manual_seed(0))
    parameters["embedding.weight"] *= 5
    before = {name: value.clone() for name, value in parameters.items()}
    regularizers.limit_norms(parameters, 0.3)
    for name, value in parameters.items():
        if "weight" not in name or (name == "embedding.weight" and not tied):
            assert torch.equal(value, before[name])
            continue
        lengths = np.linalg.norm(before[name].numpy(), axis=1, keepdims=True)
        np.testing.assert_allclose(value.numpy(), before[name].numpy() * np.minimum(1, 0.3 / lengths), rtol=1e-5)


# On the gradient: clipping


def test_clipping_by_value() -> None:
    gradients, before = tensors(scale=3.0), tensors(scale=3.0)
    norm = regularizers.clip_gradients(gradients, clip_value=0.7, clip_norm=0.0)
    for gradient, original in zip(gradients, before, strict=True):
        np.testing.assert_array_equal(gradient.numpy(), np.clip(original.numpy(), -np.float32(0.7), np.float32(0.7)))
    assert float(norm) == pytest.approx(norm_of(before))


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_by_norm_shortens_and_never_lengthens(clip_norm: float) -> None:
    gradients, before = tensors(), tensors()
    norm = regularizers.clip_gradients(gradients, clip_value=0.0, clip_norm=clip_norm)
    factor = min(1.0, clip_norm / norm_of(before))
    for gradient, original in zip(gradients, before, strict=True):
        torch.testing.assert_close(gradient, factor * original)
    assert float(norm) == pytest.approx(norm_of(before))


def test_clipping_by_value_comes_before_clipping_by_norm() -> None:
    gradients, before = tensors(scale=3.0), tensors(scale=3.0)
    norm = regularizers.clip_gradients(gradients, clip_value=0.7, clip_norm=1.0)
    clamped = [original.clamp(-0.7, 0.7) for original in before]
    for gradient, expected in zip(gradients, clamped, strict=True):
        torch.testing.assert_close(gradient, expected / norm_of(clamped))
    assert float(norm) == pytest.approx(norm_of(before)), "the reported norm is the one before clipping"


def test_a_zero_gradient_stays_zero() -> None:
    gradients = [torch.zeros(3)]
    assert float(regularizers.clip_gradients(gradients, 1.0, 1.0)) == 0
    assert gradients[0].tolist() == [0, 0, 0]


@given(scale=st.floats(1e-3, 1e3), clip_norm=st.floats(1e-3, 1e3))
def test_the_norm_after_clipping_is_the_smaller_one(scale: float, clip_norm: float) -> None:
    gradients = tensors(scale=scale)
    before = regularizers.clip_gradients(gradients, 0.0, clip_norm)
    assert norm_of(gradients) == pytest.approx(min(clip_norm, float(before)), rel=1e-5)


# On the step: decoupled weight decay


def test_weight_decay_multiplies_all_parameters() -> None:
    parameters = tensors()
    regularizers.decay_weights(parameters, learning_rate=0.1, weight_decay=0.2)
    for parameter, original in zip(parameters, tensors(), strict=True):
        torch.testing.assert_close(parameter, (1 - 0.1 * 0.2) * original)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_weight_decay_is_decoupled_under_every_optimizer(optimizer: str, clip_norm: float) -> None:
    """A step with decay λ is (1 - ηλ)·w plus the step without it: neither clipped nor scaled. Biases decay, too."""
    training = {"optimizer": optimizer, "learning_rate": 0.1}
    plain = tiny.training(training=training, regularizers={"clip_norm": clip_norm})
    decayed = tiny.training(training=training, regularizers={"clip_norm": clip_norm, "weight_decay": 0.5})
    before = {name: value.detach().clone() for name, value in plain.parameters.items()}
    plain.train_step()
    decayed.train_step()
    assert float(before["layer0.bias_input"].abs().sum()) > 0
    for name, value in decayed.parameters.items():
        update = plain.parameters[name].detach() - before[name]
        torch.testing.assert_close(value.detach(), 0.95 * before[name] + update, rtol=1e-6, atol=1e-6)


def test_adamw_is_torchs_adamw() -> None:
    training = tiny.training(training={"optimizer": "adamw"}, regularizers={"weight_decay": 0.3})
    twins = [value.detach().clone().requires_grad_() for value in training.parameters.values()]
    theirs = torch.optim.AdamW(twins, lr=0.01, weight_decay=0.3)
    ours = Optimizer("adamw", list(training.parameters.values()))
    for step in range(3):
        for number, (one, other) in enumerate(zip(training.parameters.values(), twins, strict=True)):
            generator = torch.Generator().manual_seed(10 * step + number)
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        with torch.no_grad():
            regularizers.decay_weights(list(training.parameters.values()), 0.01, 0.3)
        ours.step(0.01)
        theirs.step()
    for one, other in zip(training.parameters.values(), twins, strict=True):
        torch.testing.assert_close(one, other)


# All of them: one row each

ON = {
    "input_dropout": 0.3,
    "hidden_dropout": 0.3,
    "output_dropout": 0.3,
    "l1": 1e-3,
    "l2": 1e-2,
    "weight_decay": 0.1,
    "clip_norm": 0.01,
    "clip_value": 1e-4,
    "embedding_dropout": 0.3,
    "weight_drop": 0.3,
    "zoneout_hidden": 0.3,
    "zoneout_cell": 0.3,
    "state_reset": 0.5,
    "activation": 0.1,
    "temporal_activation": 0.1,
    "label_smoothing": 0.1,
    "fraternal_dropout": 0.1,
    "max_norm": 0.5,
    "gradient_noise": 0.01,
    "ema": 0.9,
    "swa": 0.95,
    "nt_asgd": 1,
}
SGD = {"optimizer": "sgd", "learning_rate": 1.0}  # Adam's steps barely depend on the gradient's length


WITH = {"fraternal_dropout": {"output_dropout": 0.3}}  # what a row acts through
AVERAGES = ("ema", "swa", "nt_asgd")  # they change what is evaluated, not what is trained


def trained(**strengths: Any) -> tuple[list[torch.Tensor], list[float], float]:
    """Parameters and training losses after a few steps of a two-layer network, and the validation loss."""
    training = tiny.training(model={"layers": 2}, regularizers=strengths, training=SGD)
    losses = [float(training.train_step()[0]) for _ in range(4)]
    return [value.detach() for value in training.parameters.values()], losses, training.evaluate()


def test_the_table_has_every_regulariser() -> None:
    fields = set(type(tiny.config().regularizers).model_fields)
    assert fields == {*ON, "locked_dropout"}


@pytest.mark.parametrize("name", [name for name in ON if name != "nt_asgd"])
def test_strength_0_is_absence_bit_for_bit_and_each_strength_above_it_acts(name: str) -> None:
    others: dict[str, Any] = WITH.get(name, {})
    absent, off, on = trained(**others), trained(**others, **{name: 0}), trained(**others, **{name: ON[name]})
    assert off[1:] == absent[1:]
    assert all(torch.equal(one, other) for one, other in zip(off[0], absent[0], strict=True))
    assert on[2] != absent[2]
    assert (on[1][-1] != absent[1][-1]) == (name not in AVERAGES)


def test_unlocked_dropout_acts_differently() -> None:
    assert trained(input_dropout=0.3)[1] != trained(input_dropout=0.3, locked_dropout=False)[1]


@pytest.mark.parametrize("name", ON)
def test_the_metric_is_the_task_loss_alone(name: str) -> None:
    """Huge strengths change what is learnt, not what a model's loss is called; nor does evaluation drop anything."""
    huge = {
        "nt_asgd": 1,
        "max_norm": 1e-3,
        "l1": 1e3,
        "l2": 1e3,
        "weight_decay": 1e-3,
        "clip_norm": 1e-6,
        "clip_value": 1e-6,
    }
    regularised = tiny.training(model={"layers": 2}, regularizers={name: huge.get(name, 0.9)})
    plain = tiny.training(model={"layers": 2})
    assert regularised.evaluate() == regularised.evaluate()
    assert (regularised.evaluate() == plain.evaluate()) == ("zoneout" not in name), "zoneout's expected state remains"
    if "drop" not in name and "zoneout" not in name and name != "state_reset":
        assert float(regularised.train_step()[0]) == float(plain.train_step()[0])
