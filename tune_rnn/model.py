"""The recurrent language model, written as functions of parameters, carried state, batch and masks.

Embedding → stack of RNN, LSTM or GRU layers → decoder. Nothing here draws a random number or looks at the
strength of a regulariser: dropout masks come in from outside (`regularizers.draw_masks`), so the same functions
serve one trial and, mapped with `torch.func.vmap`, many trials side by side.

Shapes: T time steps, B streams, V symbols, E embedding size, H hidden size of a layer, G gates of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Gates of each cell: its weights have G·H rows (PyTorch's order: RNN -, GRU r z n, LSTM i f g o)."""

FORGET_BIAS = 1.0
"""Initial bias of the LSTM's forget gate: a new network remembers (Jozefowicz et al. 2015, section 3.2)."""

Parameters = dict[str, Tensor]
State = tuple[tuple[Tensor, ...], ...]
"""Carried state: for each layer (hidden,) or, for an LSTM, (hidden, cell), each of shape (1, B, H)."""


@dataclass(frozen=True)
class Sizes:
    """What a model's tensors are shaped by. `hidden` has one size per layer."""

    cell: str
    vocabulary: int
    embedding: int
    hidden: tuple[int, ...]
    tied: bool = False

    @classmethod
    def of(cls, vocabulary: int, *, cell: str, embedding_size: int, hidden_size: int, layers: int, tied: bool) -> Sizes:
        """Sizes of a configured model; tied, the last layer takes the embedding's size (AWD-LSTM)."""
        last = embedding_size if tied else hidden_size
        return cls(cell, vocabulary, embedding_size, (hidden_size,) * (layers - 1) + (last,), tied)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Input size of each layer."""
        return (self.embedding, *self.hidden[:-1])


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, by name; nothing is allocated."""
    named: dict[str, tuple[int, ...]] = {"embedding.weight": (sizes.vocabulary, sizes.embedding)}
    for layer, (inputs, hidden) in enumerate(zip(sizes.inputs, sizes.hidden, strict=True)):
        rows = GATES[sizes.cell] * hidden
        named[f"layer{layer}.weight_input"] = (rows, inputs)
        named[f"layer{layer}.weight_hidden"] = (rows, hidden)
        named[f"layer{layer}.bias_input"] = named[f"layer{layer}.bias_hidden"] = (rows,)
    if not sizes.tied:
        named["decoder.weight"] = (sizes.vocabulary, sizes.hidden[-1])
    named["decoder.bias"] = (sizes.vocabulary,)
    return named


def count_parameters(sizes: Sizes) -> int:
    """Trainable numbers of a model of these sizes."""
    return sum(math.prod(shape) for shape in shapes(sizes).values())


def initialise(sizes: Sizes, generator: torch.Generator) -> Parameters:
    """New parameters by name, on the CPU.

    Embedding and decoder: uniform in ±0.1. Input-to-hidden: Glorot uniform for each gate. Hidden-to-hidden:
    orthogonal for each gate (Saxe et al. 2014). Biases 0, but `FORGET_BIAS` for an LSTM's forget gate.
    """
    gates = GATES[sizes.cell]
    parameters = {name: torch.zeros(shape) for name, shape in shapes(sizes).items()}
    for name, value in parameters.items():
        if name in ("embedding.weight", "decoder.weight"):
            value.uniform_(-0.1, 0.1, generator=generator)
        elif name.endswith("weight_input"):
            bound = math.sqrt(6 / (value.shape[1] + value.shape[0] // gates))
            value.uniform_(-bound, bound, generator=generator)
        elif name.endswith("weight_hidden"):
            for gate in value.chunk(gates):
                torch.nn.init.orthogonal_(gate, generator=generator)
        elif name.endswith("bias_input") and sizes.cell == "lstm":
            value.chunk(gates)[1].fill_(FORGET_BIAS)
    return parameters


def zero_state(sizes: Sizes, streams: int, device: torch.device | None = None) -> State:
    """The state before the first symbol of a text."""
    parts = 2 if sizes.cell == "lstm" else 1
    return tuple(tuple(torch.zeros(1, streams, hidden, device=device) for _ in range(parts)) for hidden in sizes.hidden)


def reset_state(state: State, fresh_B: Tensor) -> State:
    """Zero the state of the streams that begin a new text."""
    keep_B1 = (~fresh_B).to(state[0][0].dtype).unsqueeze(-1)
    return tuple(tuple(part * keep_B1 for part in layer) for layer in state)


def detach_state(state: State) -> State:
    """Cut the graph: gradients do not reach back into the last window (truncated back-propagation)."""
    return tuple(tuple(part.detach().float() for part in layer) for layer in state)


def embed(
    parameters: Mapping[str, Tensor],
    inputs_TB: Tensor,
    mask: Tensor | None = None,
    symbols_V1: Tensor | None = None,
) -> Tensor:
    """Embedded symbols, (T, B, E), times the input mask and, of each symbol, its entry in `symbols_V1`."""
    embedded = torch.nn.functional.embedding(inputs_TB, parameters["embedding.weight"])
    if symbols_V1 is not None:
        embedded = embedded * torch.nn.functional.embedding(inputs_TB, symbols_V1)
    return masked(embedded, mask)


def decode(parameters: Mapping[str, Tensor], outputs_TBH: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits (T, B, V) of the next symbol, from the last layer's outputs times the output mask."""
    weight = parameters.get("decoder.weight", parameters["embedding.weight"])
    return torch.nn.functional.linear(masked(outputs_TBH, mask), weight, parameters["decoder.bias"])


def masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """The values times a mask that may be missing."""
    return values if mask is None else values * mask


def recur(
    cell: str,
    parameters: Mapping[str, Tensor],
    layer: int,
    inputs_TBI: Tensor,
    state: tuple[Tensor, ...],
    weight_mask: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One recurrent layer over a window by PyTorch's fused kernels: outputs (T, B, H) and its new state.

    `weight_mask`, (G·H, H), multiplies the hidden-to-hidden weights for the whole window (DropConnect).
    """
    weights = [
        parameters[f"layer{layer}.{name}"] for name in ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
    ]
    weights[1] = masked(weights[1], weight_mask)
    train = torch.is_grad_enabled()  # without it the kernels keep nothing for a backward pass
    options = (weights, True, 1, 0.0, train, False, False)  # biases, 1 layer, no dropout, …, time first
    if cell == "lstm":
        outputs_TBH, hidden, memory = torch.lstm(inputs_TBI, state, *options)
        return outputs_TBH, (hidden, memory)
    kernel = torch.gru if cell == "gru" else torch.rnn_tanh
    outputs_TBH, hidden = kernel(inputs_TBI, state[0], *options)
    return outputs_TBH, (hidden,)


def encode(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    state: State,
    inputs_TB: Tensor,
    masks: Mapping[str, Tensor],
) -> tuple[Tensor, State]:
    """The last layer's outputs (T, B, H), and the state after the window.

    `masks` has any of "embedding" (V, 1), "input" (·, B, E), "weight0" … (G·H, H) for each layer, "hidden0" …
    (·, B, H) after all layers but the last; the first dimension of those of a window is 1 (one mask for all its steps)
    or T. A missing mask leaves its place untouched.
    """
    values = embed(parameters, inputs_TB, masks.get("input"), masks.get("embedding"))
    after = []
    for layer, before in enumerate(state):
        values, layer_state = recur(sizes.cell, parameters, layer, values, before, masks.get(f"weight{layer}"))
        after.append(layer_state)
        values = masked(values, masks.get(f"hidden{layer}"))
    return values, tuple(after)


def forward(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    state: State,
    inputs_TB: Tensor,
    masks: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State]:
    """Logits (T, B, V) for the symbol after each input, and the state after the window.

    `masks`: see `encode`, and "output" (·, B, H) on the last layer's outputs.
    """
    masks = masks or {}
    outputs_TBH, after = encode(sizes, parameters, state, inputs_TB, masks)
    return decode(parameters, outputs_TBH, masks.get("output")), after


def cross_entropy(logits_TBV: Tensor, targets_TB: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats over the targets that count (padding is -100), computed in float32."""
    return torch.nn.functional.cross_entropy(
        logits_TBV.flatten(0, 1).float(), targets_TB.flatten(), ignore_index=-100, reduction=reduction
    )


def to_device(parameters: Parameters, device: torch.device) -> Parameters:
    """Copies on `device`; on a GPU each layer's weights share one block, as cuDNN wants them."""
    moved = {name: value.detach().to(device, copy=True) for name, value in parameters.items()}
    if device.type == "cuda":
        for layer in range(sum(name.endswith("weight_hidden") for name in moved)):
            _share_one_block(moved, f"layer{layer}.")
    return moved


def _share_one_block(parameters: Parameters, prefix: str) -> None:
    """Lay a layer's weights out as `torch.nn.RNNBase.flatten_parameters` does (else cuDNN copies them each call)."""
    hidden, inputs = (
        parameters[prefix + "weight_hidden"].shape[1],
        parameters[prefix + "weight_input"].shape[1],
    )
    gates = parameters[prefix + "weight_hidden"].shape[0] // hidden
    module_class = {1: torch.nn.RNN, 3: torch.nn.GRU, 4: torch.nn.LSTM}[gates]
    module = module_class(inputs, hidden).to(parameters[prefix + "weight_hidden"].device)
    names = ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
    for name, weight in zip(names, module._flat_weights, strict=True):
        with torch.no_grad():
            weight.copy_(parameters[prefix + name])
        parameters[prefix + name] = weight.detach()
