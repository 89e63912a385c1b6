"""A split's windows as tensors: cut by numpy for a processor; a GPU holds the split, and cuts them itself.

Then a step carries to the GPU only where its windows are, without waiting, and what does the cutting can be captured.

Shapes: T time steps, B streams, N symbols of a split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tune_rnn.data import IGNORE, RandomWindows, Spans, StreamWindows, VariableWindows, cut_windows

PIECE = 1 << 24
"""Symbols copied to a GPU at once."""

Window = tuple[Tensor, Tensor, Tensor]
"""Inputs (T, B), targets (T, B), and which streams begin a new text (B)."""


class Feed:
    """The windows of a split on a device."""

    def __init__(self, windows: StreamWindows | RandomWindows | VariableWindows, device: torch.device) -> None:
        self.windows, self.device = windows, device
        self.symbols_N = resident(windows.tokens, device) if device.type == "cuda" else torch.empty(0)

    def window(self, spans: Spans) -> Window:
        """The symbols of some windows."""
        if self.device.type == "cuda":
            return self.cut(upload(spans, self.device), spans.steps)
        batch = cut_windows(self.windows.tokens, spans)
        return torch.from_numpy(batch.inputs_TB), torch.from_numpy(batch.targets_TB), torch.from_numpy(batch.fresh_B)

    def cut(self, spans_3B: Tensor, steps: int) -> Window:
        """The same on a GPU, of windows the longest of which is known to have so many steps."""
        return cut(self.symbols_N, spans_3B, steps)


def resident(tokens: NDArray[Any], device: torch.device) -> Tensor:
    """A copy of a split on a device, (N), in the signed type of the same size, as torch cannot index all others."""
    signed = torch.empty(len(tokens), dtype=_SIGNED[tokens.dtype.itemsize], device=device)
    for first in range(0, len(tokens), PIECE):
        piece = np.array(tokens[first : first + PIECE])  # in memory, as torch warns of arrays that are read-only
        signed[first : first + PIECE] = torch.from_numpy(piece.view(f"i{piece.itemsize}"))
    return signed


_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def upload(spans: Spans, device: torch.device) -> Tensor:
    """First token, length and freshness of each window, (3, B), on a device; the host does not wait for a GPU."""
    host = torch.from_numpy(np.stack([spans.first_token_B, spans.length_B, spans.fresh_B]))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def cut(symbols_N: Tensor, spans_3B: Tensor, steps: int) -> Window:
    """Gather windows as `data.windows.cut_windows` does, with no look at a number on the device."""
    first_token_B, length_B, fresh_B = spans_3B.unbind()
    step_T1 = torch.arange(steps + 1, device=symbols_N.device).unsqueeze(1)
    index_TB = (step_T1 + first_token_B).clamp(max=len(symbols_N) - 1)
    window_TB = symbols_N[index_TB].long() & _MASKS[symbols_N.dtype]
    padding_TB = step_T1[:-1] >= length_B
    inputs_TB, targets_TB = window_TB[:-1].masked_fill(padding_TB, 0), window_TB[1:].masked_fill(padding_TB, IGNORE)
    return inputs_TB, targets_TB, fresh_B.bool()


_MASKS = {torch.int8: 0xFF, torch.int16: 0xFFFF, torch.int32: 0xFFFF_FFFF}
"""What makes a sign-extended symbol unsigned again."""
