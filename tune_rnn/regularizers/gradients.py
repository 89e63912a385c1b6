"""On the gradient: clipping and noise, in place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NOISE_DECAY = 0.55


def global_norm(gradients: list[Tensor]) -> Tensor:
    """‖g‖₂ over all gradients together, a tensor without dimensions."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip_gradients(gradients: list[Tensor], clip_value: float, clip_norm: float) -> Tensor:
    """Clip in place, by value first, then by norm; returns the norm before any clipping.

    By value: g ← min(max(g, -c), c). By norm: g ← g · min(1, c/‖g‖₂) over all together (Pascanu et al. 2013).
    """
    before = norm = global_norm(gradients)
    if clip_value > 0:
        torch._foreach_clamp_max_(gradients, clip_value)
        torch._foreach_clamp_min_(gradients, -clip_value)
        norm = global_norm(gradients) if clip_norm > 0 else norm
    if clip_norm > 0:
        torch._foreach_mul_(gradients, (clip_norm / norm).clamp(max=1.0))
    return before


def noise_deviation(strength: float, step: int) -> float:
    """σ of the noise at step t: σ² = η / (1 + t)^0.55 (Neelakantan et al. 2015)."""
    return math.sqrt(strength / (1 + step) ** NOISE_DECAY)


def add_noise(gradients: list[Tensor], deviation: float | Tensor, generator: torch.Generator) -> None:
    """g ← g + N(0, σ²), after clipping."""
    for gradient in gradients:
        gradient.add_(torch.randn(gradient.shape, generator=generator, device=gradient.device) * deviation)
