"""On the forward pass: masks that are drawn outside the model, which only multiplies by them.

Of dropout they hold 0 and 1/(1-p); of zoneout 1 (keeps its state) and 0.

Shapes: T time steps, B streams, V symbols, E embedding size, H hidden size of a layer, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_rnn.model import Sizes
from tune_rnn.recurrence import GATES
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
    zoneout_hidden: float = 0.0
    zoneout_cell: float = 0.0

    @classmethod
    def of(cls, strengths: Regularizers) -> Dropout:
        return cls(
            strengths.input_dropout,
            strengths.hidden_dropout,
            strengths.output_dropout,
            strengths.locked_dropout,
            strengths.embedding_dropout,
            strengths.weight_drop,
            strengths.zoneout_hidden,
            strengths.zoneout_cell,
        )


def seed_for_step(generator: torch.Generator, seed: int, step: int) -> torch.Generator:
    """Begin one training step's numbers: a function of (trial seed, step) alone, so nothing has to be saved."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return generator.manual_seed(mixed >> 1)  # manual_seed takes 63 bits without a sign


def draw_masks(
    sizes: Sizes, dropout: Dropout, shape_TB: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Inverted-dropout masks for `model.encode` and what comes after it: entries 0 or 1/(1-p) (Srivastava et al. 2014).

    A place with rate 0 gets no mask. Hidden dropout acts between layers: with one layer it does nothing. Embedding
    dropout drops whole symbols, (V, 1), and weight drop single hidden-to-hidden weights, (G·H, H), each once a window
    (Merity et al. 2018, sections 2 and 4.3). Zoneout's entries are 1 where a unit keeps its state, 0 elsewhere, drawn
    for each time step anew (Krueger et al. 2017).
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
    masks = {name: _mask(shape, rate, generator) for name, rate, shape in places if rate > 0}
    for name, rate, size in _zoneouts(sizes, dropout):
        uniform = torch.empty(steps, streams, size, device=generator.device).uniform_(generator=generator)
        masks[name] = uniform.lt_(rate)
    return masks


def expected_masks(sizes: Sizes, dropout: Dropout, device: torch.device) -> dict[str, Tensor]:
    """The masks of evaluation: none for dropout, whose mean is 1, and zoneout's rates, (1, 1, 1)."""
    return {name: torch.full((1, 1, 1), rate, device=device) for name, rate, _ in _zoneouts(sizes, dropout)}


def _zoneouts(sizes: Sizes, dropout: Dropout) -> list[tuple[str, float, int]]:
    """Name, rate and size of each layer's masks."""
    kinds = [("zoneout_hidden", dropout.zoneout_hidden), ("zoneout_cell", dropout.zoneout_cell)]
    layers = enumerate(sizes.hidden)
    return [(f"{kind}{layer}", rate, size) for layer, size in layers for kind, rate in kinds if rate > 0]


def _mask(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    uniform = torch.empty(shape, device=generator.device).uniform_(generator=generator)
    return uniform.lt_(1 - rate).mul_(1 / (1 - rate))  # on a CPU twice as fast as bernoulli_


def reset_some(fresh_B: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Which streams begin this window from a zero state: besides `fresh_B`, each with probability `rate`.

    A model that now and then begins anew does not come to need a long past.
    """
    drawn_B = torch.rand(fresh_B.shape, generator=generator, device=fresh_B.device)
    return fresh_B | drawn_B.lt(rate)
