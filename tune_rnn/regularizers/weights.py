"""On the step: what is done to the weights themselves, in place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def decay_weights(parameters: list[Tensor], learning_rate: float | Tensor, weight_decay: float) -> None:
    """Decoupled weight decay, in place, all parameters: w ← (1 - ηλ)·w (Loshchilov & Hutter 2019, eq. 9).

    The same for every optimizer and never through the gradient, so clipping and Adam's scaling leave it alone.
    """
    if weight_decay > 0:
        torch._foreach_mul_(parameters, 1 - learning_rate * weight_decay)


def limit_norms(parameters: Mapping[str, Tensor], max_norm: float) -> None:
    """Max-norm, in place, after the step: no unit's incoming weights are longer than c (Srivastava et al. 2014).

    A unit's incoming weights are a row of a layer's or the decoder's matrix. Embeddings are no unit's unless the
    decoder is tied to them; biases and gains stay.
    """
    tied = not any(name.startswith("decoder.") and "weight" in name for name in parameters)
    for name, weight in parameters.items():
        if "weight" in name and (tied or name != "embedding.weight"):
            lengths = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
            weight.mul_((max_norm / lengths).clamp(max=1.0))
