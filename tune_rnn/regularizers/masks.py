"""On the forward pass: masks of zeros and 1/(1-p), drawn outside the model, which only multiplies by them.

Shapes: T time steps, B streams, V symbols, E embedding size, H hidden size of a layer, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_rnn.model import GATES, Sizes
from tune_rnn.schema import Regularizers


@dataclass(frozen=True)
class Dropout:
    """Rates of all that is dropped; `locked`: one mask for a whole window (Gal & Ghahramani 2016)."""

    input: float = 0.0
    hidden: float = 0.0
    output: float = 0.0
    locked: bool = True
    embedding: float = 0.0
    weight: float = 0.0

    @classmethod
    def of(cls, strengths: Regularizers) -> Dropout:
        return cls(
            strengths.input_dropout,
            strengths.hidden_dropout,
            strengths.output_dropout,
            strengths.locked_dropout,
            strengths.embedding_dropout,
            strengths.weight_drop,
        )


def generator_for(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one training step: a function of (trial seed, step) alone, so nothing has to be saved."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed >> 1)  # manual_seed takes 63 bits without a sign


def draw_masks(
    sizes: Sizes, dropout: Dropout, shape_TB: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Inverted-dropout masks for `model.forward`: entries 0 or 1/(1-p) (Srivastava et al. 2014).

    A place with rate 0 gets no mask. Hidden dropout acts between layers: with one layer it does nothing. Embedding
    dropout drops whole symbols, (V, 1), and weight drop single hidden-to-hidden weights, (G·H, H), each once a window
    (Merity et al. 2018, sections 2 and 4.3).
    """
    steps, streams = shape_TB
    window = (1 if dropout.locked else steps, streams)
    places: list[tuple[str, float, tuple[int, ...]]] = [("input", dropout.input, (*window, sizes.embedding))]
    places += [(f"hidden{layer}", dropout.hidden, (*window, size)) for layer, size in enumerate(sizes.hidden[:-1])]
    places += [("output", dropout.output, (*window, sizes.hidden[-1]))]
    places += [("embedding", dropout.embedding, (sizes.vocabulary, 1))]
    places += [
        (f"weight{layer}", dropout.weight, (GATES[sizes.cell] * size, size)) for layer, size in enumerate(sizes.hidden)
    ]
    return {name: _mask(shape, rate, generator) for name, rate, shape in places if rate > 0}


def _mask(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    uniform = torch.empty(shape, device=generator.device).uniform_(generator=generator)
    return uniform.lt_(1 - rate).mul_(1 / (1 - rate))  # on a CPU twice as fast as bernoulli_


def reset_some(fresh_B: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Which streams begin this window from a zero state: besides `fresh_B`, each with probability `rate`.

    A model that now and then begins anew does not come to need a long past.
    """
    drawn_B = torch.rand(fresh_B.shape, generator=generator, device=fresh_B.device)
    return fresh_B | drawn_B.lt(rate)
