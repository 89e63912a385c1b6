"""On the loss: what is minimised besides the mean cross-entropy, and is in no reported metric.

Shapes: T time steps, B streams, V symbols, H hidden size of the last layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def penalised(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """What L1 and L2 act on: weight matrices, not biases. Tied weights are one entry, so they count once."""
    return [value for name, value in parameters.items() if "bias" not in name]


def add_penalty(weights: Iterable[Tensor], l1: float | Tensor, l2: float | Tensor) -> None:
    """Add to each weight's gradient that of l1 · Σ|w| + l2 · Σw² (both: elastic net, Zou & Hastie 2005), in place.

    That is l1 · sign(w) + 2 · l2 · w: of a term of the loss, and so clipped with the rest, but at a fraction of what it
    costs through a graph. A subgradient makes weights small, not exactly zero.
    """
    with torch.no_grad():
        for weight in weights:
            assert weight.grad is not None, "add_penalty comes after backward()"
            weight.grad.add_(weight.sign() * l1 + weight * (2 * l2))


def activation(outputs_TBH: Tensor) -> Tensor:
    """Mean of h² (activation regularisation, AR: Merity et al. 2017), for the last layer's dropped outputs.

    The paper writes an L2 norm; its code, and so we, take the mean of the squares.
    """
    return outputs_TBH.float().square().mean()


def temporal_activation(outputs_TBH: Tensor) -> Tensor:
    """Mean of (h_t - h_{t-1})² (temporal activation regularisation, TAR), for the last layer's raw outputs.

    0 for a window of one step, which has no difference.
    """
    if len(outputs_TBH) < 2:
        return outputs_TBH.new_zeros((), dtype=torch.float32)
    return (outputs_TBH[1:] - outputs_TBH[:-1]).float().square().mean()


def smoothed(logits_TBV: Tensor, targets_TB: Tensor, epsilon: float | Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and the same with smoothed targets: (1 - ε) on the right symbol, and ε/V on each.

    Szegedy et al. 2016, section 7. Targets of -100 do not count.
    """
    log_TBV = torch.log_softmax(logits_TBV.float(), -1)
    loss = torch.nn.functional.nll_loss(log_TBV.flatten(0, 1), targets_TB.flatten(), ignore_index=-100)
    counts_TB = targets_TB.ge(0)
    uniform = -(log_TBV.mean(-1) * counts_TB).sum() / counts_TB.sum()
    return loss, (1 - epsilon) * loss + epsilon * uniform


def fraternal(logits_TBV: Tensor, others_TBV: Tensor) -> Tensor:
    """Mean squared difference of the logits under two draws of the masks (Zolna et al. 2018, equation 3)."""
    return (logits_TBV - others_TBV).float().square().mean()
