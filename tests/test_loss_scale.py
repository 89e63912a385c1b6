"""What fp16 needs so that small gradients survive."""

from __future__ import annotations

import pytest
import torch

from tune_rnn import loss_scale
from tune_rnn.loss_scale import FIRST, LossScale

CPU = torch.device("cpu")


def test_gradients_are_divided_by_the_scale() -> None:
    scale, gradients = LossScale(CPU), [torch.full((2, 3), 8.0), torch.tensor([-2.0])]
    scale.unscale(gradients)
    assert torch.equal(gradients[0] * FIRST, torch.full((2, 3), 8.0))
    assert float(gradients[1]) == -2.0 / FIRST
    assert float(scale.scale) == FIRST


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_overflow_halves_the_scale_and_the_step_moves_nothing(bad: float) -> None:
    scale, gradients = LossScale(CPU), [torch.ones(2), torch.tensor([1.0, bad])]
    scale.unscale(gradients)
    assert all(not gradient.any() for gradient in gradients)
    assert float(scale.scale) == FIRST / 2


def test_the_scale_doubles_after_steady_steps_and_goes_on_from_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "STEADY", 3)
    first = LossScale(CPU)
    for _ in range(2):
        first.unscale([torch.ones(1)])
    assert float(first.scale) == FIRST
    second = LossScale(CPU)
    second.load_state_dict(first.state_dict())
    second.unscale([torch.ones(1)])
    assert float(second.scale) == 2 * FIRST
    assert int(second.steady) == 0
