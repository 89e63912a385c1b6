"""Optimizers by name, and the learning rate as a function of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WARMUP = 0.1
"""Fraction of the budget over which `linear_warmup` and `cosine_warmup` raise the rate from 0."""

PLATEAU_FACTOR = 4.0
"""What `plateau` divides the rate by after an evaluation without improvement (pytorch/examples word_language_model)."""


def build_optimizer(name: str, parameters: Sequence[Tensor], learning_rate: float) -> torch.optim.Optimizer:
    """PyTorch's optimizer without its own weight decay: ours is decoupled for all of them.

    `adamw` is therefore Adam with `regularizers.weight_decay`, exactly as Loshchilov & Hutter (2019) define it.
    Adam: β = (0.9, 0.999), ε = 1e-8. RMSprop: α = 0.99, ε = 1e-8. SGD without momentum.
    On a GPU their steps can be captured in a CUDA graph, with a rate that is a tensor.
    """
    on_gpu = parameters[0].is_cuda
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, fused=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=learning_rate, foreach=True, capturable=on_gpu)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True, capturable=on_gpu)


class Schedule:
    """Learning rate at a training step; `plateau` also listens to validation losses."""

    def __init__(self, name: str, learning_rate: float, total_steps: int) -> None:
        self.name, self.learning_rate, self.total_steps = name, learning_rate, total_steps
        self.scale = 1.0

    def rate(self, step: int) -> float:
        """Rate for the step after `step` finished ones. Warm-up is linear, the cosine falls to 0 at the end."""
        warmup_steps = WARMUP * self.total_steps if self.name.endswith("_warmup") else 0.0
        if step + 1 < warmup_steps:
            return self.learning_rate * (step + 1) / warmup_steps
        if self.name.startswith("cosine"):
            progress = (step - warmup_steps) / max(1.0, self.total_steps - warmup_steps)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))
        return self.learning_rate * self.scale

    def observe(self, improved: bool) -> None:
        """Tell the schedule how an evaluation went."""
        if self.name == "plateau" and not improved:
            self.scale /= PLATEAU_FACTOR
