"""The loss that trials are compared by: one protocol, whatever a trial trains with.

The split is read once in order, in parallel streams whose state is carried from window to window, without
dropout and without penalties. Streams and window depend on the split's length alone, never on a trial's batch.
Every prediction of the split counts once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tune_rnn.data import Split, StreamWindows
from tune_rnn.decoder import total_cross_entropy
from tune_rnn.feed import Feed
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


@torch.no_grad()
def evaluate(
    sizes: Sizes,
    parameters: Mapping[str, Tensor],
    feed: Feed,
    precision: str = "fp32",
    masks: Mapping[str, Tensor] | None = None,
) -> float:
    """Mean cross-entropy in nats per predicted symbol, state carried through the whole split.

    `masks` are those of evaluation (`regularizers.expected_masks`).
    """
    state = zero_state(sizes, feed.windows.streams, feed.device)
    total, predictions = torch.zeros((), dtype=torch.float64, device=feed.device), 0
    for index in range(len(feed.windows)):
        spans = feed.windows.spans(index)
        inputs_TB, targets_TB, fresh_B = feed.window(spans)
        with autocast(feed.device, precision):
            outputs_TBH, state = encode(sizes, parameters, reset_state(state, fresh_B), inputs_TB, masks or {})
            total += total_cross_entropy(parameters, outputs_TBH, targets_TB).double()
        predictions += spans.predictions
    return float(total) / predictions
