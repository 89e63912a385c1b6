"""Refuses a model that cannot fit before anything of it is allocated: the processor's own way is to kill."""

from __future__ import annotations

import psutil
import torch

from tune_rnn import model
from tune_rnn.errors import InputError

COPIES = 5
"""Parameters, gradients, Adam's two averages, the best parameters so far; SGD has fewer, activations come on top."""

BYTES = 4


def check_memory(sizes: model.Sizes, device: torch.device) -> None:
    """Raise InputError where a training's parameters alone need more memory than the device has."""
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = psutil.virtual_memory().total
    parameters = model.count_parameters(sizes)
    needed = COPIES * BYTES * parameters
    if needed > there:
        rule = (
            f"{parameters:,} parameters take {needed / 2**30:,.0f} GiB to train, and there are {there / 2**30:,.0f} GiB"
        )
        raise InputError("model", rule, "Lower model.hidden_size, model.embedding_size or model.layers.")
