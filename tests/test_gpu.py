"""On a CUDA device: the same model, the same protocol, and cuDNN's kernels as they want to be called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tune_rnn import decoder
from tune_rnn.checkpoint import load, save
from tune_rnn.exported import export, load_model
from tune_rnn.precision import prepare_process, resolve_precision
from tune_rnn.report import TrialBudget
from tune_rnn.training import Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

CELLS = ("rnn", "gru", "lstm")


def training(cell: str = "lstm", device: str = "cuda:0", **changes: Any) -> Training:
    """Two layers with every regulariser on; warnings are errors, so cuDNN finds the weights in one block."""
    prepare_process(1)
    config = tiny.config(
        model={"cell": cell, "layers": 2, "hidden_size": 16},
        regularizers={"l1": 1e-6, "l2": 1e-6, "clip_norm": 1.0, "weight_decay": 1e-3, **changes},
    )
    return Training(config, tiny.DATA, TrialBudget("epochs", (1.0, 2.0)), seed=3, device=device)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_learns_what_a_processor_learns(cell: str) -> None:
    """Without dropout, whose masks each device draws from a generator of its own kind."""
    on_gpu = [report.validation_loss for report in training(cell).run()]
    on_cpu = [report.validation_loss for report in training(cell, "cpu").run()]
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
@pytest.mark.parametrize("cell", CELLS)
def test_shorter_formats_come_close_to_fp32(cell: str, precision: str, tmp_path: Path) -> None:
    def of(precision: str) -> Training:
        numbers = {"precision": precision, "learning_rate": 1e-3}
        config = tiny.config(model={"cell": cell, "layers": 2, "hidden_size": 64}, training=numbers)
        return Training(config, tiny.DATA, TrialBudget("epochs", (1.0, 2.0)), seed=3, device="cuda:0")

    rounded = of(precision)
    *_, last = rounded.run()
    *_, exact = of("fp32").run()
    assert last.validation_loss == pytest.approx(exact.validation_loss, rel=0.02)
    assert last.validation_loss != exact.validation_loss, "the format was not in force"
    export(tmp_path / "best", rounded.sizes, rounded.best_parameters, tiny.VOCABULARY, {"precision": precision})
    assert load_model(tmp_path / "best", device="cuda:0").evaluate(tiny.DATA.validation) == last.best_loss


@pytest.mark.parametrize("cell", CELLS)
def test_auto_finds_an_answer_for_this_gpu(cell: str) -> None:
    assert resolve_precision("auto", torch.device("cuda"), [cell], 512) in ("fp32", "tf32", "fp16")


@pytest.mark.parametrize("cell", CELLS)
def test_an_exported_model_gives_exactly_the_reported_loss(cell: str, tmp_path: Path) -> None:
    trained = training(cell, input_dropout=0.1, output_dropout=0.2)
    *_, last = trained.run()
    metadata = {"precision": "fp32"}
    export(tmp_path / "best", trained.sizes, trained.best_parameters, tiny.VOCABULARY, metadata)
    again = load_model(tmp_path / "best", device="cuda:0")
    assert again.evaluate(tiny.DATA.validation) == last.best_loss


@pytest.mark.parametrize("cell", CELLS)
def test_training_goes_on_from_a_checkpoint(cell: str, tmp_path: Path) -> None:
    straight = training(cell, input_dropout=0.1)
    reports = straight.run()
    next(reports)
    save(straight, tmp_path)
    resumed = training(cell, input_dropout=0.1)
    load(resumed, tmp_path)
    assert next(resumed.run()).validation_loss == pytest.approx(next(reports).validation_loss, rel=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_weight_drop_leaves_the_weights_in_one_block(cell: str) -> None:
    """cuDNN's warning about weights that lie apart would be an error."""
    loss, _ = training(cell, weight_drop=0.5, embedding_dropout=0.1).train_step()
    assert loss.isfinite()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_blocks_of_logits_are_the_whole_on_a_gpu(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [report.validation_loss for report in training(label_smoothing=smoothing).run()]
    monkeypatch.setattr(decoder, "LARGE", 2)
    monkeypatch.setattr(decoder, "BLOCK", dict.fromkeys(("cpu", "cuda"), 8 * tiny.VOCABULARY.size))
    monkeypatch.setattr(decoder, "SMALLEST_BLOCK", 8)
    blocks = [report.validation_loss for report in training(label_smoothing=smoothing).run()]
    assert blocks == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("strengths", [{"zoneout_hidden": 0.1, "zoneout_cell": 0.2}, {"fraternal_dropout": 0.1}])
def test_what_is_slower_learns_too(strengths: dict[str, Any]) -> None:
    first, last = training(output_dropout=0.1, **strengths).run()
    assert first.validation_loss is not None
    assert last.validation_loss is not None
    assert last.validation_loss < first.validation_loss


def test_the_masks_of_a_step_are_drawn_on_the_gpu_and_the_same_each_time() -> None:
    first, second = (training(input_dropout=0.5).train_step()[0] for _ in range(2))
    assert first.device.type == "cuda"
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "strengths",
    [
        {},
        {"input_dropout": 0.3, "output_dropout": 0.3, "weight_drop": 0.3, "embedding_dropout": 0.1},
        {"gradient_noise": 0.01, "state_reset": 0.1, "clip_value": 0.1, "max_norm": 1.0},
        {"zoneout_hidden": 0.1, "zoneout_cell": 0.2},
        {"fraternal_dropout": 0.1, "output_dropout": 0.2},
        {"label_smoothing": 0.1, "activation": 1.0, "temporal_activation": 1.0},
    ],
)
@pytest.mark.parametrize(("optimizer", "precision"), [("adam", "fp32"), ("sgd", "fp16"), ("rmsprop", "tf32")])
def test_captured_steps_are_the_steps_kernel_by_kernel(
    optimizer: str, precision: str, strengths: dict[str, Any]
) -> None:
    """With masks drawn anew on each replay, a rate that changes, and state carried on."""
    captured, plain = (
        Training(
            tiny.config(
                model={"layers": 2, "hidden_size": 16},
                regularizers={"weight_decay": 1e-3, **strengths},
                training={"optimizer": optimizer, "precision": precision, "schedule": "cosine_warmup"},
            ),
            tiny.DATA,
            TrialBudget("epochs", (1.0, 2.0)),
            seed=3,
            device="cuda:0",
        )
        for _ in range(2)
    )
    plain.captured = None
    pairs = [(float(captured.train_step()[0]), float(plain.train_step()[0])) for _ in range(40)]
    assert captured.captured is not None
    assert captured.captured.graph is not None
    ours, expected = zip(*pairs, strict=True)
    assert ours == pytest.approx(expected, rel=1e-4 if precision == "fp32" else 1e-3)
    assert len(set(ours)) == len(ours)
