"""The regularisers, each where it acts: on the forward pass, on the loss, on the gradient, on the step.

Every strength 0 means off. Whether one is on is decided here, once, outside the model: an absent mask or an
unused penalty leaves the computation bit for bit as if the regulariser did not exist.

Shapes: T time steps, B streams, E embedding size, H hidden size of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_rnn.model import Sizes
from tune_rnn.schema import Regularizers


@dataclass(frozen=True)
class Dropout:
    """Dropout rates at the three places; `locked`: one mask for a whole window (Gal & Ghahramani 2016)."""

    input: float = 0.0
    hidden: float = 0.0
    output: float = 0.0
    locked: bool = True

    @classmethod
    def of(cls, strengths: Regularizers) -> Dropout:
        return cls(
            strengths.input_dropout,
            strengths.hidden_dropout,
            strengths.output_dropout,
            strengths.locked_dropout,
        )


def generator_for(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one training step: a function of (trial seed, step) alone, so nothing has to be saved."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed >> 1)  # manual_seed takes 63 bits without a sign


def draw_masks(
    sizes: Sizes, dropout: Dropout, shape_TB: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Inverted-dropout masks for `model.forward`: entries 0 or 1/(1-p) (Srivastava et al. 2014).

    A place with rate 0 gets no mask. Hidden dropout acts between layers: with one layer it does nothing.
    """
    steps, streams = shape_TB
    places = [("input", dropout.input, sizes.embedding)]
    places += [(f"hidden{layer}", dropout.hidden, size) for layer, size in enumerate(sizes.hidden[:-1])]
    places += [("output", dropout.output, sizes.hidden[-1])]
    return {
        name: _mask((1 if dropout.locked else steps, streams, size), rate, generator)
        for name, rate, size in places
        if rate > 0
    }


def _mask(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    uniform = torch.empty(shape, device=generator.device).uniform_(generator=generator)
    return uniform.lt_(1 - rate).mul_(1 / (1 - rate))  # on a CPU twice as fast as bernoulli_


def penalised(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """What L1 and L2 act on: weight matrices, not biases. Tied weights are one entry, so they count once."""
    return [value for name, value in parameters.items() if "bias" not in name]


def penalty(weights: Iterable[Tensor], l1: float | Tensor, l2: float | Tensor) -> Tensor:
    """l1 · Σ|w| + l2 · Σw² (both: elastic net, Zou & Hastie 2005), to be added to the mean loss per token.

    The gradient is l1 · sign(w) + 2 · l2 · w. A subgradient makes weights small, not exactly zero.
    """
    weights = list(weights)
    absolute = sum((torch.linalg.vector_norm(w, 1) for w in weights), torch.zeros(()))
    squares = sum((torch.sum(w * w) for w in weights), torch.zeros(()))
    return l1 * absolute + l2 * squares


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


def decay_weights(parameters: list[Tensor], learning_rate: float, weight_decay: float) -> None:
    """Decoupled weight decay, in place, all parameters: w ← (1 - ηλ)·w (Loshchilov & Hutter 2019, eq. 9).

    The same for every optimizer and never through the gradient, so clipping and Adam's scaling leave it alone.
    """
    if weight_decay > 0:
        torch._foreach_mul_(parameters, 1 - learning_rate * weight_decay)
