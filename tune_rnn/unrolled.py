"""GRU and plain RNN over a window on a processor, for which PyTorch has no fused kernel.

PyTorch takes the window apart into a graph of small steps and adds up the weights' gradients step by step. Here a
window is one node of the graph: products with the inputs are one product for all time steps, and so are the gradients
of the weights; factors of the backward pass that do not wait for later steps are calculated for all of them at once.
What is left for a time step is one product with the hidden state and a few element-wise operations in place.

Shapes: T time steps, B streams, I input size, H hidden size, G gates of the cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tune_rnn.products import product_type

Gradients = tuple[Tensor, Tensor, Tensor]
"""Of the products with the inputs and with the hidden states, each (T·B, G·H), and of the first state (B, H)."""


class Unrolled(torch.autograd.Function):
    """`apply(cell, inputs (T, B, I), state (B, H), weight_input, weight_hidden, bias_input, bias_hidden)`.

    Returns the hidden states (T + 1, B, H), the given one first, and what the backward pass wants besides. Products are
    in bf16 under autocast, all else in float32.
    """

    @staticmethod
    def forward(
        cell: str,
        inputs_TBI: Tensor,
        state_BH: Tensor,
        weight_input: Tensor,
        weight_hidden: Tensor,
        bias_input: Tensor,
        bias_hidden: Tensor,
    ) -> tuple[Tensor, ...]:
        kind, (steps, streams, _) = product_type("cpu"), inputs_TBI.shape
        with torch.autocast("cpu", enabled=False):
            gates_NG = _product(inputs_TBI.flatten(0, 1), weight_input.t(), kind).add_(bias_input)
            hidden = state_BH.new_empty(steps + 1, *state_BH.shape, dtype=torch.float32)
            hidden[0] = state_BH
            run = _run_gru if cell == "gru" else _run_rnn
            kept = run(gates_NG.view(steps, streams, -1), hidden, weight_hidden.t().to(kind).contiguous(), bias_hidden)
        return hidden, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.cell, inputs_TBI, _, weight_input, weight_hidden, *_ = inputs
        ctx.kind = product_type("cpu")
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs_TBI, weight_input, weight_hidden, *output)

    @staticmethod
    def backward(ctx: Any, *coming: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs_TBI, weight_input, weight_hidden, hidden, *kept = ctx.saved_tensors
        assert coming[0] is not None
        back, kind = _back_gru if ctx.cell == "gru" else _back_rnn, ctx.kind
        of_input_NG, of_hidden_NG, of_state_BH = back(coming[0], hidden, weight_hidden.to(kind), *kept)
        before_NH = hidden[:-1].flatten(0, 1)
        of_inputs = _product(of_input_NG, weight_input, kind).view_as(inputs_TBI) if ctx.needs_input_grad[1] else None
        return (
            None,
            None if of_inputs is None else of_inputs.to(inputs_TBI.dtype),
            of_state_BH,
            _product(of_input_NG.t(), inputs_TBI.flatten(0, 1), kind),
            _product(of_hidden_NG.t(), before_NH, kind),
            of_input_NG.sum(0),
            of_hidden_NG.sum(0),
        )


def _steps(*of: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Time step by time step; tensors are taken apart in one go, as each index costs about as much as an operation."""
    return zip(*(one.unbind() for one in of), strict=True)


def _backwards(*of: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return reversed(list(_steps(*of)))


def _run_gru(gates_TBG: Tensor, hidden: Tensor, weight_HG: Tensor, bias_G: Tensor) -> tuple[Tensor, Tensor]:
    """Fill `hidden`; returns r, z and n, in place of the inputs' products, and the products with the hidden states."""
    size = hidden.shape[2]
    products_TBG = torch.empty_like(gates_TBG)
    reset, update, new = _thirds(gates_TBG)
    opening, of_opening, of_new = gates_TBG[..., : 2 * size], products_TBG[..., : 2 * size], _thirds(products_TBG)[2]
    by_step = (hidden[:-1], hidden[1:], products_TBG, opening, of_opening, new, reset, of_new, update)
    for before_BH, after_BH, product_BG, open_BG, of_open_BG, new_BH, reset_BH, of_new_BH, update_BH in _steps(
        *by_step
    ):
        _step_product(before_BH, weight_HG, bias_G, product_BG)
        open_BG.add_(of_open_BG).sigmoid_()
        new_BH.addcmul_(reset_BH, of_new_BH).tanh_()
        torch.lerp(new_BH, before_BH, update_BH, out=after_BH)
    return gates_TBG, products_TBG


def _back_gru(coming: Tensor, hidden: Tensor, weight_GH: Tensor, gates_TBG: Tensor, products_TBG: Tensor) -> Gradients:
    """h' = n + z·(h - n) with n = tanh(x + r·p), p being the product with h: what h' hands on, as factors first."""
    steps, streams, size = hidden[1:].shape
    reset, update, new = _thirds(gates_TBG)
    closing = 1 - update
    of_new = torch.square(new).neg_().add_(1).mul_(closing)
    factors = gates_TBG.new_empty(steps, streams, 3, size)
    of_product = torch.mul(of_new, reset, out=factors[:, :, 2])
    of_reset = torch.mul(of_product, _thirds(products_TBG)[2], out=factors[:, :, 0])
    of_reset.addcmul_(of_reset, reset, value=-1)
    torch.sub(hidden[:-1], new, out=factors[:, :, 1]).mul_(update).mul_(closing)

    arriving, below_BH = torch.empty_like(of_new), torch.zeros_like(hidden[0])
    by_step = (coming[1:], arriving, arriving.unsqueeze(2), factors, factors.flatten(2), update)
    for coming_BH, arriving_BH, arriving_B1H, factors_B3H, factors_BG, update_BH in _backwards(*by_step):
        torch.add(coming_BH, below_BH, out=arriving_BH)
        factors_B3H.mul_(arriving_B1H)
        torch.mul(arriving_BH, update_BH, out=below_BH)
        _add_product(below_BH, factors_BG, weight_GH)
    of_hidden_NG = factors.view(-1, 3 * size)
    of_input_NG = of_hidden_NG.clone()
    torch.mul(of_new, arriving, out=of_input_NG.view_as(factors)[:, :, 2])
    return of_input_NG, of_hidden_NG, below_BH.add_(coming[0])


def _thirds(gates_TBG: Tensor) -> tuple[Tensor, ...]:
    return gates_TBG.chunk(3, -1)


def _run_rnn(gates_TBG: Tensor, hidden: Tensor, weight_HG: Tensor, bias_G: Tensor) -> tuple[()]:
    for before_BH, after_BH, from_input_BH in _steps(hidden[:-1], hidden[1:], gates_TBG):
        _step_product(before_BH, weight_HG, bias_G, after_BH).add_(from_input_BH).tanh_()
    return ()


def _back_rnn(coming: Tensor, hidden: Tensor, weight_GH: Tensor) -> Gradients:
    of_sum_TBH = torch.square(hidden[1:]).neg_().add_(1)
    below_BH = torch.zeros_like(hidden[0])
    for of_sum_BH, coming_BH in _backwards(of_sum_TBH, coming[1:]):
        of_sum_BH.mul_(below_BH.add_(coming_BH))
        _add_product(below_BH.zero_(), of_sum_BH, weight_GH)
    of_sum_NH = of_sum_TBH.flatten(0, 1)
    return of_sum_NH, of_sum_NH, below_BH.add_(coming[0])


def _step_product(left: Tensor, right: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """left · right + bias, in float32, with factors of the type of `right`."""
    if right.dtype == torch.float32:
        return torch.addmm(bias, left, right, out=out)
    return torch.add(left.to(right.dtype) @ right, bias, out=out)


def _add_product(to: Tensor, left: Tensor, right: Tensor) -> None:
    """to += left · right."""
    if right.dtype == torch.float32:
        to.addmm_(left, right)
    else:
        to.add_(left.to(right.dtype) @ right)


def _product(left: Tensor, right: Tensor, kind: torch.dtype) -> Tensor:
    return (left.to(kind) @ right.to(kind)).float()
