"""The loss that trials are compared by: one protocol, whatever a trial trains with.

The split is read once in order, in parallel streams whose state is carried from window to window, without
dropout and without penalties. Streams and window depend on the split's length alone, never on a trial's batch.
Every prediction of the split counts once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tune_rnn.data import Batch, Split, StreamWindows
from tune_rnn.decoder import total_cross_entropy
from tune_rnn.model import Sizes, encode, reset_state, zero_state
from tune_rnn.precision import autocast

WINDOW = 128
MOST_STREAMS = 32
SHORTEST_STREAM = 1024
"""A stream starts from a zero state; streams of at least this many symbols make that negligible."""


def evaluation_windows(split: Split, documents: str) -> StreamWindows:
    """The windows of the protocol: 1 to 32 streams of at least 1,024 symbols, 128 symbols a window."""
    streams = max(1, min(MOST_STREAMS, split.predictions // SHORTEST_STREAM))
    return StreamWindows(split, streams, WINDOW, documents)


def to_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """A batch's inputs (T, B), targets (T, B) and fresh flags (B) on `device`."""
    inputs, targets, fresh = (
        torch.from_numpy(array).to(device) for array in (batch.inputs_TB, batch.targets_TB, batch.fresh_B)
    )
    return inputs, targets, fresh


@torch.no_grad()
def evaluate(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    windows: StreamWindows,
    precision: str = "fp32",
    masks: Mapping[str, Tensor] | None = None,
) -> float:
    """Mean cross-entropy in nats per predicted symbol, state carried through the whole split.

    `masks` are those of evaluation (`regularizers.expected_masks`).
    """
    device = parameters["embedding.weight"].device
    state = zero_state(sizes, windows.streams, device)
    total, predictions = torch.zeros((), dtype=torch.float64, device=device), 0
    for index in range(len(windows)):
        batch = windows.batch(index)
        inputs_TB, targets_TB, fresh_B = to_tensors(batch, device)
        with autocast(device, precision):
            outputs_TBH, state = encode(sizes, parameters, reset_state(state, fresh_B), inputs_TB, masks or {})
            total += total_cross_entropy(parameters, outputs_TBH, targets_TB).double()
        predictions += batch.predictions
    return float(total) / predictions
