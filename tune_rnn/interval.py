"""Means between two reports of a training, without making a GPU wait at each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Interval:
    """Sums of loss and gradient norm since the last report, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        self.looked_at = self.sums.clone()
        self.steps = self.steps_looked_at = 0
        self.arriving: Arriving | None = None

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        self.sums += torch.stack((loss, gradient_norm))
        self.steps += 1

    def recent_loss(self) -> float:
        """Mean loss since the last call; on a GPU that of the call before (0 at first), so that nobody waits."""
        mean = (self.sums - self.looked_at)[0] / (self.steps - self.steps_looked_at)
        self.looked_at, self.steps_looked_at = self.sums.clone(), self.steps
        if not mean.is_cuda:
            return float(mean)
        before, self.arriving = self.arriving, Arriving(mean)
        return before.number() if before else 0.0

    def means(self) -> tuple[float | None, float | None]:
        """Mean loss and mean gradient norm since the last report; None without a step or a finite mean."""
        loss, gradient_norm = (self.sums / self.steps).tolist()
        return _finite(loss), _finite(gradient_norm)


class Arriving:
    """A number on its way from a GPU."""

    def __init__(self, value: torch.Tensor) -> None:
        self.host = value.to("cpu", non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()

    def number(self) -> float:
        self.event.synchronize()
        return float(self.host)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
