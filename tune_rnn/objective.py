"""What a training step minimises: the task's loss on one window, and what the regularisers add to it.

Shapes: T time steps, B streams, V symbols, H hidden size of the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tune_rnn import decoder, model, regularizers
from tune_rnn.schema import Regularizers


@dataclass(frozen=True)
class Pass:
    """One forward pass: the last layer's outputs (T, B, H) before and after dropout, and the state after the window."""

    raw_TBH: Tensor  # noqa: N815 (the shape is part of the name)
    dropped_TBH: Tensor  # noqa: N815
    state: model.State


def forward_pass(
    sizes: model.Sizes,
    parameters: Mapping[str, Tensor],
    state: model.State,
    inputs_TB: Tensor,
    masks: Mapping[str, Tensor],
) -> Pass:
    """Run the model up to the decoder on a window, and keep what the penalties on activations look at."""
    raw_TBH, after = model.encode(sizes, parameters, state, inputs_TB, masks)
    return Pass(raw_TBH, model.masked(raw_TBH, masks.get("output")), after)


def objective(
    parameters: Mapping[str, Tensor], passes: Sequence[Pass], targets_TB: Tensor, strengths: Regularizers
) -> tuple[Tensor, Tensor]:
    """The task's loss on the window, and what is minimised, all penalties on activations included.

    Of two passes (fraternal dropout), with masks of their own each, the mean is minimised with the distance between
    their logits; the loss is the first one's. Penalties on weights are added to the gradient (`add_penalty`).
    """
    (loss, total), *others = [_of_one_pass(parameters, one, targets_TB, strengths) for one in passes]
    for (_, other), one in zip(others, passes[1:], strict=True):
        weight_VH, _ = decoder.weights(parameters)
        counts_TB = targets_TB.ne(decoder.IGNORED)
        apart = regularizers.fraternal(passes[0].dropped_TBH, one.dropped_TBH, weight_VH, counts_TB)
        total = (total + other) / 2 + strengths.fraternal_dropout * apart
    return loss, total


def _of_one_pass(
    parameters: Mapping[str, Tensor], one: Pass, targets_TB: Tensor, strengths: Regularizers
) -> tuple[Tensor, Tensor]:
    smoothing = strengths.label_smoothing if _is_on(strengths.label_smoothing) else None
    loss, total = decoder.cross_entropy(parameters, one.dropped_TBH, targets_TB, smoothing)
    counts_TB = targets_TB.ne(decoder.IGNORED)
    if _is_on(strengths.activation):
        total = total + strengths.activation * regularizers.activation(one.dropped_TBH, counts_TB)
    if _is_on(strengths.temporal_activation):
        total = total + strengths.temporal_activation * regularizers.temporal_activation(one.raw_TBH, counts_TB)
    return loss, total


def _is_on(strength: float | Tensor) -> bool:
    """A number is on above 0; a tensor, which has a strength for each of several trials, always."""
    return isinstance(strength, Tensor) or strength > 0
