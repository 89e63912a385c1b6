"""The regularisers, each where it acts: on the forward pass, the loss, the gradient, the step, or the schedule.

Every strength 0 means off. Whether one is on is decided once, outside the model: an absent mask or an unused penalty
leaves the computation bit for bit as if the regulariser did not exist.
"""

from __future__ import annotations

from tune_rnn.regularizers.averaging import Averaging
from tune_rnn.regularizers.gradients import add_noise, clip_gradients, global_norm, noise_deviation
from tune_rnn.regularizers.masks import Dropout, draw_masks, expected_masks, reset_some, seed_for_step
from tune_rnn.regularizers.penalties import (
    activation,
    add_penalty,
    fraternal,
    penalised,
    temporal_activation,
)
from tune_rnn.regularizers.weights import decay_weights, limit_norms

__all__ = [
    "Averaging",
    "Dropout",
    "activation",
    "add_noise",
    "add_penalty",
    "clip_gradients",
    "decay_weights",
    "draw_masks",
    "expected_masks",
    "fraternal",
    "global_norm",
    "limit_norms",
    "noise_deviation",
    "penalised",
    "reset_some",
    "seed_for_step",
    "temporal_activation",
]
