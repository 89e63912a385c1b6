"""On the schedule: weights averaged over steps. They are evaluated and kept, while training goes on with its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tune_rnn.schema import Regularizers


class Averaging:
    """The average of a training's parameters, once there is one.

    `ema`: w̄ ← d·w̄ + (1 - d)·w at each step, with d = min(ema, (1 + t)/(10 + t)), so that the random beginning is
    forgotten (Polyak averaging with exponential weights).
    `swa`: the plain mean over the last `swa` of the budget's steps (Izmailov et al. 2018).
    `nt_asgd`: the plain mean from the report on at which the loss of the weights themselves is not below the best of
    all reports but the last n (Merity et al. 2018, algorithm 1).
    """

    def __init__(self, strengths: Regularizers, total_steps: int) -> None:
        self.ema, self.interval = strengths.ema, strengths.nt_asgd
        self.first_step = math.inf
        if strengths.ema > 0:
            self.first_step = 0
        elif strengths.swa > 0:
            self.first_step = int((1 - strengths.swa) * total_steps)
        self.losses: list[float] = []
        self.count = 0
        self.parameters: dict[str, Tensor] = {}

    @property
    def listens(self) -> bool:
        """Whether `observe` is to be told the loss of the weights themselves at the next report."""
        return self.interval > 0 and not math.isfinite(self.first_step)

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after `step` steps."""
        if step <= self.first_step:
            return
        self.count += 1
        if self.count == 1:
            self.parameters = {name: value.detach().clone() for name, value in parameters.items()}
            return
        new = 1 / self.count
        if self.ema > 0:
            new = 1 - min(self.ema, (1 + self.count) / (10 + self.count))
        averages = list(self.parameters.values())
        torch._foreach_lerp_(averages, [parameters[name].detach() for name in self.parameters], new)

    def observe(self, loss: float, step: int) -> None:
        """Tell `nt_asgd` the loss of the weights themselves after `step` steps; the average may begin with the next."""
        if len(self.losses) > self.interval and loss > min(self.losses[: -self.interval]):
            self.first_step = step
        self.losses.append(loss)

    def evaluated(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """What to evaluate and to keep: the average where there is one, else the weights themselves."""
        return self.parameters or parameters

    def state_dict(self) -> dict[str, Any]:
        return {
            "first_step": self.first_step,
            "losses": self.losses,
            "count": self.count,
            "parameters": self.parameters,
        }

    def load_state_dict(self, saved: dict[str, Any], device: torch.device) -> None:
        self.first_step, self.losses, self.count = saved["first_step"], list(saved["losses"]), saved["count"]
        self.parameters = {name: value.to(device, copy=True) for name, value in saved["parameters"].items()}
