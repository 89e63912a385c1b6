"""Models that do not fit are refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tune_rnn import memory, model
from tune_rnn.errors import InputError

CPU = torch.device("cpu")


def test_what_fits_depends_on_the_optimizer_and_on_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = model.Sizes("lstm", vocabulary=100, embedding=64, hidden=(256,))
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (limit, tmp_path / "nowhere"))
    limit.write_text("max\n")
    memory.check_memory(sizes, "adam", CPU)
    limit.write_text(f"{4 * 4 * model.count_parameters(sizes)}\n")
    for optimizer in ("sgd", "rmsprop"):
        memory.check_memory(sizes, optimizer, CPU)
    for optimizer in ("adam", "adamw"):
        with pytest.raises(InputError, match=r"^model: [\d,]+ parameters take .* Lower model\.hidden_size"):
            memory.check_memory(sizes, optimizer, CPU)
