"""Optimizers by name, and the learning rate as a function of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

WARMUP = 0.1
"""Fraction of the budget over which `linear_warmup` and `cosine_warmup` raise the rate from 0."""

PLATEAU_FACTOR = 4.0
"""What `plateau` divides the rate by after an evaluation without improvement (pytorch/examples word_language_model)."""


AVERAGES = {"sgd": 0, "rmsprop": 1, "adam": 2, "adamw": 2}
"""How many averages of the gradients each optimizer keeps, of the parameters' size."""

_SGD: Any = sgd  # their types do not know of rates that are tensors
_RMSPROP: Any = rmsprop
_ADAM: Any = adam

_OF_ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False}
_CONSTANTS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
    "rmsprop": {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False},
    "adam": _OF_ADAM,
    "adamw": _OF_ADAM,
}


class Optimizer:
    """SGD, RMSprop or Adam without weight decay of its own: ours is decoupled for all of them.

    `adamw` is therefore Adam with `regularizers.weight_decay`, exactly as Loshchilov & Hutter (2019) define it.
    Adam: β = (0.9, 0.999), ε = 1e-8. RMSprop: α = 0.99, ε = 1e-8. SGD without momentum.

    The steps are PyTorch's functions. Its classes, which call the same, have a process load PyTorch's compiler: more
    than a second before the first step. On a GPU a step can be captured in a CUDA graph, with a rate that is a tensor.
    """

    def __init__(self, name: str, parameters: Sequence[Tensor]) -> None:
        self.name, self.parameters = name, list(parameters)
        self.averages = [[torch.zeros_like(one) for one in self.parameters] for _ in range(AVERAGES[name])]
        self.steps = [torch.zeros((), device=one.device) for one in self.parameters]

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> None:
        """Change the parameters that have a gradient, and forget the gradients."""
        moved = [number for number, one in enumerate(self.parameters) if one.grad is not None]
        parameters = [self.parameters[number] for number in moved]
        gradients = [one.grad for one in parameters if one.grad is not None]
        averages = [[average[number] for number in moved] for average in self.averages]
        steps, on_gpu = [self.steps[number] for number in moved], self.parameters[0].is_cuda
        given = {"lr": learning_rate, "weight_decay": 0.0, "maximize": False, **_CONSTANTS[self.name]}
        if self.name == "sgd":
            _SGD(parameters, gradients, [], fused=True, **given)
        elif self.name == "rmsprop":
            _RMSPROP(parameters, gradients, *averages, [], [], steps, foreach=True, capturable=on_gpu, **given)
        else:
            _ADAM(parameters, gradients, *averages, [], steps, fused=True, capturable=on_gpu, **given)
        for one in self.parameters:
            one.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self.averages, "steps": self.steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over, in place, what `state_dict` returned."""
        for own, other in zip([*self.averages, self.steps], [*saved["averages"], saved["steps"]], strict=True):
            torch._foreach_copy_(own, other)


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
