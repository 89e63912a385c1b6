"""Parallel streams in windows of random length: in each pass other symbols stand at a window's edge.

Shapes: T time steps of a window, B parallel streams, D documents, P pieces. Positions, runs and pieces: see `windows`.
"""

from __future__ import annotations

import numpy as np

from tune_rnn.data.tokens import Split
from tune_rnn.data.windows import Batch, Integers, Spans, cut_pieces, cut_windows, documents_of

HALVED = 0.05
"""Probability of a window of about half the length."""

SPREAD = 5.0
SHORTEST = 5


class VariableWindows:
    """The variable-length windows of Merity et al. 2018, section 4.1, state carried between them.

    A window has N(T, 5²) steps, T being `length` or, with probability 0.05, half of it, and at least 5; the learning
    rate of its step is to be scaled by its length over `length`. The lengths of a pass are drawn from (seed, pass).
    All positions are cut into `streams` runs as in `StreamWindows`, and windows end with their document.
    """

    def __init__(self, split: Split, streams: int, length: int, documents: str = "separate", *, seed: int) -> None:
        self._first_token_D, positions_D = documents_of(split, documents)
        self._document_end_D = np.cumsum(positions_D)
        self._document_start_D = self._document_end_D - positions_D
        run_start = np.arange(streams + 1) * int(positions_D.sum()) // streams
        self._run_start_B, self._run_end_B = run_start[:-1], run_start[1:]
        self._steps = _steps_of_a_pass(positions_D, streams, length)
        self.tokens = np.asarray(split.tokens)
        self.streams, self._length, self._seed = streams, length, seed
        self._passes_before = 0
        self._plan = self._plan_of(0)
        self._plan_number = 0

    def __len__(self) -> int:
        """Batches (optimizer steps) that count as one pass: those of a pass on average."""
        return self._steps

    def spans(self, step: int) -> Spans:
        """Return the windows of a step >= 0, whatever was asked for before."""
        if step < self._passes_before:
            self._passes_before, self._plan_number, self._plan = 0, 0, self._plan_of(0)
        while step - self._passes_before >= len(self._plan):
            self._passes_before += len(self._plan)
            self._plan_number += 1
            self._plan = self._plan_of(self._plan_number)
        return self._plan[step - self._passes_before]

    def batch(self, step: int) -> Batch:
        """The symbols of `spans`."""
        return cut_windows(self.tokens, self.spans(step))

    def _plan_of(self, number: int) -> list[Spans]:
        """The windows of one pass."""
        generator, position_B = np.random.default_rng((self._seed, number)), self._run_start_B
        plan = []
        while (position_B < self._run_end_B).any():
            window = self._window(position_B, self._draw_length(generator))
            plan.append(window)
            position_B = position_B + window.length_B
        return plan

    def _draw_length(self, generator: np.random.Generator) -> int:
        base = self._length / 2 if generator.random() < HALVED else float(self._length)
        return max(SHORTEST, round(generator.normal(base, SPREAD)))

    def _window(self, position_B: Integers, length: int) -> Spans:
        document_B = np.searchsorted(self._document_end_D, position_B, side="right")
        document_B = np.minimum(document_B, len(self._document_end_D) - 1)  # streams that have ended
        end_B = np.minimum(self._document_end_D[document_B], self._run_end_B)
        offset_B = position_B - self._document_start_D[document_B]
        fresh_B = (offset_B == 0) | (position_B == self._run_start_B) | (position_B >= self._run_end_B)
        length_B = np.clip(end_B - position_B, 0, length)
        return Spans(self._first_token_D[document_B] + offset_B, length_B, fresh_B)


def _steps_of_a_pass(positions_D: Integers, streams: int, length: int) -> int:
    """The windows of the run that has most, each of the mean length or up to the end of its piece."""
    run_piece, _, positions_P = cut_pieces(positions_D, streams)
    mean = max(length * (1 - HALVED / 2), SHORTEST)
    windows_before_P = np.concatenate([[0], np.cumsum(np.ceil(positions_P / mean))])
    return int(np.diff(windows_before_P[run_piece]).max())
