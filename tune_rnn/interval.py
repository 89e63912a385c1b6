"""Means between two reports of a training, without making a GPU wait at each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Interval:
    """Sums of loss and gradient norm since the last report, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)  # of all predictions
        self.gradient_norm = self.loss.clone()
        self.loss_looked_at = self.loss.clone()
        self.steps = self.predictions = self.predictions_looked_at = 0
        self.arriving: Arriving | None = None

    def add(self, loss: Tensor, gradient_norm: Tensor, predictions: int) -> None:
        """A step's mean loss over so many predictions, and its gradient norm."""
        self.loss.add_(loss, alpha=predictions)
        self.gradient_norm += gradient_norm
        self.predictions += predictions
        self.steps += 1

    def recent_loss(self) -> float:
        """Mean loss since the last call; on a GPU that of the call before (0 at first), so that nobody waits."""
        mean = (self.loss - self.loss_looked_at) / (self.predictions - self.predictions_looked_at)
        self.loss_looked_at, self.predictions_looked_at = self.loss.clone(), self.predictions
        if not mean.is_cuda:
            return float(mean)
        before, self.arriving = self.arriving, Arriving(mean)
        return before.number() if before else 0.0

    def means(self) -> tuple[float | None, float | None]:
        """Mean loss of the predictions and mean gradient norm of the steps; None without a step or a finite mean."""
        sums = torch.stack((self.loss / self.predictions, self.gradient_norm / self.steps))
        loss, gradient_norm = sums.tolist()
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
