"""bf16 where it is possible and faster, fp32 elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tune_rnn import model, precision
from tune_rnn.errors import InputError, TrialFailed

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _tried_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_bf16", precision._has_bf16.__wrapped__)


@pytest.fixture
def bf16_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without oneDNN, PyTorch has slow bf16 kernels for every processor."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


@pytest.fixture
def bf16_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor for which oneDNN has no bf16."""
    forward: Callable[..., Any] = model.forward

    def refuse(*arguments: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive descriptor")
        return forward(*arguments)

    monkeypatch.setattr(model, "forward", refuse)


@pytest.mark.parametrize(
    ("fp32_s", "bf16_s", "expected"),
    [(1.0, None, "fp32"), (1.0, 1.5, "fp32"), (1.0, 0.95, "fp32"), (1.0, 0.5, "bf16")],
)
def test_auto_takes_bf16_where_it_is_clearly_faster(
    fp32_s: float, bf16_s: float | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"fp32": fp32_s, "bf16": bf16_s}
    monkeypatch.setattr(precision, "_step_seconds", lambda name, *_, **__: seconds[name])
    monkeypatch.setattr(precision, "computes_bf16", lambda: True)
    assert precision.resolve_precision("auto", CPU, ["lstm"]) == expected


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.usefixtures("bf16_nowhere")
def test_auto_is_fp32_where_bf16_is_impossible(cell: str) -> None:
    assert precision.resolve_precision("auto", CPU, [cell]) == "fp32"
    assert precision.is_available("fp32", CPU, cell)
    assert not precision.is_available("bf16", CPU, cell)


@pytest.mark.parametrize(
    ("features", "expected"),
    [("flags : avx2 avx512_bf16", "bf16"), ("flags : avx2 avx512f", "fp32"), ("Features : asimd bf16", "bf16")],
)
def test_a_processor_without_bf16_is_not_believed_to_be_faster_with_it(
    features: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was timed: on a busy machine it may be anything."""
    monkeypatch.setattr(precision, "_step_seconds", lambda name, *_, **__: 1.0 if name == "fp32" else 0.5)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: features)
    assert precision.resolve_precision("auto", CPU, ["lstm"]) == expected


def test_auto_finds_an_answer_on_this_machine() -> None:
    assert precision.resolve_precision("auto", CPU, ["lstm", "gru", "rnn"]) in ("fp32", "bf16")


def test_auto_takes_bf16_only_where_it_is_faster_for_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {("fp32", "lstm"): 1.0, ("bf16", "lstm"): 0.5, ("fp32", "gru"): 1.0, ("bf16", "gru"): 1.0}
    monkeypatch.setattr(precision, "_step_seconds", lambda name, _, cell, *__, **___: seconds[name, cell])
    monkeypatch.setattr(precision, "computes_bf16", lambda: True)
    assert precision.resolve_precision("auto", CPU, ["lstm"]) == "bf16"
    assert precision.resolve_precision("auto", CPU, ["lstm", "gru"]) == "fp32"


def test_a_gpu_that_torch_does_not_see_has_fp32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = torch.device("cuda")
    assert precision.resolve_precision("auto", gpu, ["lstm"]) == "fp32"
    assert precision.resolve_precision("fp32", gpu, ["lstm"]) == "fp32"
    with pytest.raises(InputError, match="cell lstm cannot train with bf16 on this cuda"):
        precision.resolve_precision("bf16", gpu, ["lstm"])


@pytest.mark.parametrize(
    ("capability", "seconds", "expected"),
    [
        ((9, 0), {"fp32": 1.0, "tf32": 0.8, "fp16": 0.5}, "fp16"),
        ((9, 0), {"fp32": 1.0, "tf32": 0.8, "fp16": 1.5}, "tf32"),
        ((9, 0), {"fp32": 1.0, "tf32": 0.95, "fp16": 1.5}, "fp32"),
        ((7, 5), {"fp32": 1.0, "tf32": 0.4, "fp16": 0.5}, "fp16"),
        ((6, 1), {"fp32": 1.0, "tf32": 0.5, "fp16": 0.5}, "fp32"),
    ],
)
def test_auto_on_a_gpu_takes_what_is_fastest_for_the_largest_model(
    capability: tuple[int, int], seconds: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = set[int]()

    def step_seconds(name: str, device: torch.device, cell: str, hidden: int) -> float:
        timed.add(hidden)
        return seconds[name]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(precision, "_step_seconds", step_seconds)
    assert precision.resolve_precision("auto", torch.device("cuda"), ["lstm"], 650) == expected
    assert timed <= {650}


def test_tf32_is_refused_on_a_processor() -> None:
    with pytest.raises(InputError, match=r"^training\.precision: 'tf32': is for GPUs\. Write auto, bf16 or fp32\."):
        precision.resolve_precision("tf32", CPU, ["lstm"])


@pytest.mark.usefixtures("bf16_nowhere")
def test_a_stated_bf16_that_is_impossible_is_refused() -> None:
    with pytest.raises(InputError, match=r"^training\.precision: 'bf16': cell gru cannot train with bf16 on this cpu"):
        precision.resolve_precision("bf16", CPU, ["gru"])


@pytest.mark.usefixtures("bf16_nowhere")
def test_a_trial_that_states_an_impossible_bf16_fails_with_that_reason() -> None:
    with pytest.raises(TrialFailed, match="cell lstm cannot train with bf16 on this cpu"):
        tiny.training(training={"precision": "bf16"})


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.usefixtures("bf16_everywhere")
def test_training_with_bf16_comes_close_to_fp32(cell: str) -> None:
    def trained(precision: str) -> tuple[Any, Any]:
        one = tiny.training(
            model={"cell": cell, "layers": 2},
            training={"precision": precision},
            regularizers={"output_dropout": 0.1, "l2": 1e-5, "clip_norm": 1.0},
        )
        assert all(value.dtype == torch.float32 for value in one.parameters.values())
        (report,) = one.run()
        assert all(value.dtype == torch.float32 for value in one.parameters.values())
        assert all(part.dtype == torch.float32 for layer in one.state for part in layer)
        return report.train_loss, report.validation_loss

    exact, rounded = trained("fp32"), trained("bf16")
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact, "bf16 was not in force"


def test_denormal_numbers_are_zero_in_a_prepared_process() -> None:
    precision.prepare_process(1)
    assert torch.get_num_threads() == 1
    assert float(torch.tensor(1e-40) * torch.tensor(1.0)) == 0
