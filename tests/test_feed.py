"""A GPU cuts its windows itself: here on the processor, against the windows that numpy cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch

from tune_rnn import feed, model
from tune_rnn.data import RandomWindows, StreamWindows, VariableWindows

CPU = torch.device("cpu")
SPLIT = tiny.split(500, documents=7)


@pytest.mark.parametrize(
    "windows",
    [
        StreamWindows(SPLIT, 4, 16),
        RandomWindows(SPLIT, 4, 16, seed=1),
        VariableWindows(SPLIT, 4, 16, seed=1),
        StreamWindows(SPLIT, 4, 16, "joined"),
    ],
)
def test_windows_cut_on_a_device_are_those_that_numpy_cuts(windows: Any) -> None:
    symbols_N = feed.resident(windows.tokens, CPU)
    for index in range(2 * len(windows)):
        spans, batch = windows.spans(index), windows.batch(index)
        inputs_TB, targets_TB, fresh_B = feed.cut(symbols_N, feed.upload(spans, CPU), spans.steps)
        assert torch.equal(inputs_TB, torch.from_numpy(batch.inputs_TB))
        assert torch.equal(targets_TB, torch.from_numpy(batch.targets_TB))
        assert torch.equal(fresh_B, torch.from_numpy(batch.fresh_B))


@pytest.mark.parametrize(("kind", "largest"), [("u1", 255), ("<u2", 65_535), ("<u4", 2**32 - 1)])
def test_symbols_of_every_size_survive_their_signed_types(kind: str, largest: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(feed, "PIECE", 2)
    tokens = np.array([0, 1, largest // 2, largest // 2 + 1, largest], dtype=kind)
    tokens.flags.writeable = False
    spans_3B = torch.tensor([[0], [4], [1]])
    inputs_TB, targets_TB, _ = feed.cut(feed.resident(tokens, CPU), spans_3B, 4)
    assert [*inputs_TB.flatten().tolist(), int(targets_TB[-1, 0])] == tokens.tolist()


@pytest.mark.parametrize(
    "strengths",
    [
        {"input_dropout": 0.3, "weight_decay": 0.01, "gradient_noise": 0.01},
        {"state_reset": 0.2, "l1": 1e-4, "l2": 1e-4},
    ],
)
def test_the_step_that_is_captured_is_the_step(strengths: dict[str, float]) -> None:
    """All of it but the graph: numbers that change come as tensors, and so do places and state."""
    plain, other = (tiny.training(regularizers=strengths, training={"schedule": "cosine_warmup"}) for _ in range(2))
    other.feed.symbols_N = feed.resident(other.windows.tokens, CPU)
    other.captured = other._step_of_tensors  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        pairs = [(float(plain.train_step()[0]), float(other.train_step()[0])) for _ in range(8)]
    expected, ours = zip(*pairs, strict=True)
    assert ours == pytest.approx(expected, rel=1e-6)
    for one, another in zip(model.parts_of(plain.state), model.parts_of(other.state), strict=True):
        assert torch.allclose(one, another, atol=1e-6)
