"""One recurrent layer over a window: by PyTorch's fused kernels, or step by step where they do not reach.

Zoneout and layer normalisation inside the cell change what happens between two time steps, which the fused kernels
(oneDNN, cuDNN) do not let anybody into. The step-by-step way is plain PyTorch, slower (the catalogue says by how much),
and maps over trials with `torch.func.vmap`.

Shapes: T time steps, B streams, I input size, H hidden size, G gates of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from tune_rnn.products import product_type
from tune_rnn.unrolled import Unrolled

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Gates of each cell: its weights have G·H rows (PyTorch's order: RNN -, GRU r z n, LSTM i f g o)."""

Weights = Mapping[str, Tensor]
"""`weight_input` (G·H, I), `weight_hidden` (G·H, H), `bias_input` and `bias_hidden` (G·H); with normalisation inside
the cell also `gain_input` and `gain_hidden` (G·H) and, of an LSTM, `gain_cell` and `bias_cell` (H)."""

LayerState = tuple[Tensor, ...]
"""(hidden,) or, for an LSTM, (hidden, cell), each (1, B, H)."""


@dataclass(frozen=True)
class Zoneout:
    """Which units keep the state of the step before: 1 keeps, 0 takes the new one, (T or 1, B or 1, H or 1) each.

    In training entries are drawn; in evaluation they are the rates, which gives the expected state (Krueger et al.
    2017). None: no unit keeps it.
    """

    hidden: Tensor | None = None
    cell: Tensor | None = None

    def at(self, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Both masks at one time step."""
        hidden, cell = (None if mask is None else mask[step % len(mask)] for mask in (self.hidden, self.cell))
        return hidden, cell

    def __bool__(self) -> bool:
        return self.hidden is not None or self.cell is not None


FUSED = ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
"""What the kernels take, in the order in which cuDNN lays it out."""


def in_one_block(weights: Weights, kind: torch.dtype | None = None) -> dict[str, Tensor]:
    """The same weights, of another type if need be, as views of one new tensor.

    cuDNN copies those of a layer that lie apart, at each call. Weights that a mask has multiplied do; all others are
    laid out once (`model.to_device`).
    """
    block = torch.cat([weights[name].flatten() for name in FUSED]).to(kind)
    parts = torch.split(block, [weights[name].numel() for name in FUSED])
    return {name: part.view(weights[name].shape) for name, part in zip(FUSED, parts, strict=True)}


def fused(cell: str, weights: Weights, inputs_TBI: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
    """Outputs (T, B, H) and the new state, by PyTorch's kernels, or ours where it has none.

    Under autocast on a GPU all that cuDNN sees is converted in one go.
    """
    if inputs_TBI.is_cuda and torch.is_autocast_enabled("cuda"):
        kind = product_type("cuda")
        weights, state = in_one_block(weights, kind), tuple(part.to(kind) for part in state)
        with torch.autocast("cuda", enabled=False):
            return fused(cell, weights, inputs_TBI.to(kind), state)
    flat = [weights[name] for name in FUSED]
    if cell != "lstm" and inputs_TBI.device.type == "cpu":
        hidden, *_ = Unrolled.apply(cell, inputs_TBI, state[0][0], *flat)  # type: ignore[no-untyped-call]
        return hidden[1:], (hidden[-1:],)
    train = torch.is_grad_enabled()  # without it the kernels keep nothing for a backward pass
    options = (flat, True, 1, 0.0, train, False, False)  # biases, 1 layer, no dropout, …, time first
    if cell == "lstm":
        outputs_TBH, hidden, memory = torch.lstm(inputs_TBI, state, *options)
        return outputs_TBH, (hidden, memory)
    kernel = torch.gru if cell == "gru" else torch.rnn_tanh
    outputs_TBH, hidden = kernel(inputs_TBI, state[0], *options)
    return outputs_TBH, (hidden,)


def stepwise(
    cell: str, weights: Weights, inputs_TBI: Tensor, state: LayerState, zoneout: Zoneout
) -> tuple[Tensor, LayerState]:
    """The same, one time step after another; normalised inside the cell where `weights` has its gains."""
    advance = {"lstm": _lstm_step, "gru": _gru_step, "rnn": _rnn_step}[cell]
    from_input_TBG = _product(inputs_TBI, weights, "input")
    now, outputs = tuple(part[0] for part in state), []
    for step, from_input_BG in enumerate(from_input_TBG):
        from_hidden_BG = _product(now[0], weights, "hidden")
        new = advance(weights, from_input_BG, from_hidden_BG, now)
        now = tuple(_kept(*parts) for parts in zip(new, now, zoneout.at(step), strict=False))  # a cell state: LSTM's
        outputs.append(now[0])
    return torch.stack(outputs), tuple(part.unsqueeze(0) for part in now)


def _product(values: Tensor, weights: Weights, of: str) -> Tensor:
    """W·x + b, or with layer normalisation LN(W·x)·g + b, over all gates together (Ba et al. 2016).

    That is the paper's LSTM. We do the same in the other cells: its GRU normalises the candidate apart from the gates,
    and its plain RNN the sum of both products.
    """
    product = linear(values, weights[f"weight_{of}"])
    gain = weights.get(f"gain_{of}")
    if gain is not None:
        product = layer_norm(product.float(), gain.shape, gain)
    return product + weights[f"bias_{of}"]


def _lstm_step(weights: Weights, from_input_BG: Tensor, from_hidden_BG: Tensor, state: LayerState) -> LayerState:
    """The new hidden state is made of the new cell state before zoneout, as Krueger et al. 2017 have it."""
    i, f, g, o = (from_input_BG + from_hidden_BG).chunk(4, -1)
    memory_BH = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    gain = weights.get("gain_cell")
    seen_BH = memory_BH if gain is None else layer_norm(memory_BH, gain.shape, gain, weights["bias_cell"])
    return torch.sigmoid(o) * torch.tanh(seen_BH), memory_BH


def _gru_step(weights: Weights, from_input_BG: Tensor, from_hidden_BG: Tensor, state: LayerState) -> LayerState:
    (r, z, n), (r_hidden, z_hidden, n_hidden) = from_input_BG.chunk(3, -1), from_hidden_BG.chunk(3, -1)
    new_BH = torch.tanh(n + torch.sigmoid(r + r_hidden) * n_hidden)
    return (new_BH + torch.sigmoid(z + z_hidden) * (state[0] - new_BH),)


def _rnn_step(weights: Weights, from_input_BG: Tensor, from_hidden_BG: Tensor, state: LayerState) -> LayerState:
    return (torch.tanh(from_input_BG + from_hidden_BG),)


def _kept(new: Tensor, old: Tensor, keep: Tensor | None) -> Tensor:
    return new if keep is None else new + keep * (old - new)
