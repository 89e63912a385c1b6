"""The network against a NumPy one of its own, its sizes and initial values, and what maps over trials.

Shapes: T time steps, B streams, V symbols, E embedding size, H hidden size of a layer, K trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tune_rnn import decoder, model, regularizers
from tune_rnn.model import Sizes
from tune_rnn.recurrence import GATES

pytestmark = pytest.mark.usefixtures("one_thread")

Array = NDArray[np.float64]

CELLS = ("rnn", "gru", "lstm")
SIZES = [
    pytest.param(
        Sizes.of(11, cell=cell, embedding_size=5, hidden_size=7, layers=layers, tied=tied),
        id=f"{cell}-{layers}{'-tied' if tied else ''}",
    )
    for cell in CELLS
    for layers in (1, 2)
    for tied in (False, True)
]


def parameters_of(sizes: Sizes, seed: int = 0) -> model.Parameters:
    """Initial parameters, with biases that are not zero, so that each of them matters."""
    generator = torch.Generator().manual_seed(seed)
    parameters = model.initialise(sizes, generator)
    for name, value in parameters.items():
        if "bias" in name:
            value.uniform_(-0.5, 0.5, generator=generator)
    return parameters


def random_state(sizes: Sizes, streams: int) -> model.State:
    generator = torch.Generator().manual_seed(5)
    zeros = model.zero_state(sizes, streams)
    return tuple(tuple(part.uniform_(-0.5, 0.5, generator=generator) for part in layer) for layer in zeros)


def symbols(*shape: int, vocabulary: int = 11) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(vocabulary, size=shape))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reference_step(cell: str, weights: Mapping[str, Array], x_BI: Array, state: list[Array]) -> list[Array]:
    """One time step of a layer from the textbook: the new hidden state, and an LSTM's cell state."""
    hidden_BH = state[0]
    from_input = np.split(x_BI @ weights["weight_input"].T + weights["bias_input"], GATES[cell], axis=1)
    from_hidden = np.split(hidden_BH @ weights["weight_hidden"].T + weights["bias_hidden"], GATES[cell], axis=1)
    if cell == "rnn":
        return [np.tanh(from_input[0] + from_hidden[0])]
    if cell == "gru":
        reset, update = sigmoid(from_input[0] + from_hidden[0]), sigmoid(from_input[1] + from_hidden[1])
        new_BH = np.tanh(from_input[2] + reset * from_hidden[2])
        return [(1 - update) * new_BH + update * hidden_BH]
    i, f, g, o = (one + other for one, other in zip(from_input, from_hidden, strict=True))
    memory_BH = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(memory_BH), memory_BH]


def reference_forward(
    sizes: Sizes, parameters: model.Parameters, state: model.State, inputs_TB: torch.Tensor
) -> tuple[Array, list[list[Array]]]:
    """Logits (T, B, V) and the state after the window, in float64."""
    values = {name: value.double().numpy() for name, value in parameters.items()}
    after = [[part[0].double().numpy() for part in layer] for layer in state]
    logits = []
    for inputs_B in inputs_TB.numpy():
        x = values["embedding.weight"][inputs_B]
        for layer in range(len(sizes.hidden)):
            prefix = f"layer{layer}."
            weights = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            after[layer] = reference_step(sizes.cell, weights, x, after[layer])
            x = after[layer][0]
        decoder = values["embedding.weight"] if sizes.tied else values["decoder.weight"]
        logits.append(x @ decoder.T + values["decoder.bias"])
    return np.stack(logits), after


@pytest.mark.parametrize("sizes", SIZES)
def test_forward_equals_the_textbook(sizes: Sizes) -> None:
    parameters, state, inputs_TB = parameters_of(sizes), random_state(sizes, 3), symbols(9, 3)
    logits_TBV, after = model.forward(sizes, parameters, state, inputs_TB)
    expected_TBV, expected_after = reference_forward(sizes, parameters, state, inputs_TB)
    np.testing.assert_allclose(logits_TBV.numpy(), expected_TBV, atol=2e-6)
    for layer, expected_layer in zip(after, expected_after, strict=True):
        for part, expected in zip(layer, expected_layer, strict=True):
            np.testing.assert_allclose(part[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_are_those_of_finite_differences(sizes: Sizes) -> None:
    """Each parameter is used, and what is differentiated is what is computed."""
    parameters, state, inputs_TB = parameters_of(sizes), random_state(sizes, 3), symbols(9, 3)
    for value in parameters.values():
        value.requires_grad_()
    targets_TB = inputs_TB.roll(-1, 0)
    logits_TBV, _ = model.forward(sizes, parameters, state, inputs_TB)
    decoder.of_logits(logits_TBV, targets_TB).backward()

    def reference_loss(changed: model.Parameters) -> float:
        logits_TBV, _ = reference_forward(sizes, changed, state, inputs_TB)
        return float(model_free_cross_entropy(logits_TBV, targets_TB.numpy()).mean())

    for name, value in parameters.items():
        direction = torch.sign(value.grad) if value.grad is not None else torch.zeros(())
        losses = [
            reference_loss({**plain(parameters), name: value.detach().double() + sign * 1e-5 * direction})
            for sign in (1, -1)
        ]
        slope = (losses[0] - losses[1]) / 2e-5
        assert value.grad is not None
        assert slope > 1e-5, name
        assert float(value.grad.abs().sum()) == pytest.approx(slope, rel=1e-3), name


def plain(parameters: model.Parameters) -> model.Parameters:
    return {name: value.detach() for name, value in parameters.items()}


def model_free_cross_entropy(logits_TBV: Array, targets_TB: NDArray[np.int64]) -> Array:
    """-log softmax at the targets, (T, B)."""
    logits_TBV = logits_TBV - logits_TBV.max(axis=-1, keepdims=True)
    log_probabilities = logits_TBV - np.log(np.exp(logits_TBV).sum(axis=-1, keepdims=True))
    chosen: Array = np.take_along_axis(log_probabilities, targets_TB[..., None], axis=-1)[..., 0]
    return -chosen


def test_cross_entropy_is_the_mean_over_the_targets_that_count() -> None:
    logits_TBV, targets_TB = torch.randn(5, 3, 11, generator=torch.Generator().manual_seed(0)), symbols(5, 3)
    each_TB = model_free_cross_entropy(logits_TBV.double().numpy(), targets_TB.numpy())
    padded_TB = targets_TB.clone()
    padded_TB[3:, 1] = -100
    counts_TB = padded_TB.numpy() != -100
    assert float(decoder.of_logits(logits_TBV, targets_TB)) == pytest.approx(each_TB.mean(), rel=1e-6)
    assert float(decoder.of_logits(logits_TBV, padded_TB)) == pytest.approx(each_TB[counts_TB].mean(), rel=1e-6)
    total = float(decoder.of_logits(logits_TBV, padded_TB, reduction="sum"))
    assert total == pytest.approx(each_TB[counts_TB].sum(), rel=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_masks_multiply_what_they_name(sizes: Sizes) -> None:
    """Input and output masks are linear in the embedding and before the decoder, so they can be moved there."""
    parameters, state, inputs_TB = parameters_of(sizes), random_state(sizes, 3), symbols(9, 3)
    base, _ = model.forward(sizes, parameters, state, inputs_TB)
    masks = {"input": torch.full((1, 3, 5), 2.0), "output": torch.full((9, 3, sizes.hidden[-1]), 0.5)}
    halved, _ = model.forward(sizes, parameters, state, inputs_TB, {"output": masks["output"]})
    bias = parameters["decoder.bias"]
    torch.testing.assert_close(halved - bias, (base - bias) / 2)
    doubled, _ = model.forward(sizes, parameters, state, inputs_TB, {"input": masks["input"]})
    louder = {name: value * (2 if "layer0.weight_input" in name else 1) for name, value in parameters.items()}
    torch.testing.assert_close(doubled, model.forward(sizes, louder, state, inputs_TB)[0])
    if len(sizes.hidden) > 1:
        hidden, after = model.forward(sizes, parameters, state, inputs_TB, {"hidden0": torch.zeros(1, 3, 7)})
        deaf = {name: value * (0 if "layer1.weight_input" in name else 1) for name, value in parameters.items()}
        expected, expected_after = model.forward(sizes, deaf, state, inputs_TB)
        torch.testing.assert_close(hidden, expected)
        torch.testing.assert_close(after[0], expected_after[0])  # the first layer's own state is not masked


@pytest.mark.parametrize("sizes", SIZES)
def test_two_windows_with_carried_state_are_one_long_window(sizes: Sizes) -> None:
    parameters, state, inputs_TB = parameters_of(sizes), random_state(sizes, 3), symbols(16, 3)
    whole_TBV, whole_after = model.forward(sizes, parameters, state, inputs_TB)
    first_TBV, between = model.forward(sizes, parameters, state, inputs_TB[:8])
    second_TBV, after = model.forward(sizes, parameters, between, inputs_TB[8:])
    torch.testing.assert_close(torch.cat([first_TBV, second_TBV]), whole_TBV, rtol=0, atol=1e-6)
    torch.testing.assert_close(after, whole_after, rtol=0, atol=1e-6)
    from_zero_TBV, _ = model.forward(sizes, parameters, model.zero_state(sizes, 3), inputs_TB[8:])
    assert not torch.allclose(from_zero_TBV[0], second_TBV[0], atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_no_gradient_reaches_into_the_window_before(cell: str) -> None:
    sizes = Sizes(cell, 11, 5, (7, 6))
    parameters = parameters_of(sizes)
    early, late = ({name: value.clone().requires_grad_() for name, value in parameters.items()} for _ in range(2))
    _, state = model.forward(sizes, early, model.zero_state(sizes, 3), symbols(4, 3))
    logits_TBV, _ = model.forward(sizes, late, model.detach_state(state), symbols(4, 3))
    decoder.of_logits(logits_TBV, symbols(4, 3)).backward()
    assert all(value.grad is None for value in early.values())
    assert all(value.grad is not None for value in late.values())


@pytest.mark.parametrize("cell", CELLS)
def test_fresh_streams_begin_with_a_zero_state_and_others_keep_theirs(cell: str) -> None:
    sizes = Sizes(cell, 11, 5, (7, 6))
    state = random_state(sizes, 3)
    after = model.reset_state(state, torch.tensor([False, True, False]))
    for layer, layer_after in zip(state, after, strict=True):
        for part, part_after in zip(layer, layer_after, strict=True):
            assert torch.equal(part_after[:, 1], torch.zeros_like(part[:, 1]))
            assert torch.equal(part_after[:, [0, 2]], part[:, [0, 2]])


@pytest.mark.parametrize("sizes", SIZES)
def test_count_parameters_is_the_real_count(sizes: Sizes) -> None:
    parameters = model.initialise(sizes, torch.Generator())
    assert model.count_parameters(sizes) == sum(value.numel() for value in parameters.values())
    assert {name: tuple(value.shape) for name, value in parameters.items()} == model.shapes(sizes)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_count_parameters_agrees_with_torch(cell: str, layers: int) -> None:
    sizes = Sizes.of(11, cell=cell, embedding_size=5, hidden_size=7, layers=layers, tied=False)
    module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](5, 7, layers)
    recurrent = sum(value.numel() for value in module.parameters())
    assert model.count_parameters(sizes) == 11 * 5 + recurrent + 11 * (7 + 1)


def test_tied_the_last_layer_has_the_size_of_the_embedding_and_there_is_no_decoder_weight() -> None:
    tied = Sizes.of(11, cell="lstm", embedding_size=5, hidden_size=7, layers=3, tied=True)
    assert tied.hidden == (7, 7, 5)
    assert "decoder.weight" not in model.initialise(tied, torch.Generator())
    assert Sizes.of(11, cell="lstm", embedding_size=5, hidden_size=7, layers=3, tied=False).hidden == (7, 7, 7)


@pytest.mark.parametrize("cell", CELLS)
def test_initial_values(cell: str) -> None:
    sizes = Sizes(cell, 11, 20, (30, 30))
    parameters = model.initialise(sizes, torch.Generator().manual_seed(0))
    assert 0.85 < float(parameters["embedding.weight"].std()) < 1.15
    assert 0.09 < float(parameters["decoder.weight"].abs().max()) <= 0.1
    assert not parameters["decoder.bias"].any()
    for layer, inputs in enumerate(sizes.inputs):
        glorot = math.sqrt(6 / (inputs + 30))
        assert 0.95 * glorot < float(parameters[f"layer{layer}.weight_input"].abs().max()) <= glorot
        for square in parameters[f"layer{layer}.weight_hidden"].chunk(GATES[cell]):
            torch.testing.assert_close(square @ square.T, torch.eye(30), atol=1e-5, rtol=0)
        biases = parameters[f"layer{layer}.bias_input"] + parameters[f"layer{layer}.bias_hidden"]
        gates = [1.0 if cell == "lstm" and gate == 1 else 0.0 for gate in range(GATES[cell])]
        assert torch.equal(biases, torch.tensor(gates).repeat_interleave(30))


@pytest.mark.parametrize(
    ("sizes", "standard_normal"),
    [
        (Sizes("lstm", model.FEW_SYMBOLS, 20, (30,)), True),
        (Sizes("lstm", model.FEW_SYMBOLS + 1, 20, (30,)), False),
        (Sizes("lstm", 50, 20, (20,), tied=True), False),
    ],
)
def test_an_embedding_begins_small_where_symbols_are_many_or_decode_as_well(
    sizes: Sizes, standard_normal: bool
) -> None:
    weight = model.initialise(sizes, torch.Generator().manual_seed(0))["embedding.weight"]
    assert abs(float(weight.std()) - (1.0 if standard_normal else 0.2 / math.sqrt(12))) < 0.05
    assert (float(weight.abs().max()) <= 0.1) is not standard_normal


@pytest.mark.parametrize("cell", CELLS)
def test_initial_values_as_torch_has_them(cell: str) -> None:
    parameters = model.initialise(
        Sizes(cell, 11, 20, (30,)), torch.Generator().manual_seed(0), scheme="uniform", forget_bias=2.0
    )
    for kind in ("weight_input", "weight_hidden", "bias_input", "bias_hidden"):
        for gate, values in enumerate(parameters[f"layer0.{kind}"].chunk(GATES[cell])):
            if cell == "lstm" and gate == 1 and "bias" in kind:
                assert torch.equal(values, torch.full((30,), 2.0 if kind == "bias_input" else 0.0))
            else:
                assert 0.75 * 30**-0.5 < float(values.abs().max()) <= 30**-0.5


def test_initial_values_depend_on_the_seed_alone() -> None:
    sizes = Sizes("lstm", 11, 5, (7,))
    one, again, other = (model.initialise(sizes, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["decoder.weight"], other["decoder.weight"])


@pytest.mark.parametrize("tied", [False, True])
def test_all_but_the_recurrence_maps_over_trials(tied: bool) -> None:
    """Two trials at once with masks, rates and strengths of their own equal two calls (loss and gradients)."""
    sizes = Sizes.of(11, cell="lstm", embedding_size=5, hidden_size=5, layers=1, tied=tied)
    trials = [parameters_of(sizes, seed) for seed in (0, 1)]
    rates = (
        regularizers.Dropout(input=0.5, output=0.2, embedding=0.1),
        regularizers.Dropout(input=0.1, output=0.6, embedding=0.3),
    )
    masks = [
        regularizers.draw_masks(sizes, rate, (6, 3), torch.Generator().manual_seed(seed))
        for seed, rate in enumerate(rates)
    ]
    strengths = [torch.tensor([1e-3, 0.0]), torch.tensor([0.1, 5e-3])]  # label smoothing, AR
    inputs_KTB, targets_KTB = symbols(2, 6, 3), symbols(2, 6, 3).flip(0)

    def loss(
        parameters: model.Parameters,
        masks: dict[str, torch.Tensor],
        strengths: torch.Tensor,
        inputs_TB: torch.Tensor,
        targets_TB: torch.Tensor,
    ) -> torch.Tensor:
        values_TBE = model.embed(parameters, inputs_TB, masks["input"], masks["embedding"])
        dropped_TBE = model.masked(torch.tanh(values_TBE), masks["output"])
        _, smoothed = decoder.smoothed(decoder.logits(parameters, dropped_TBE), targets_TB, strengths[0])
        return smoothed + strengths[1] * regularizers.activation(dropped_TBE, targets_TB.ge(0))

    gradient_and_loss = torch.func.grad_and_value(loss)
    stacked = (
        {name: torch.stack([trial[name] for trial in trials]) for name in trials[0]},
        {name: torch.stack([mask[name] for mask in masks]) for name in masks[0]},
        torch.stack(strengths),
    )
    gradients_K, loss_K = torch.func.vmap(gradient_and_loss)(*stacked, inputs_KTB, targets_KTB)
    for k in range(2):
        gradients, value = gradient_and_loss(trials[k], masks[k], strengths[k], inputs_KTB[k], targets_KTB[k])
        torch.testing.assert_close(loss_K[k], value, rtol=1e-6, atol=0)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradients_K[name][k], gradient, rtol=1e-5, atol=1e-8)
