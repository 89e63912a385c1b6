"""Optimizers against their formulas, schedules against closed forms."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from tune_rnn.optimization import PLATEAU_FACTOR, WARMUP, Optimizer, Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 200
CLOSED_FORMS = [
    *[("constant", step, 1.0) for step in (0, 100, 199)],
    ("cosine", 0, 1.0),
    ("cosine", 50, 0.5 * (1 + math.cos(math.pi / 4))),
    ("cosine", 100, 0.5),
    ("cosine", 200, 0.0),
    ("cosine", 250, 0.0),
    ("linear_warmup", 0, 1 / 20),
    ("linear_warmup", 9, 10 / 20),
    ("linear_warmup", 19, 1.0),
    ("linear_warmup", 199, 1.0),
    ("cosine_warmup", 0, 1 / 20),
    ("cosine_warmup", 9, 10 / 20),
    ("cosine_warmup", 19, 1.0),
    ("cosine_warmup", 20, 1.0),
    ("cosine_warmup", 110, 0.5),
    ("cosine_warmup", 200, 0.0),
    ("plateau", 199, 1.0),
]


@pytest.mark.parametrize(("name", "step", "expected"), CLOSED_FORMS)
def test_schedules(name: str, step: int, expected: float) -> None:
    assert WARMUP * STEPS == 20
    assert Schedule(name, 0.3, STEPS).rate(step) == pytest.approx(0.3 * expected, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear_warmup", "cosine_warmup", "plateau"])
@pytest.mark.parametrize("total", [1, 2, 5, 11, 1000])
def test_every_step_of_every_budget_has_a_rate(name: str, total: int) -> None:
    rates = [Schedule(name, 0.3, total).rate(step) for step in range(total)]
    assert all(0 < rate <= 0.3 for rate in rates)
    assert max(rates) == pytest.approx(0.3, rel=0.03)


def test_plateau_divides_the_rate_when_an_evaluation_did_not_improve() -> None:
    schedule = Schedule("plateau", 20.0, STEPS)
    for improved, expected in [(True, 20.0), (False, 5.0), (True, 5.0), (False, 1.25)]:
        schedule.observe(improved)
        assert schedule.rate(7) == expected
    assert PLATEAU_FACTOR == 4


@pytest.mark.parametrize("name", ["constant", "cosine", "linear_warmup", "cosine_warmup"])
def test_other_schedules_do_not_listen(name: str) -> None:
    schedule = Schedule(name, 20.0, STEPS)
    schedule.observe(improved=False)
    assert schedule.rate(50) == Schedule(name, 20.0, STEPS).rate(50)


def stepped(name: str, gradients: list[float], learning_rate: float = 0.1) -> float:
    parameter = torch.tensor([2.0], requires_grad=True)
    optimizer = Optimizer(name, [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient])
        optimizer.step(learning_rate)
    return float(parameter.detach())


GRADIENTS = [0.5, -0.2, 3.0]


def test_sgd_has_no_momentum() -> None:
    assert stepped("sgd", GRADIENTS) == pytest.approx(2.0 - 0.1 * sum(GRADIENTS))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam(name: str) -> None:
    value, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate(GRADIENTS, 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value -= 0.1 * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert stepped(name, GRADIENTS) == pytest.approx(value)


def test_rmsprop() -> None:
    value, square = 2.0, 0.0
    for gradient in GRADIENTS:
        square = 0.99 * square + 0.01 * gradient**2
        value -= 0.1 * gradient / (math.sqrt(square) + 1e-8)
    assert stepped("rmsprop", GRADIENTS) == pytest.approx(value)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam"])
def test_an_optimizer_goes_on_where_another_stood_and_passes_by_what_has_no_gradient(name: str) -> None:
    def numbers() -> list[torch.Tensor]:
        return [torch.tensor([2.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)]

    straight, first, second = numbers(), numbers(), numbers()
    one, before, after = (Optimizer(name, parameters) for parameters in (straight, first, second))
    for step, gradient in enumerate(GRADIENTS):
        if step == 2:
            after.load_state_dict(before.state_dict())
            with torch.no_grad():
                torch._foreach_copy_(second, first)
        for optimizer, parameters in ((one, straight), (before, first) if step < 2 else (after, second)):
            parameters[0].grad = torch.tensor([gradient])
            optimizer.step(0.1)
            assert parameters[0].grad is None
    assert torch.equal(straight[0], second[0])
    assert second[1].item() == 5.0


def test_training_does_not_load_pytorchs_compiler() -> None:
    """It would take a second and a half in each process that trains."""
    script = "import sys, tiny; tiny.training().train_step(); print([m for m in sys.modules if m == 'torch._dynamo'])"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=where, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
