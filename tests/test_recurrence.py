"""The recurrence step by step against the fused kernels and the formulas of what acts inside it.

Shapes: T time steps, B streams, I input size, H hidden size, G gates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from tune_rnn import model, regularizers
from tune_rnn.exported import export, load_model
from tune_rnn.model import Sizes
from tune_rnn.recurrence import GATES, Zoneout, _product, fused, in_one_block, stepwise
from tune_rnn.regularizers import Dropout

pytestmark = pytest.mark.usefixtures("one_thread")

CELLS = ("rnn", "gru", "lstm")
T, B, I, H = 6, 3, 5, 7  # noqa: E741 (I is the input size)


def layer(cell: str, norm: bool = False) -> dict[str, torch.Tensor]:
    """Weights of one layer, none of them zero or one."""
    sizes = Sizes(cell, 11, I, (H,), layer_norm="cell" if norm else "none")
    generator = torch.Generator().manual_seed(0)
    return {
        name.removeprefix("layer0."): torch.empty(shape).uniform_(-0.8, 0.8, generator=generator)
        for name, shape in model.shapes(sizes).items()
        if name.startswith("layer0.")
    }


def inputs_and_state(cell: str) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    parts = 2 if cell == "lstm" else 1
    return torch.randn(T, B, I, generator=generator), tuple(
        torch.randn(1, B, H, generator=generator) for _ in range(parts)
    )


def masks(cell: str, rate: float, shape: tuple[int, ...] = (T, B, H)) -> Zoneout:
    generator = torch.Generator().manual_seed(2)
    hidden, memory = (torch.rand(shape, generator=generator).lt(rate).float() for _ in range(2))
    return Zoneout(hidden, memory if cell == "lstm" else None)


@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_is_what_the_kernels_do(cell: str) -> None:
    weights, (inputs_TBI, state) = layer(cell), inputs_and_state(cell)
    expected_TBH, expected_after = fused(cell, weights, inputs_TBI, state)
    outputs_TBH, after = stepwise(cell, weights, inputs_TBI, state, Zoneout())
    torch.testing.assert_close(outputs_TBH, expected_TBH)
    torch.testing.assert_close(after, expected_after)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_in_one_block_are_the_same_and_gradients_reach_the_old_ones(cell: str) -> None:
    weights, (inputs_TBI, state) = layer(cell), inputs_and_state(cell)
    for weight in weights.values():
        weight.requires_grad_()
    block = in_one_block(weights)
    ends = [value.data_ptr() + 4 * value.numel() for value in block.values()]
    assert [value.data_ptr() for value in block.values()][1:] == ends[:-1]
    expected = torch.autograd.grad(fused(cell, weights, inputs_TBI, state)[0].square().sum(), list(weights.values()))
    found = torch.autograd.grad(fused(cell, block, inputs_TBI, state)[0].square().sum(), list(weights.values()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_of_nothing_changes_nothing_and_of_everything_keeps_the_state(cell: str) -> None:
    weights, (inputs_TBI, state) = layer(cell), inputs_and_state(cell)
    expected_TBH, _ = fused(cell, weights, inputs_TBI, state)
    outputs_TBH, _ = stepwise(cell, weights, inputs_TBI, state, masks(cell, 0.0))
    torch.testing.assert_close(outputs_TBH, expected_TBH)
    outputs_TBH, after = stepwise(cell, weights, inputs_TBI, state, masks(cell, 1.1))
    torch.testing.assert_close(outputs_TBH, state[0].expand(T, B, H))
    torch.testing.assert_close(after, state)


Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def normalised(x: Array, gain: Array, bias: Array | float = 0.0) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * gain + bias


def reference(cell: str, w: dict[str, Array], x_TBI: Array, state: list[Array], keep: list[Array]) -> Array:
    """Outputs by the formulas of Ba et al. 2016 (for all cells as for the LSTM) and Krueger et al. 2017."""
    outputs = []
    for step, x in enumerate(x_TBI):
        from_input = normalised(x @ w["weight_input"].T, w["gain_input"]) + w["bias_input"]
        from_hidden = normalised(state[0] @ w["weight_hidden"].T, w["gain_hidden"]) + w["bias_hidden"]
        inputs, hiddens = (np.split(both, GATES[cell], axis=-1) for both in (from_input, from_hidden))
        if cell == "rnn":
            new = [np.tanh(inputs[0] + hiddens[0])]
        elif cell == "gru":
            reset, update = sigmoid(inputs[0] + hiddens[0]), sigmoid(inputs[1] + hiddens[1])
            new = [(1 - update) * np.tanh(inputs[2] + reset * hiddens[2]) + update * state[0]]
        else:
            i, f, g, o = (one + other for one, other in zip(inputs, hiddens, strict=True))
            memory = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
            new = [sigmoid(o) * np.tanh(normalised(memory, w["gain_cell"], w["bias_cell"])), memory]
        pairs = zip(keep, state, new, strict=True)
        state = [mask[step] * old + (1 - mask[step]) * fresh for mask, old, fresh in pairs]
        outputs.append(state[0])
    return np.stack(outputs)


@pytest.mark.parametrize("cell", CELLS)
def test_normalisation_and_zoneout_are_their_formulas(cell: str) -> None:
    weights, (inputs_TBI, state), zoneout = layer(cell, norm=True), inputs_and_state(cell), masks(cell, 0.4)
    outputs_TBH, _ = stepwise(cell, weights, inputs_TBI, state, zoneout)
    keep = [mask.double().numpy() for mask in (zoneout.hidden, zoneout.cell) if mask is not None]
    expected_TBH = reference(
        cell,
        {name: value.double().numpy() for name, value in weights.items()},
        inputs_TBI.double().numpy(),
        [part[0].double().numpy() for part in state],
        keep,
    )
    np.testing.assert_allclose(outputs_TBH.numpy(), expected_TBH, atol=2e-5)


def test_normalisation_between_layers_acts_on_all_outputs_but_the_last() -> None:
    sizes = Sizes("lstm", 11, 5, (7, 6), layer_norm="between")
    parameters = model.initialise(sizes, torch.Generator().manual_seed(0))
    assert {name for name in parameters if "gain" in name} == {"layer0.gain"}
    inputs_TB, state = torch.arange(12).reshape(4, 3) % 11, model.zero_state(sizes, 3)
    mask_TBH = torch.full((1, 3, 7), 0.5)
    found_TBH, _ = model.encode(sizes, parameters, state, inputs_TB, {"hidden0": mask_TBH})
    first_TBH, _ = model.recur(sizes, parameters, 0, model.embed(parameters, inputs_TB), state[0], {})
    between_TBH = torch.nn.functional.layer_norm(first_TBH, (7,)) * mask_TBH
    expected_TBH, _ = model.recur(sizes, parameters, 1, between_TBH, state[1], {})
    torch.testing.assert_close(found_TBH, expected_TBH)


@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_maps_over_trials(cell: str) -> None:
    weights, (inputs_TBI, state), zoneout = layer(cell, norm=True), inputs_and_state(cell), masks(cell, 0.3)
    assert zoneout.hidden is not None

    def outputs(scale: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        scaled = {name: value * scale for name, value in weights.items()}
        return stepwise(cell, scaled, inputs_TBI, state, Zoneout(hidden, zoneout.cell))[0]

    scales, hiddens = torch.tensor([1.0, 0.5]), torch.stack([zoneout.hidden, 1 - zoneout.hidden])
    both = torch.func.vmap(outputs)(scales, hiddens)
    for k in range(2):
        torch.testing.assert_close(both[k], outputs(scales[k], hiddens[k]))


def test_zoneout_masks_are_drawn_at_their_rates_for_each_step_and_expected_in_evaluation() -> None:
    sizes, dropout = Sizes("lstm", 11, 5, (300, 200)), Dropout(zoneout_hidden=0.1, zoneout_cell=0.5)
    drawn = regularizers.draw_masks(sizes, dropout, (20, 10), torch.Generator().manual_seed(0))
    rates = {"zoneout_hidden0": 0.1, "zoneout_cell0": 0.5, "zoneout_hidden1": 0.1, "zoneout_cell1": 0.5}
    assert set(drawn) == set(rates)
    expected = regularizers.expected_masks(sizes, dropout, torch.device("cpu"))
    for name, rate in rates.items():
        assert drawn[name].shape == (20, 10, 300 if name.endswith("0") else 200)
        assert set(drawn[name].flatten().tolist()) == {0, 1}
        assert float(drawn[name].mean()) == pytest.approx(rate, abs=0.01)
        assert not torch.equal(drawn[name][0], drawn[name][1])
        assert expected[name].flatten().tolist() == pytest.approx([rate])


@pytest.mark.parametrize(
    "sections",
    [
        {"regularizers": {"zoneout_hidden": 0.2, "zoneout_cell": 0.3}},
        {"regularizers": {"zoneout_hidden": 0.2}, "model": {"cell": "gru", "layers": 2}},
        {"model": {"layer_norm": "cell"}},
        {"model": {"layer_norm": "between", "layers": 2}},
    ],
)
def test_a_model_with_it_learns_and_is_evaluated_the_same_after_export(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    one = tiny.training(epochs=(8.0,), training={"learning_rate": 0.03}, **sections)
    (report,) = one.run()
    assert report.validation_loss is not None
    assert report.validation_loss < 0.5 * tiny.DATA.baseline_loss
    metadata: dict[str, Any] = {"precision": "fp32", "config": one.config.to_dict()}
    export(tmp_path / "best", one.sizes, one.parameters, tiny.VOCABULARY, metadata)
    assert load_model(tmp_path / "best").evaluate(tiny.DATA.validation) == report.validation_loss
    if "regularizers" in sections:  # without zoneout's expected state it is another model
        export(tmp_path / "best", one.sizes, one.parameters, tiny.VOCABULARY, {"precision": "fp32"})
        assert load_model(tmp_path / "best").evaluate(tiny.DATA.validation) != report.validation_loss


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_what_acts_inside_works_in_bf16_and_normalises_in_fp32(cell: str) -> None:
    """No LSTM: oneDNN, which its evaluation without zoneout would call, has bf16 on some processors only."""
    weights, (inputs_TBI, state) = layer(cell, norm=True), inputs_and_state(cell)
    exact_TBH, _ = stepwise(cell, weights, 100 * inputs_TBI, state, Zoneout())
    with torch.autocast("cpu", torch.bfloat16):
        outputs_TBH, after = stepwise(cell, weights, 100 * inputs_TBI, state, masks(cell, 0.0))
        normalised_BG = _product(100 * inputs_TBI[0], weights, "input")
    assert {part.dtype for part in after} == {normalised_BG.dtype} == {torch.float32}
    torch.testing.assert_close(outputs_TBH, exact_TBH, atol=0.05, rtol=0.05)


def test_kernels_are_fused_unless_something_acts_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(*arguments: Any) -> Any:
        calls.append("stepwise")
        return stepwise(*arguments)

    monkeypatch.setattr(model, "stepwise", counted)
    everything = {"input_dropout": 0.1, "hidden_dropout": 0.1, "weight_drop": 0.1, "embedding_dropout": 0.1, "l1": 1e-3}
    tiny.training(model={"layers": 2, "layer_norm": "between"}, regularizers=everything).train_step()
    assert calls == []
    tiny.training(regularizers={"zoneout_hidden": 0.1}).train_step()
    assert calls == ["stepwise"]
