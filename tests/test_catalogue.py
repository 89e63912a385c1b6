"""The table of regularisers: complete, the README's, and its ranges can be searched; what it says of packs holds.

Shapes: T time steps, B streams, V symbols.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils._pytree import tree_map

from tune_rnn import catalogue, model, regularizers
from tune_rnn.advice import DEAR
from tune_rnn.catalogue import CATALOGUE
from tune_rnn.experiment import Experiment
from tune_rnn.objective import forward_pass, objective
from tune_rnn.recurrence import Zoneout, stepwise
from tune_rnn.schema import Regularizers
from tune_rnn.training import Training

README = Path(__file__).resolve().parents[1] / "README.md"


def test_every_regulariser_has_a_row() -> None:
    keys = [entry.key for entry in CATALOGUE]
    assert {key for key in keys if key.startswith("regularizers.")} == {
        f"regularizers.{name}" for name in Regularizers.model_fields
    }
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert len(entry.costs) == 4
        assert any(entry.costs), f"{entry.name} has not been measured"
        assert entry.fused or max(entry.costs) > DEAR


def test_the_readme_has_the_table() -> None:
    assert catalogue.markdown() in README.read_text("utf-8"), "python -m tune_rnn.catalogue prints it"


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: str(entry.name))
def test_its_range_can_be_searched(entry: catalogue.Entry) -> None:
    section, _, name = entry.key.partition(".")
    beside = ", output_dropout: 0.1" if name == "fraternal_dropout" else ""
    study = "name: x\nbudget: {epochs: 1, trials: 2}\ntraining: {optimizer: sgd}\n"
    experiment = Experiment.from_yaml_text(f"{study}{section}: {{{name}: {entry.search}{beside}}}\n")
    assert list(experiment.space.shared) == [entry.key]
    if entry.value is not None:
        assert experiment.allows(entry.key, entry.value)


BESIDE: dict[str, dict[str, float]] = {
    "regularizers.locked_dropout": {"input_dropout": 0.2},
    "regularizers.fraternal_dropout": {"output_dropout": 0.2},
}
"""What a regulariser acts through."""

Draws = tuple[list[dict[str, torch.Tensor]], torch.Tensor, torch.Tensor]
"""Of one trial: masks of each pass, streams that begin anew, the regulariser's strength."""


@pytest.mark.parametrize("entry", [entry for entry in CATALOGUE if entry.pack], ids=lambda entry: str(entry.name))
def test_what_works_in_a_pack_maps_over_trials(entry: catalogue.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials at once, each with its own strength, equal two calls: loss and all gradients, fused kernels aside."""

    def unfused(cell: str, weights: Any, inputs_TBI: torch.Tensor, state: Any) -> Any:
        return stepwise(cell, weights, inputs_TBI, state, Zoneout())

    monkeypatch.setattr(model, "fused", unfused)
    section, _, name = entry.key.partition(".")
    values = (0.2, 0.4) if entry.value is None else (entry.value, entry.value)
    sections: dict[str, dict[str, Any]] = {"regularizers": {**BESIDE.get(entry.key, {})}, "model": {"layers": 2}}
    both = ({**sections, section: {**sections[section], name: value}} for value in values)
    one, other = (tiny.training(model=each["model"], regularizers=each["regularizers"]) for each in both)
    batch = one.windows.batch(0)
    inputs_TB, targets_TB = torch.from_numpy(batch.inputs_TB), torch.from_numpy(batch.targets_TB)
    shape_TB = (inputs_TB.shape[0], inputs_TB.shape[1])

    def drawn(trial: Training, seed: int) -> Draws:
        generator, strengths = torch.Generator().manual_seed(seed), trial.config.regularizers
        passes = 2 if strengths.fraternal_dropout > 0 else 1
        masks = [regularizers.draw_masks(trial.sizes, trial.dropout, shape_TB, generator) for _ in range(passes)]
        fresh_B = torch.zeros(shape_TB[1], dtype=torch.bool)
        strength = torch.tensor(float(getattr(strengths, name, 0.0)))
        return masks, regularizers.reset_some(fresh_B, strengths.state_reset, generator), strength

    def loss(parameters: model.Parameters, draws: Draws) -> torch.Tensor:
        masks, fresh_B, strength = draws
        carried = tuple(tuple(part + 0.3 for part in layer) for layer in model.zero_state(one.sizes, shape_TB[1]))
        state = model.reset_state(carried, fresh_B)
        passes = [forward_pass(one.sizes, parameters, state, inputs_TB, each) for each in masks]
        strengths = one.config.regularizers
        if name in ("activation", "temporal_activation", "label_smoothing", "fraternal_dropout"):
            strengths = strengths.model_copy(update={name: strength})
        return objective(parameters, passes, targets_TB, strengths)[1]

    trials = [model.initialise(one.sizes, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    draws = [drawn(one, 2), drawn(other, 3)]
    stacked = [tree_map(lambda *each: torch.stack(each), *both) for both in (trials, draws)]
    gradient_and_loss = torch.func.grad_and_value(loss)
    gradients_K, loss_K = torch.func.vmap(gradient_and_loss)(*stacked)
    for k in range(2):
        gradients, value = gradient_and_loss(trials[k], draws[k])
        torch.testing.assert_close(loss_K[k], value, rtol=1e-5, atol=0)
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(gradients_K[parameter][k], gradient, rtol=1e-4, atol=1e-7)
