"""On the loss: what is minimised besides the mean cross-entropy, and is in no reported metric.

Label smoothing is the decoder's business (`tune_rnn.decoder`).

Shapes: T time steps, B streams, V symbols, H hidden size of the last layer. `counts_TB`: which positions are no
padding; means are over these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def penalised(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """What L1 and L2 act on: weight matrices, not biases or gains. Tied weights are one entry, so they count once."""
    return [value for name, value in parameters.items() if "weight" in name]


def add_penalty(weights: Iterable[Tensor], l1: float, l2: float) -> None:
    """Add to each weight's gradient that of l1 · Σ|w| + l2 · Σw² (both: elastic net, Zou & Hastie 2005), in place.

    That is l1 · sign(w) + 2 · l2 · w: of a term of the loss, and so clipped with the rest, but at a fraction of what it
    costs through a graph. A subgradient makes weights small, not exactly zero.
    """
    with torch.no_grad():
        weights, gradients = list(weights), []
        for weight in weights:
            if weight.grad is None:  # an adaptive softmax leaves out what no target needed
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
        if l1 > 0:
            signs = torch._foreach_sign(weights)
            torch._foreach_add_(gradients, signs, alpha=l1)
        if l2 > 0:
            torch._foreach_add_(gradients, weights, alpha=2 * l2)


def activation(outputs_TBH: Tensor, counts_TB: Tensor) -> Tensor:
    """Mean of h² (activation regularisation, AR: Merity et al. 2017), for the last layer's dropped outputs.

    The paper writes an L2 norm; its code, and so we, take the mean of the squares.
    """
    mean, *_ = _MeanSquare.apply(outputs_TBH, counts_TB)  # type: ignore[no-untyped-call]
    return mean  # type: ignore[no-any-return]


def temporal_activation(outputs_TBH: Tensor, counts_TB: Tensor) -> Tensor:
    """Mean of (h_t - h_{t-1})² (temporal activation regularisation, TAR), for the last layer's raw outputs.

    0 for a window of one step, which has no difference.
    """
    mean, *_ = _MeanSquareDifference.apply(outputs_TBH, counts_TB)  # type: ignore[no-untyped-call]
    return mean  # type: ignore[no-any-return]


def fraternal(outputs_TBH: Tensor, others_TBH: Tensor, weight_VH: Tensor, counts_TB: Tensor) -> Tensor:
    """Mean squared difference of the logits W·h + b under two draws of the masks (Zolna et al. 2018, equation 3).

    It is the mean of d·WᵀW·d / V with d the difference of the outputs, which needs no logits.
    """
    with torch.autocast(outputs_TBH.device.type, enabled=False):
        differences_TBH, weight_VH = (outputs_TBH - others_TBH).float(), weight_VH.float()
        squares_TB = ((differences_TBH @ (weight_VH.t() @ weight_VH)) * differences_TBH).sum(-1)
        return (squares_TB * counts_TB).sum() / counts_TB.sum().clamp(min=1) / weight_VH.shape[0]


class _MeanSquare(torch.autograd.Function):
    """Mean of x² over the positions that count, and its gradient 2·x / (H · how many), in float32.

    Autograd would do the same in a dozen element-wise operations, which a small model's step is short enough to feel.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values_TBH: Tensor, counts_TB: Tensor) -> tuple[Tensor, Tensor]:
        weights_TB = counts_TB / (counts_TB.sum().clamp(min=1) * values_TBH.shape[-1])
        squares_TB = torch.linalg.vector_norm(values_TBH, dim=-1, dtype=torch.float32).square()
        return (squares_TB * weights_TB).sum(), weights_TB

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        values_TBH, _ = inputs
        _, weights_TB = output
        ctx.mark_non_differentiable(weights_TB)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values_TBH, weights_TB)

    @staticmethod
    def backward(ctx: Any, coming: Tensor, *_: None) -> tuple[Tensor, None]:
        values_TBH, weights_TB = ctx.saved_tensors
        return (values_TBH * (2 * coming * weights_TB).unsqueeze(-1)).to(values_TBH.dtype), None


class _MeanSquareDifference(_MeanSquare):
    """The same of x_t - x_{t-1}, over the positions t > 0 that count."""

    @staticmethod
    def forward(values_TBH: Tensor, counts_TB: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        differences_TBH = values_TBH[1:] - values_TBH[:-1]
        return *_MeanSquare.forward(differences_TBH, counts_TB[1:]), differences_TBH

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, weights_TB, differences_TBH = output
        ctx.mark_non_differentiable(weights_TB, differences_TBH)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(differences_TBH, weights_TB)

    @staticmethod
    def backward(ctx: Any, coming: Tensor, *_: None) -> tuple[Tensor, None]:
        of_differences_TBH, _counts = _MeanSquare.backward(ctx, coming)
        gradient_TBH = torch.nn.functional.pad(of_differences_TBH, (0, 0, 0, 0, 1, 0))
        gradient_TBH[:-1] -= of_differences_TBH
        return gradient_TBH, None
