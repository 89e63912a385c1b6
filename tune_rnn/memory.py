"""Refuses a model that cannot fit before anything of it is allocated: the processor's own way is to kill."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

from tune_rnn import model
from tune_rnn.errors import InputError
from tune_rnn.optimization import AVERAGES

COPIES = 3
"""Parameters, gradients, the best parameters so far; the optimizer's averages and activations come on top."""

BYTES = 4

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""What a container may use, by version of Linux's control groups; other words than a number mean: all there is."""


def check_memory(sizes: model.Sizes, optimizer: str, device: torch.device) -> None:
    """Raise InputError where a training's parameters alone need more memory than the device, or the container, has."""
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = min([psutil.virtual_memory().total, *_limits()])
    parameters = model.count_parameters(sizes)
    needed = (COPIES + AVERAGES[optimizer]) * BYTES * parameters
    if needed > there:
        rule = (
            f"{parameters:,} parameters take {needed / 2**30:,.0f} GiB to train, and there are {there / 2**30:,.0f} GiB"
        )
        raise InputError("model", rule, "Lower model.hidden_size, model.embedding_size or model.layers.")


def _limits() -> list[int]:
    found = []
    for file in LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(file.read_text("ascii")))
    return found
