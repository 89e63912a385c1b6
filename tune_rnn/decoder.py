"""From the last layer's outputs to the next symbol: softmax over all symbols, or PyTorch's adaptive softmax.

A large vocabulary makes the logits the largest tensors of a training step. The full softmax therefore never holds
those of a whole window: it goes through blocks of positions that fit a cache and takes loss and gradient in one visit.

Shapes: T time steps, B streams, N = T·B positions, V symbols, H hidden size of the last layer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tune_rnn.products import product_type

LARGE = 2048
"""From so many symbols on the softmax goes through blocks; below, one call for all positions is as fast."""

BLOCK = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Logits in a block: 32 MB are allocated once and stay near a processor; a GPU wants more."""

SMALLEST_BLOCK = 128

CUTOFFS = (0.02, 0.1, 0.3)
"""Where the adaptive softmax cuts the vocabulary, most frequent symbols first, as fractions of it."""

SHRINKING = 2.0
"""How many times fewer dimensions of the outputs each further part of the vocabulary sees."""

IGNORED = -100
"""A target that does not count (padding)."""


def shapes(kind: str, vocabulary: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter of a decoder of its own: `kind` is "softmax" or "adaptive"."""
    if kind == "adaptive":
        module = _adaptive(vocabulary, hidden)
        return {f"decoder.{name}": tuple(value.shape) for name, value in module.named_parameters()}
    return {"decoder.weight": (vocabulary, hidden), "decoder.bias": (vocabulary,)}


def logits(parameters: Mapping[str, Tensor], outputs_TBH: Tensor) -> Tensor:
    """Logits (T, B, V) of the full softmax."""
    weight_VH, bias_V = weights(parameters)
    return torch.nn.functional.linear(outputs_TBH, weight_VH, bias_V)


def log_probabilities(parameters: Mapping[str, Tensor], outputs_TBH: Tensor) -> Tensor:
    """Of every symbol, (T, B, V), in nats, float32, by either decoder; holds them all, so for short windows."""
    if _is_adaptive(parameters):
        log_NV: Tensor = _call_adaptive(parameters, outputs_TBH.flatten(0, 1), None)
        return log_NV.float().view(*outputs_TBH.shape[:2], -1)
    return torch.log_softmax(logits(parameters, outputs_TBH).float(), -1)


def cross_entropy(
    parameters: Mapping[str, Tensor], outputs_TBH: Tensor, targets_TB: Tensor, smoothing: float | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean loss in nats over the targets that count, and the same with smoothed targets, which is to be minimised.

    Smoothing is the full softmax's alone; without it both results are the same number.
    """
    if _is_adaptive(parameters):
        loss = _adaptive_losses(parameters, outputs_TBH, targets_TB).mean()
        return loss, loss
    weight_VH, bias_V = weights(parameters)
    if len(weight_VH) >= LARGE:
        rows_NH, targets_N = outputs_TBH.flatten(0, 1), targets_TB.flatten()
        arguments = (rows_NH, weight_VH, bias_V, targets_N, smoothing)
        loss, total, *_ = _BlockwiseCrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
        return loss, total
    logits_TBV = logits(parameters, outputs_TBH)
    if smoothing is not None:
        return smoothed(logits_TBV, targets_TB, smoothing)
    loss = of_logits(logits_TBV, targets_TB)
    return loss, loss


@torch.no_grad()
def total_cross_entropy(parameters: Mapping[str, Tensor], outputs_TBH: Tensor, targets_TB: Tensor) -> Tensor:
    """Loss in nats summed over the targets that count; for evaluation, without gradients."""
    if _is_adaptive(parameters):
        return _adaptive_losses(parameters, outputs_TBH, targets_TB).sum()
    weight_VH, bias_V = weights(parameters)
    if len(weight_VH) < LARGE:
        return of_logits(logits(parameters, outputs_TBH), targets_TB, "sum")
    total = torch.zeros((), device=outputs_TBH.device)
    targets_N = targets_TB.flatten()
    for rows, logits_NV in _blocks(outputs_TBH.flatten(0, 1), weight_VH, bias_V):
        total += torch.nn.functional.cross_entropy(logits_NV, targets_N[rows], ignore_index=IGNORED, reduction="sum")
    return total


def smoothed(logits_TBV: Tensor, targets_TB: Tensor, epsilon: float | Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and the same with smoothed targets: (1 - ε) on the right symbol, and ε/V on each.

    Label smoothing: Szegedy et al. 2016, section 7.
    """
    log_TBV = torch.log_softmax(logits_TBV.float(), -1)
    loss = torch.nn.functional.nll_loss(log_TBV.flatten(0, 1), targets_TB.flatten(), ignore_index=IGNORED)
    counts_TB = targets_TB.ne(IGNORED)
    uniform = -(log_TBV.mean(-1) * counts_TB).sum() / counts_TB.sum()
    return loss, (1 - epsilon) * loss + epsilon * uniform


def of_logits(logits_TBV: Tensor, targets_TB: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats over the targets that count, computed in float32."""
    return torch.nn.functional.cross_entropy(
        logits_TBV.flatten(0, 1).float(), targets_TB.flatten(), ignore_index=IGNORED, reduction=reduction
    )


class _BlockwiseCrossEntropy(torch.autograd.Function):
    """Mean loss, smoothed loss, and the gradients of the latter's sum; backward only scales these.

    With p the softmax of a position's logits z, and ε the smoothing: ∂/∂z = p - (1 - ε)·onehot(target) - ε/V, of the
    sum over the N targets that count. The mean's is divided by N in backward: before the products, fp16 would round
    it to zero for all but the targets. Products are in 16 bits under autocast, all else in float32.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        outputs_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor, smoothing: float | Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        counts_N1 = targets_N.ne(IGNORED).float().unsqueeze(1)
        chosen_N1 = targets_N.clamp(min=0).unsqueeze(1)
        grad_outputs, grad_weight = [], torch.zeros_like(weight_VH)
        grad_bias, losses, epsilon = torch.zeros_like(bias_V), [], 0.0 if smoothing is None else smoothing
        factors_VH = weight_VH.to(product_type(outputs_NH.device.type))
        for rows, logits_NV in _blocks(outputs_NH, weight_VH, bias_V):
            chosen, counts = chosen_N1[rows], counts_N1[rows]
            largest = logits_NV.amax(1, keepdim=True)
            right, mean = logits_NV.gather(1, chosen) - largest, logits_NV.mean(1, keepdim=True) - largest
            exponentials = logits_NV.sub_(largest).exp_()
            sums = exponentials.sum(1, keepdim=True)
            log_sums = sums.log()
            losses.append(torch.stack([(counts * (log_sums - right)).sum(), (counts * (log_sums - mean)).sum()]))
            gradient = exponentials.mul_(counts / sums).scatter_add_(1, chosen, (epsilon - 1) * counts)
            if smoothing is not None:
                gradient.sub_(counts * (smoothing / bias_V.shape[0]))
            grad_bias += gradient.sum(0)
            products = gradient.to(factors_VH.dtype)
            grad_outputs.append(products @ factors_VH)
            grad_weight += products.t() @ outputs_NH[rows].to(products.dtype)
        loss, uniform = (torch.stack(losses).sum(0) / counts_N1.sum()).unbind()
        total = (1 - epsilon) * loss + epsilon * uniform
        return loss, total, torch.cat(grad_outputs), grad_weight, grad_bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        outputs_NH, _, _, targets_N, _ = inputs
        loss, _, *gradients = output
        ctx.mark_non_differentiable(loss, *gradients)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(targets_N, *gradients)
        ctx.outputs_type = outputs_NH.dtype

    @staticmethod
    def backward(ctx: Any, *coming: Tensor) -> tuple[Tensor | None, ...]:
        targets_N, grad_outputs, grad_weight, grad_bias = ctx.saved_tensors
        scale = coming[1] / targets_N.ne(IGNORED).sum()
        grad_outputs = (grad_outputs.float() * scale).to(ctx.outputs_type)
        return grad_outputs, grad_weight * scale, grad_bias * scale, None, None


def _blocks(outputs_NH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Positions, and their logits in float32, block by block."""
    size = max(SMALLEST_BLOCK, BLOCK.get(outputs_NH.device.type, BLOCK["cpu"]) // bias_V.shape[0])
    dtype = product_type(outputs_NH.device.type)
    weight_HV = weight_VH.to(dtype).t()
    for first in range(0, outputs_NH.shape[0], size):
        rows = slice(first, first + size)
        block = outputs_NH[rows].to(dtype)
        if dtype == torch.float32:
            yield rows, torch.addmm(bias_V, block, weight_HV)
        else:
            yield rows, (block @ weight_HV).float() + bias_V


def weights(parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weights (V, H) and biases (V) of the full softmax; tied, the weights are the embedding's."""
    return parameters.get("decoder.weight", parameters["embedding.weight"]), parameters["decoder.bias"]


def _is_adaptive(parameters: Mapping[str, Tensor]) -> bool:
    return "decoder.head.weight" in parameters


def _adaptive_losses(parameters: Mapping[str, Tensor], outputs_TBH: Tensor, targets_TB: Tensor) -> Tensor:
    """Of each target that counts, in float32."""
    counts_TB = targets_TB.ne(IGNORED)
    log_probabilities_N, _ = _call_adaptive(parameters, outputs_TBH[counts_TB], targets_TB[counts_TB])
    losses_N: Tensor = -log_probabilities_N.float()
    return losses_N


def _call_adaptive(parameters: Mapping[str, Tensor], outputs_NH: Tensor, targets_N: Tensor | None) -> Any:
    """PyTorch's module with our parameters in its places: with targets its forward pass, without `log_prob`.

    In float32 always: it writes log-probabilities into a buffer of its input's type.
    """
    own = {name.removeprefix("decoder."): value for name, value in parameters.items() if name.startswith("decoder.")}
    module = _adaptive(len(parameters["embedding.weight"]), outputs_NH.shape[-1])
    with torch.autocast(outputs_NH.device.type, enabled=False):
        if targets_N is not None:
            return torch.func.functional_call(module, own, (outputs_NH.float(), targets_N))
        inner = {f"of.{name}": value for name, value in own.items()}
        return torch.func.functional_call(_LogProbabilities(module), inner, outputs_NH.float())


class _LogProbabilities(torch.nn.Module):
    """`log_prob` as a forward pass, which is what `functional_call` calls."""

    def __init__(self, of: torch.nn.AdaptiveLogSoftmaxWithLoss) -> None:
        super().__init__()
        self.of = of

    def forward(self, outputs_NH: Tensor) -> Tensor:
        return self.of.log_prob(outputs_NH)


@functools.cache
def _adaptive(vocabulary: int, hidden: int) -> torch.nn.AdaptiveLogSoftmaxWithLoss:
    """The module's structure, without memory (Grave et al. 2017): frequent symbols have all of H, rare ones less."""
    cutoffs = [max(number, round(share * vocabulary)) for number, share in enumerate(CUTOFFS, start=1)]
    cutoffs = [cutoff for cutoff in cutoffs if cutoff < vocabulary]
    shrinking = min(SHRINKING, hidden ** (1 / len(CUTOFFS)))  # the last part sees one dimension at least
    with torch.device("meta"):
        return torch.nn.AdaptiveLogSoftmaxWithLoss(hidden, vocabulary, cutoffs, div_value=shrinking)
