"""The recurrent language model, written as functions of parameters, carried state, batch and masks.

Embedding → stack of RNN, LSTM or GRU layers → decoder (`tune_rnn.decoder`). No pass through it draws a random number or
looks at the strength of a regulariser: masks come in from outside (`regularizers.draw_masks`), so the same functions
serve one trial and, mapped with `torch.func.vmap`, many trials side by side.

Shapes: T time steps, B streams, V symbols, E embedding size, H hidden size of a layer, G gates of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_rnn import decoder
from tune_rnn.recurrence import FUSED, GATES, LayerState, Zoneout, fused, in_one_block, stepwise

FORGET_BIAS = 1.0
"""Initial bias of the LSTM's forget gate: a new network remembers (Jozefowicz et al. 2015, section 3.2)."""

FEW_SYMBOLS = 1000
"""Up to so many symbols an embedding begins with large values: each of them is seen often enough to change them."""

Parameters = dict[str, Tensor]
State = tuple[LayerState, ...]
"""Carried state: for each layer (hidden,) or, for an LSTM, (hidden, cell), each of shape (1, B, H)."""


@dataclass(frozen=True)
class Sizes:
    """What a model's tensors are shaped by. `hidden` has one size per layer.

    `decoder` is "softmax" or "adaptive"; `layer_norm` is "none", "between" (on the outputs of each layer but the last)
    or "cell" (inside each layer).
    """

    cell: str
    vocabulary: int
    embedding: int
    hidden: tuple[int, ...]
    tied: bool = False
    decoder: str = "softmax"
    layer_norm: str = "none"

    @classmethod
    def of(
        cls,
        vocabulary: int,
        *,
        cell: str,
        embedding_size: int,
        hidden_size: int,
        layers: int,
        tied: bool,
        decoder: str = "softmax",
        layer_norm: str = "none",
    ) -> Sizes:
        """Sizes of a configured model; tied, the last layer takes the embedding's size (AWD-LSTM)."""
        last = embedding_size if tied else hidden_size
        hidden = (hidden_size,) * (layers - 1) + (last,)
        return cls(cell, vocabulary, embedding_size, hidden, tied, decoder, layer_norm)

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
        if sizes.layer_norm == "cell":
            named[f"layer{layer}.gain_input"] = named[f"layer{layer}.gain_hidden"] = (rows,)
        if sizes.layer_norm == "cell" and sizes.cell == "lstm":
            named[f"layer{layer}.gain_cell"] = named[f"layer{layer}.bias_cell"] = (hidden,)
        if sizes.layer_norm == "between" and layer < len(sizes.hidden) - 1:
            named[f"layer{layer}.gain"] = named[f"layer{layer}.bias"] = (hidden,)
    decoding = decoder.shapes(sizes.decoder, sizes.vocabulary, sizes.hidden[-1])
    return named | {name: shape for name, shape in decoding.items() if not (sizes.tied and name == "decoder.weight")}


def count_parameters(sizes: Sizes) -> int:
    """Trainable numbers of a model of these sizes."""
    return sum(math.prod(shape) for shape in shapes(sizes).values())


def initialise(
    sizes: Sizes, generator: torch.Generator, *, scheme: str = "orthogonal", forget_bias: float = FORGET_BIAS
) -> Parameters:
    """New parameters by name, on the CPU.

    Decoder: uniform in ±0.1, and so is an embedding of many symbols, or one that is tied to it (Zaremba et al. 2014).
    With up to FEW_SYMBOLS an untied embedding is standard normal, as `torch.nn.Embedding` has it: the inputs then have
    the size that Glorot's weights are meant for, and learning begins sooner (`benchmarks/embedding.py`). Symbols that
    are rare would keep for long what they began with.

    Scheme "orthogonal": input-to-hidden Glorot uniform for each gate, hidden-to-hidden orthogonal for each gate (Saxe
    et al. 2014), biases 0. Scheme "uniform": a layer's weights and biases uniform in ±1/√H, as `torch.nn.LSTM` has
    them. In both an LSTM's forget gate begins with `forget_bias` as the sum of its two biases, and normalisation with
    gains of 1.
    """
    parameters = {name: torch.zeros(shape) for name, shape in shapes(sizes).items()}
    for name, value in parameters.items():
        place, _, kind = name.partition(".")
        if place == "embedding" and sizes.vocabulary <= FEW_SYMBOLS and not sizes.tied:
            value.normal_(generator=generator)
        elif place == "embedding" or (place == "decoder" and kind != "bias"):
            value.uniform_(-0.1, 0.1, generator=generator)
        elif kind.startswith("gain"):
            value.fill_(1.0)
        elif kind in ("weight_input", "weight_hidden", "bias_input", "bias_hidden"):
            _initialise_layer(value, kind, GATES[sizes.cell], generator, scheme)
    for layer in range(len(sizes.hidden) if sizes.cell == "lstm" else 0):
        for name, bias in (("bias_input", forget_bias), ("bias_hidden", 0.0)):
            parameters[f"layer{layer}.{name}"].chunk(GATES["lstm"])[1].fill_(bias)
    return parameters


def _initialise_layer(value: Tensor, kind: str, gates: int, generator: torch.Generator, scheme: str) -> None:
    rows = value.shape[0] // gates
    if scheme == "uniform":
        value.uniform_(-(rows**-0.5), rows**-0.5, generator=generator)
    elif kind == "weight_input":
        bound = math.sqrt(6 / (value.shape[1] + rows))
        value.uniform_(-bound, bound, generator=generator)
    elif kind == "weight_hidden":
        for gate in value.chunk(gates):
            torch.nn.init.orthogonal_(gate, generator=generator)


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


def parts_of(state: State) -> list[Tensor]:
    """A state's tensors in a row; `state_of` is the way back."""
    return [part for layer in state for part in layer]


def state_of(sizes: Sizes, parts: Sequence[Tensor]) -> State:
    """The state whose tensors these are."""
    each = len(parts) // len(sizes.hidden)
    return tuple(tuple(parts[first : first + each]) for first in range(0, len(parts), each))


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


def masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """The values times a mask that may be missing."""
    return values if mask is None else values * mask


def recur(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    layer: int,
    inputs_TBI: Tensor,
    state: LayerState,
    masks: Mapping[str, Tensor],
) -> tuple[Tensor, LayerState]:
    """One recurrent layer over a window: outputs (T, B, H) and its new state; fused where nothing acts inside."""
    prefix = f"layer{layer}."
    weights = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
    dropped = masks.get(f"weight{layer}")
    weights["weight_hidden"] = masked(weights["weight_hidden"], dropped)
    zoneout = Zoneout(masks.get(f"zoneout_hidden{layer}"), masks.get(f"zoneout_cell{layer}"))
    if zoneout or sizes.layer_norm == "cell":
        return stepwise(sizes.cell, weights, inputs_TBI, state, zoneout)
    if dropped is not None and dropped.is_cuda:
        weights = in_one_block(weights)
    return fused(sizes.cell, weights, inputs_TBI, state)


def encode(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    state: State,
    inputs_TB: Tensor,
    masks: Mapping[str, Tensor],
) -> tuple[Tensor, State]:
    """The last layer's outputs (T, B, H), and the state after the window.

    `masks` has any of "embedding" (V, 1), "input" (·, B, E), "hidden0" … (·, B, H) after all layers but the last and,
    for each layer, "weight0" … (G·H, H), "zoneout_hidden0" … and "zoneout_cell0" … (`Zoneout`). The first dimension of
    a mask of activations is 1 (one for all steps of the window) or T. A missing mask leaves its place untouched.
    """
    values = embed(parameters, inputs_TB, masks.get("input"), masks.get("embedding"))
    after = []
    for layer, before in enumerate(state):
        values, layer_state = recur(sizes, parameters, layer, values, before, masks)
        after.append(layer_state)
        gain = parameters.get(f"layer{layer}.gain")
        if gain is not None:
            bias = parameters[f"layer{layer}.bias"]
            values = torch.nn.functional.layer_norm(values.float(), gain.shape, gain, bias)
        values = masked(values, masks.get(f"hidden{layer}"))
    return values, tuple(after)


def forward(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    state: State,
    inputs_TB: Tensor,
    masks: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State]:
    """Logits (T, B, V) of the full softmax for the symbol after each input, and the state after the window.

    `masks`: see `encode`, and "output" (·, B, H) on the last layer's outputs.
    """
    masks = masks or {}
    outputs_TBH, after = encode(sizes, parameters, state, inputs_TB, masks)
    return decoder.logits(parameters, masked(outputs_TBH, masks.get("output"))), after


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
    for name, weight in zip(FUSED, module._flat_weights, strict=True):
        with torch.no_grad():
            weight.copy_(parameters[prefix + name])
        parameters[prefix + name] = weight.detach()
