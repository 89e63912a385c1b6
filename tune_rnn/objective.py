"""What a training step minimises: the task's loss on one window, and what the regularisers add to it.

Shapes: T time steps, B streams, V symbols, H hidden size of the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def objective(passes: Sequence[Pass], targets_TB: Tensor, strengths: Regularizers) -> tuple[Tensor, Tensor]:
    """The task's loss on the window, and what is minimised, all penalties on activations included.

    Of two passes (fraternal dropout), with masks of their own each, the mean is minimised with the distance between
    their logits; the loss is the first one's. Penalties on weights are added to the gradient (`add_penalty`).
    """
    (loss, total), *others = [_of_one_pass(one, targets_TB, strengths) for one in passes]
    for (_, other), one in zip(others, passes[1:], strict=True):
        apart = regularizers.fraternal(passes[0].logits_TBV, one.logits_TBV)
        total = (total + other) / 2 + strengths.fraternal_dropout * apart
    return loss, total


def _of_one_pass(one: Pass, targets_TB: Tensor, strengths: Regularizers) -> tuple[Tensor, Tensor]:
    if strengths.label_smoothing > 0:
        loss, total = regularizers.smoothed(one.logits_TBV, targets_TB, strengths.label_smoothing)
    else:
        loss = total = model.cross_entropy(one.logits_TBV, targets_TB)
    if strengths.activation > 0:
        total = total + strengths.activation * regularizers.activation(one.dropped_TBH)
    if strengths.temporal_activation > 0:
        total = total + strengths.temporal_activation * regularizers.temporal_activation(one.raw_TBH)
    return loss, total
