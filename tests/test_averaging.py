"""Averages of the weights: what they are, when they begin, what is evaluated and kept, and that training resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tune_rnn.checkpoint import best_parameters, load, save
from tune_rnn.regularizers import Averaging
from tune_rnn.report import CHECKPOINT
from tune_rnn.schema import Regularizers
from tune_rnn.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")


def averaged(values: list[float], total_steps: int = 10, **strengths: Any) -> list[float | None]:
    """The average after each of a single weight's values."""
    averaging, found = Averaging(Regularizers(**strengths), total_steps), []
    for step, value in enumerate(values, start=1):
        averaging.update({"w": torch.tensor([value], dtype=torch.float64)}, step)
        found.append(float(averaging.parameters["w"]) if averaging.parameters else None)
    return found


def test_without_a_strength_there_is_no_average() -> None:
    assert averaged([1.0, 2.0]) == [None, None]
    averaging = Averaging(Regularizers(), 10)
    weights = {"w": torch.ones(1)}
    assert averaging.evaluated(weights) is weights
    assert not averaging.listens


def test_swa_is_the_mean_of_the_last_steps() -> None:
    values = [float(step**2) for step in range(1, 11)]
    found = averaged(values, swa=0.3)
    assert found[:7] == [None] * 7
    assert found[7:] == pytest.approx([64, (64 + 81) / 2, (64 + 81 + 100) / 3])


def test_ema_is_exponential_with_a_short_memory_at_first() -> None:
    values = [float(step) for step in range(1, 31)]
    found = averaged(values, ema=0.5)
    expected = values[0]
    for count, (value, average) in enumerate(zip(values, found, strict=True), start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if count == 1 else decay * expected + (1 - decay) * value
        assert average == pytest.approx(expected)


@pytest.mark.parametrize(
    ("interval", "losses", "begins_after"),
    [
        (1, [5, 4, 3, 2, 1], None),
        (1, [5, 4, 4.5], None),
        (1, [5, 4, 4.5, 4.6], 4),
        (1, [5, 6], None),
        (1, [5, 6, 6.1], 3),
        (2, [5, 4, 4.5, 4.6], None),
        (2, [5, 4, 4.5, 4.6, 4.7], 5),
        (2, [5, 4, 4.5, 3.9, 4.6], 5),
        (2, [5, 4, 3.9, 3.8, 3.7, 3.75, 3.85], 7),
    ],
)
def test_nt_asgd_begins_when_the_best_is_older_than_its_interval(
    interval: int, losses: list[float], begins_after: int | None
) -> None:
    """Merity et al. 2018, algorithm 1: v > min(logs[:-n]), with more than n losses in the log."""
    averaging = Averaging(Regularizers(nt_asgd=interval), 10**6)
    for report, loss in enumerate(losses, start=1):
        assert averaging.listens
        averaging.observe(loss, step=100 * report)
    assert averaging.first_step == (math.inf if begins_after is None else 100 * begins_after)
    assert averaging.listens == (begins_after is None)


RATES = (6.0, 10.0, 15.0)
"""So high that the loss soon goes up and down; which is enough depends on how a processor rounds."""


def nt_asgd(epochs: int = 6, rate: float = RATES[0]) -> Training:
    training = {"optimizer": "sgd", "learning_rate": rate}
    return tiny.training(tuple(map(float, range(1, epochs + 1))), training=training, regularizers={"nt_asgd": 1})


def test_nt_asgd_evaluates_the_average_and_trains_on_with_the_weights() -> None:
    for rate in RATES:
        training = nt_asgd(8, rate)
        reports = [*training.run()]
        if reports[-1].step > training.averaging.first_step:
            break
    plain = tiny.training(
        tuple(map(float, range(1, 9))), training={"optimizer": "sgd", "learning_rate": rate, "precision": "fp32"}
    )
    others = [*plain.run()]
    began = next(number for number, report in enumerate(reports) if report.step > training.averaging.first_step)
    assert 0 < began < 8
    losses = [report.validation_loss for report in reports]
    theirs = [report.validation_loss for report in others]
    assert losses[:began] == theirs[:began]
    assert losses[began] != theirs[began]
    for name, value in training.parameters.items():
        assert torch.equal(value, plain.parameters[name]), "averaging does not change what is trained"


@pytest.mark.parametrize("strengths", [{"ema": 0.95}, {"swa": 0.6}, {"nt_asgd": 1}], ids=lambda row: next(iter(row)))
def test_training_goes_on_bit_for_bit_with_its_average(strengths: dict[str, Any], tmp_path: Path) -> None:
    def new() -> Training:
        sections = {"optimizer": "sgd", "learning_rate": 6.0}
        return tiny.training(tuple(map(float, range(1, 9))), training=sections, regularizers=strengths)

    straight = [report.validation_loss for report in new().run()]
    broken = new()
    before = [report.validation_loss for _, report in zip(range(6), broken.run(), strict=False)]
    save(broken, tmp_path)
    resumed = new()
    load(resumed, tmp_path)
    assert before + [report.validation_loss for report in resumed.run()] == straight


def test_what_is_kept_is_what_was_evaluated(tmp_path: Path) -> None:
    training = tiny.training(regularizers={"ema": 0.95})
    (report,) = training.run()
    assert training._evaluate(training.best_parameters) == report.validation_loss == report.best_loss
    assert training._evaluate(training.parameters) != report.validation_loss
    save(training, tmp_path)
    kept = best_parameters(tmp_path / CHECKPOINT)
    assert all(torch.equal(kept[name], value) for name, value in training.best_parameters.items())
