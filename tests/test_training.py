"""Training one configuration: reports, budgets, carried state, divergence, and going on bit for bit."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from tune_rnn import checkpoint, decoder, model
from tune_rnn.errors import TrialFailed
from tune_rnn.experiment import Experiment
from tune_rnn.report import Report, TrialBudget
from tune_rnn.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

DROPOUT = {"input_dropout": 0.2, "hidden_dropout": 0.2, "output_dropout": 0.2}
FROZEN = {"optimizer": "sgd", "learning_rate": 1e-30}  # steps are taken, parameters stay as they are
HUGE = {"optimizer": "sgd", "learning_rate": 1e6}


def untimed(report: Report) -> Report:
    return dataclasses.replace(report, training_s=0.0, tokens_per_second=0.0)


def outcome(one: Training) -> tuple[list[Report], dict[str, torch.Tensor]]:
    """All reports to come, without their times, and the parameters at the end."""
    reports = [untimed(report) for report in one.run()]
    return reports, {name: value.detach() for name, value in one.parameters.items()}


def assert_equal(one: Any, other: Any) -> None:
    """Bit for bit, through tensors, mappings and sequences."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, item_of_other in zip(one, other, strict=True):
            assert_equal(item, item_of_other)
    else:
        assert one == other


# Reports and budgets


def test_reports_say_what_happened() -> None:
    one = tiny.training(epochs=(0.5, 1.0, 2.0))
    reports = list(one.run())
    assert [report.spent for report in reports] == [0.5, 1.0, 2.0]
    assert [report.step for report in reports] == [16, 32, 64]
    assert reports[1].tokens == tiny.DATA.train.predictions == 1999
    assert reports[2].tokens == 2 * 1999
    assert [report.finished for report in reports] == ["", "", "budget"]
    losses = [report.validation_loss for report in reports]
    assert all(loss is not None and 0 < loss < tiny.DATA.baseline_loss for loss in losses)
    assert [report.improved for report in reports] == [True, True, True]
    for report in reports:
        assert report.best_loss == report.validation_loss
        assert report.train_loss is not None
        assert report.validation_loss is not None
        assert report.train_loss > report.validation_loss  # a mean over a time in which it fell
        assert report.learning_rate == 0.01
        assert report.gradient_norm is not None
        assert report.gradient_norm > 0
        assert report.training_s > 0
        assert report.tokens_per_second > 0
        assert Report.from_dict(report.to_dict() | {"others": 1}) == report
    assert reports[-1].validation_loss == one.evaluate()


def test_training_losses_and_gradient_norms_are_means_since_the_last_report() -> None:
    """Of predictions, and of steps; texts of 40 characters make full windows and others."""
    data = dataclasses.replace(tiny.DATA, train=tiny.split(2000, documents=50))
    budget = TrialBudget("epochs", (0.5, 1.0))
    training, steps = (Training(tiny.config(), data, budget, seed=0) for _ in range(2))
    for report in training.run():
        losses, norms, predictions = [], [], []
        while steps.step < report.step:
            before = steps.tokens
            loss, norm = steps.train_step()
            losses.append(float(loss))
            norms.append(float(norm))
            predictions.append(steps.tokens - before)
        assert len(set(predictions)) > 1
        assert report.train_loss == pytest.approx(np.average(losses, weights=predictions), rel=1e-6)
        assert report.gradient_norm == pytest.approx(np.mean(norms), rel=1e-6)


def test_the_best_loss_is_the_lowest_so_far_and_its_parameters_are_kept() -> None:
    one = tiny.training(epochs=tuple(n / 4 for n in range(1, 21)), training={"optimizer": "sgd", "learning_rate": 12.0})
    reports = list(one.run())
    losses = [report.validation_loss or math.inf for report in reports]
    assert [report.best_loss for report in reports] == [min(losses[: n + 1]) for n in range(len(losses))]
    assert [report.improved for report in reports] == [min(losses[: n + 1]) < min([*losses[:n], 99]) for n in range(20)]
    assert not reports[-1].improved
    for name, value in one.best_parameters.items():
        with torch.no_grad():
            one.parameters[name].copy_(value)
    assert one.evaluate() == min(losses)


@pytest.mark.parametrize(
    ("unit", "report_at", "steps"),
    [
        ("epochs", (0.25, 1.0), [8, 32]),
        ("epochs", (1.5, 2.0), [48, 64]),
        ("epochs", (1e-9,), [1]),
        ("tokens", (500.0, 1999.0), [8, 32]),
        ("tokens", (1.0, 3998.0), [1, 64]),
    ],
)
def test_budgets(unit: str, report_at: tuple[float, ...], steps: list[int]) -> None:
    reports = list(Training(tiny.config(), tiny.DATA, TrialBudget(unit, report_at), seed=0).run())
    assert [report.step for report in reports] == steps
    assert [report.spent for report in reports] == list(report_at)
    assert [report.finished for report in reports] == [""] * (len(steps) - 1) + ["budget"]


def test_a_report_without_a_step_of_its_own_has_no_training_loss() -> None:
    first, second = tiny.training(epochs=(0.5, 0.501)).run()
    assert (second.step, second.tokens) == (first.step, first.tokens)
    assert second.train_loss is second.gradient_norm is None
    assert second.validation_loss == first.validation_loss


@pytest.mark.parametrize(
    ("budget", "report_every", "scheduler", "expected"),
    [
        ({"epochs": 3}, None, {"algorithm": "none"}, (1, 2, 3)),
        ({"epochs": 2.5}, 1, {"algorithm": "none"}, (1, 2, 2.5)),
        ({"epochs": 8}, 4, {"first_rung": 1, "reduction_factor": 2}, (1, 2, 4, 8)),
        ({"epochs": 9}, 9, {"first_rung": 1}, (1, 3, 9)),
        (
            {"epochs": 2.7},
            0.3,
            {"first_rung": 0.9, "reduction_factor": 3},
            (0.3, 0.6, 0.9, *(0.3 * n for n in range(4, 9)), 2.7),
        ),
        ({"tokens": 1000}, 500, {"first_rung": 400, "reduction_factor": 2}, (400, 500, 800, 1000)),
    ],
)
def test_reports_come_at_regular_amounts_at_rungs_and_at_the_end(
    budget: dict[str, Any], report_every: float | None, scheduler: dict[str, Any], expected: tuple[float, ...]
) -> None:
    experiment = Experiment(name="budgets", budget=budget, scheduler=scheduler, training={"report_every": report_every})
    assert TrialBudget.of(experiment) == TrialBudget(experiment.budget.unit, expected)


def test_the_learning_rate_follows_the_schedule() -> None:
    one = tiny.training(epochs=(1.0, 2.0), training={"schedule": "cosine"})
    first, second = one.run()
    assert first.learning_rate == pytest.approx(0.01 * 0.5 * (1 + math.cos(math.pi * 31 / 64)))
    assert second.learning_rate == pytest.approx(0.01 * 0.5 * (1 + math.cos(math.pi * 63 / 64)))


def test_plateau_lowers_the_rate_after_the_report_that_did_not_improve() -> None:
    frozen = tiny.training(epochs=(0.1, 0.2, 0.3, 0.4), training=FROZEN | {"schedule": "plateau"})
    rates = [report.learning_rate for report in frozen.run()]
    assert rates == pytest.approx([1e-30, 1e-30, 1e-30 / 4, 1e-30 / 16], rel=1e-9, abs=0)


def test_patience_ends_a_trial_after_so_many_reports_without_improvement() -> None:
    frozen = tiny.training(epochs=(0.1, 0.2, 0.3, 0.4), training=FROZEN | {"patience": 2})
    reports = list(frozen.run())
    assert [report.finished for report in reports] == ["", "", "patience"]
    assert reports[-1].reason == "no improvement in 2 reports"


# Seeds


def test_the_seed_decides_everything() -> None:
    def trained(seed: int, windows: str) -> tuple[list[Report], dict[str, torch.Tensor]]:
        return outcome(tiny.training(seed=seed, regularizers=DROPOUT, training={"windows": windows}))

    for windows in ("streams", "variable", "random"):
        torch.manual_seed(0)
        one = trained(1, windows)
        torch.manual_seed(1)
        assert_equal(one, trained(1, windows))
        assert one[0][0].validation_loss != trained(2, windows)[0][0].validation_loss


GOLDEN = 2.331200


def test_a_golden_loss() -> None:
    """Seeded initial values, masks, schedule and step give this number; a change of it must be meant."""
    one = tiny.training(
        epochs=(2.0,),
        model={"layers": 2, "hidden_size": 16},
        regularizers=DROPOUT | {"l1": 1e-6, "l2": 1e-5, "weight_decay": 1e-2, "clip_norm": 0.5},
        training={"schedule": "cosine_warmup", "learning_rate": 0.02},
    )
    (report,) = one.run()
    assert report.validation_loss == pytest.approx(GOLDEN, rel=1e-4)


# Carried state


def test_state_is_carried_through_an_epoch_and_begins_anew_with_the_next() -> None:
    one = tiny.training(training=FROZEN)
    windows = one.windows
    state, losses = model.zero_state(one.sizes, 4), []
    for index in range(len(windows)):
        batch = windows.batch(index)
        logits_TBV, state = model.forward(one.sizes, one.parameters, state, torch.from_numpy(batch.inputs_TB))
        losses.append(float(decoder.of_logits(logits_TBV, torch.from_numpy(batch.targets_TB)).detach()))
    assert [float(one.train_step()[0]) for _ in range(32)] == pytest.approx(losses, rel=1e-6)
    assert [float(one.train_step()[0]) for _ in range(32)] == pytest.approx(losses, rel=1e-6)


def test_random_windows_are_fresh_and_drawn_anew_in_every_epoch() -> None:
    one = tiny.training(training=FROZEN | {"windows": "random"})
    losses = []
    for step in range(2 * len(one.windows)):
        batch, zeros = one.windows.batch(step), model.zero_state(one.sizes, 4)
        logits_TBV, _ = model.forward(one.sizes, one.parameters, zeros, torch.from_numpy(batch.inputs_TB))
        losses.append(float(decoder.of_logits(logits_TBV, torch.from_numpy(batch.targets_TB)).detach()))
        assert float(one.train_step()[0]) == pytest.approx(losses[-1], rel=1e-6)
    assert len(set(losses)) == len(losses)


def test_a_new_document_begins_with_a_fresh_state() -> None:
    """Documents of exactly one window: each loss is that of a zero state."""
    data = dataclasses.replace(tiny.DATA, train=tiny.split(17 * 40, documents=40))
    one = Training(tiny.config(training=FROZEN), data, TrialBudget("epochs", (1.0,)), seed=0)
    for index in range(len(one.windows)):
        batch, zeros = one.windows.batch(index), model.zero_state(one.sizes, 4)
        logits_TBV, _ = model.forward(one.sizes, one.parameters, zeros, torch.from_numpy(batch.inputs_TB))
        expected = float(decoder.of_logits(logits_TBV, torch.from_numpy(batch.targets_TB)).detach())
        assert float(one.train_step()[0]) == pytest.approx(expected, rel=1e-6)


def test_the_carried_state_has_no_history() -> None:
    one = tiny.training(model={"layers": 2})
    one.train_step()
    assert all(not part.requires_grad and part.grad_fn is None for layer in one.state for part in layer)
    assert all(bool(part.any()) for layer in one.state for part in layer)


# Divergence


def test_a_huge_learning_rate_diverges() -> None:
    (report,) = tiny.training(epochs=(1.0, 2.0), training=HUGE).run()
    assert report.finished == "diverged"
    assert report.validation_loss is report.train_loss is report.best_loss is None
    assert f"at step {report.step}" in report.reason
    assert "above twice the uniform loss" in report.reason
    assert not report.improved


def test_a_loss_that_is_no_number_diverges_at_the_next_look() -> None:
    one = tiny.training(epochs=(0.5, 10.0), regularizers={"clip_norm": 1.0})
    reports = []
    for report in one.run():
        reports.append(report)
        with torch.no_grad():
            one.parameters["decoder.bias"].fill_(math.nan)
    assert [report.finished for report in reports] == ["", "diverged"]
    assert reports[1].reason == "training loss became nan at step 25"
    assert reports[1].validation_loss is None
    assert reports[1].gradient_norm is None
    assert reports[1].best_loss == reports[0].validation_loss


def test_a_validation_loss_that_is_no_number_diverges_even_at_the_end_of_the_budget() -> None:
    one = tiny.training(epochs=(0.5,))
    with torch.no_grad():
        one.parameters["decoder.bias"].fill_(math.nan)
    (report,) = one.run()
    assert (report.finished, report.reason) == ("diverged", "validation loss became nan at step 16")


def test_in_the_first_twentieth_of_the_budget_a_high_loss_is_no_divergence() -> None:
    reports = list(tiny.training(epochs=(1.5, 100.0), training=HUGE).run())
    assert (reports[0].step, reports[0].finished) == (48, "")
    assert reports[0].validation_loss is not None
    assert reports[0].validation_loss > 2 * tiny.DATA.baseline_loss
    assert (reports[1].step, reports[1].finished) == (175, "diverged")  # the first look after step 160


# Checkpoints

OPTIMIZER_SCHEDULE_WINDOWS = [
    ("sgd", "plateau", "streams"),
    ("adam", "constant", "streams"),
    ("adam", "cosine", "random"),
    ("adamw", "linear_warmup", "streams"),
    ("rmsprop", "cosine_warmup", "random"),
    ("rmsprop", "cosine", "streams"),
]


@pytest.mark.parametrize(("optimizer", "schedule", "windows"), OPTIMIZER_SCHEDULE_WINDOWS)
@pytest.mark.parametrize("cut", [1, 4])
def test_a_training_goes_on_bit_for_bit(optimizer: str, schedule: str, windows: str, cut: int, tmp_path: Path) -> None:
    def begin() -> Training:
        rate = 12.0 if optimizer == "sgd" else 0.02
        return tiny.training(
            epochs=(0.3, 0.6, 1.0, 1.4, 1.7, 2.0),
            model={"layers": 2},
            regularizers=DROPOUT | {"l2": 1e-5, "weight_decay": 1e-3, "clip_norm": 1.0},
            training={"optimizer": optimizer, "schedule": schedule, "windows": windows, "learning_rate": rate},
        )

    straight = begin()
    reports, parameters = outcome(straight)
    if schedule == "plateau":
        assert straight.schedule.scale < 1, "or this row shows nothing"
    interrupted, continued = begin(), begin()
    for _, _report in zip(range(cut), interrupted.run(), strict=False):
        pass
    checkpoint.save(interrupted, tmp_path)
    checkpoint.load(continued, tmp_path)
    assert_equal(continued.state_dict(), interrupted.state_dict())
    assert_equal(outcome(continued), (reports[cut:], parameters))
    assert_equal(continued.state_dict(), straight.state_dict())


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_weights_that_are_taken_over_go_on_with_the_new_learning_rate_and_strengths(
    schedule: str, tmp_path: Path
) -> None:
    """As trials of a population do: nothing of the old ones is left in optimizer, schedule, masks or penalties."""
    sections: dict[str, Any] = {"regularizers": {"ema": 0.9}, "training": {"schedule": schedule}}
    changed: dict[str, Any] = {
        "regularizers": {"ema": 0.9, "input_dropout": 0.9, "weight_decay": 0.5},
        "training": {"schedule": schedule, "learning_rate": 0.05},
    }
    old, new, fresh = (
        tiny.training(epochs=(0.5, 1.0), seed=seed, **values)
        for seed, values in ((0, sections), (1, changed), (1, changed))
    )
    next(old.run())
    checkpoint.save(old, tmp_path)
    checkpoint.load(new, tmp_path)
    assert_equal(new.state_dict(), old.state_dict())
    new.train_step()
    old.train_step()
    assert new.learning_rate == pytest.approx(5 * old.learning_rate)
    assert new.learning_rate == fresh.schedule.rate(new.step - 1) * new.schedule.scale
    assert (new.dropout, new.config) == (fresh.dropout, fresh.config)
    assert next(new.run()).spent == 1.0


def test_a_checkpoint_is_tensors_and_plain_values(tmp_path: Path) -> None:
    one = tiny.training()
    list(one.run())
    checkpoint.save(one, tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert_equal(saved, one.state_dict())
    best = checkpoint.best_parameters(tmp_path / "checkpoint.pt")
    assert_equal(best, {name: value.detach() for name, value in one.parameters.items()})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_fails_the_trial_with_that_reason(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.new").symlink_to("/dev/full")
    with pytest.raises(TrialFailed, match="no space left on the disk for a checkpoint"):
        checkpoint.save(tiny.training(), tmp_path)


def test_a_checkpoint_that_cannot_be_written_for_another_reason_is_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        checkpoint.save(tiny.training(), tmp_path / "file")


def test_a_window_of_variable_length_has_its_share_of_the_learning_rate() -> None:
    one = tiny.training(training={"windows": "variable", "schedule": "constant"})
    for _ in range(20):
        length = one.windows.batch(one.step).inputs_TB.shape[0]
        one.train_step()
        assert one.learning_rate == pytest.approx(0.01 * length / 16)
    assert tiny.training(training={"windows": "variable"}, epochs=(1.0, 2.0)).total_steps == 2 * len(one.windows)
