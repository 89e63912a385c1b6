"""What a training step minimises: the task's loss on one window, and what the regularisers add to it.

Shapes: T time steps, B streams, V symbols, H hidden size of the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tune_rnn import model, regularizers
from tune_rnn.schema import Regularizers


@dataclass(frozen=True)
class Pass:
    """One forward pass: logits (T, B, V), the last layer's outputs before and after dropout (T, B, H), state after."""

    logits_TBV: Tensor  # noqa: N815 (the shape is part of the name)
    raw_TBH: Tensor  # noqa: N815
    dropped_TBH: Tensor  # noqa: N815
    state: model.State


def forward_pass(
    sizes: model.Sizes,
    parameters: Mapping[str, Tensor],
    state: model.State,
    inputs_TB: Tensor,
    masks: Mapping[str, Tensor],
) -> Pass:
    """Run the model on a window, and keep what the penalties on activations look at."""
    raw_TBH, after = model.encode(sizes, parameters, state, inputs_TB, masks)
    dropped_TBH = model.masked(raw_TBH, masks.get("output"))
    return Pass(model.decode(parameters, dropped_TBH), raw_TBH, dropped_TBH, after)


def total_loss(
    loss: Tensor, one: Pass, targets_TB: Tensor, parameters: Mapping[str, Tensor], strengths: Regularizers
) -> Tensor:
    """The loss plus every penalty whose strength is not 0."""
    total = loss
    if strengths.label_smoothing > 0:
        total = total + strengths.label_smoothing * regularizers.smoothing(one.logits_TBV, targets_TB)
    if strengths.activation > 0:
        total = total + strengths.activation * regularizers.activation(one.dropped_TBH)
    if strengths.temporal_activation > 0:
        total = total + strengths.temporal_activation * regularizers.temporal_activation(one.raw_TBH)
    if strengths.l1 > 0 or strengths.l2 > 0:
        weights = regularizers.penalised(parameters)
        total = total + regularizers.penalty(weights, strengths.l1, strengths.l2)
    return total
