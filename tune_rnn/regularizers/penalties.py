"""On the loss: terms that are added to the mean cross-entropy for training, and are in no reported metric.

Shapes: T time steps, B streams, V symbols, H hidden size of the last layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


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


def smoothing(logits_TBV: Tensor, targets_TB: Tensor) -> Tensor:
    """Mean of z_target - mean(z): times ε and added, cross-entropy becomes that with targets smoothed by ε.

    Smoothed targets have 1 - ε more on the right symbol and ε/V on each (Szegedy et al. 2016, section 7). Targets of
    -100 do not count.
    """
    counts_TB = targets_TB.ge(0)
    logits_TBV = logits_TBV.float()
    right_TB1 = logits_TBV.gather(-1, targets_TB.clamp(min=0).unsqueeze(-1))
    excess_TB = right_TB1.squeeze(-1) - logits_TBV.mean(-1)
    return (excess_TB * counts_TB).sum() / counts_TB.sum()


def fraternal(logits_TBV: Tensor, others_TBV: Tensor) -> Tensor:
    """Mean squared difference of the logits under two draws of the masks (Zolna et al. 2018, equation 3)."""
    return (logits_TBV - others_TBV).float().square().mean()
