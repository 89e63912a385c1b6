"""Batches for recurrent networks: parallel streams with carried state, and independent windows in random order.

Shapes: T time steps of a window, B parallel streams (or independent windows). A *position* is one prediction:
the token at `i` is the input, the token at `i + 1` the target. A document of n tokens has n - 1 positions, so
no window crosses from one document into the next. Both classes are pure functions of the batch's index: where
training is in the data is one integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_rnn.data.tokens import Split
from tune_rnn.errors import InputError

IGNORE = -100  # the target of padding; torch's cross-entropy skips this value by default

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Where B windows are: each one's first token and number of positions (0: none), and whether its state is new."""

    first_token_B: Integers  # noqa: N815 (the shape is part of the name)
    length_B: Integers  # noqa: N815
    fresh_B: NDArray[np.bool_]  # noqa: N815

    @property
    def steps(self) -> int:
        """T, the length of the longest window."""
        return int(self.length_B.max())

    @property
    def predictions(self) -> int:
        """Targets that count."""
        return int(self.length_B.sum())


@dataclass(frozen=True)
class Batch:
    """B windows of at most T tokens; `fresh_B`: zero the state first; `predictions`: targets that count."""

    inputs_TB: Integers  # noqa: N815 (the shape is part of the name)
    targets_TB: Integers  # noqa: N815
    fresh_B: NDArray[np.bool_]  # noqa: N815
    predictions: int


class StreamWindows:
    """Parallel streams for truncated back-propagation through time, state carried between windows.

    All positions, in order, are cut into `streams` runs whose lengths differ by at most one; each run is
    walked in windows of at most `length` positions. A window also ends where its document does, and the next
    one starts fresh. One pass predicts every position exactly once. Streams that have ended are padded with
    IGNORE, and a window shorter than its batch is always the last before a fresh one, so that padding never
    reaches a state that is carried on.

    A *piece* is the part of a document inside one run; memory grows with their number, not with the text.
    """

    def __init__(self, split: Split, streams: int, length: int, documents: str = "separate") -> None:
        first_token_D, positions_D = documents_of(split, documents)
        first_position_D = np.cumsum(positions_D) - positions_D
        run_piece, piece_start_P, self._positions_P = cut_pieces(positions_D, streams)
        document_P = np.searchsorted(first_position_D, piece_start_P, side="right") - 1

        self.streams, self._length = streams, length
        self.tokens = np.asarray(split.tokens)
        self._first_token_P = first_token_D[document_P] + piece_start_P - first_position_D[document_P]
        windows_before_P = np.concatenate([[0], np.cumsum(-(-self._positions_P // length))])
        self._first_window_P = windows_before_P[:-1]
        run_window = windows_before_P[run_piece]
        self._first_window_B, self._end_window_B = run_window[:-1], run_window[1:]

    def __len__(self) -> int:
        """Batches (optimizer steps) in one pass."""
        return int((self._end_window_B - self._first_window_B).max())

    def spans(self, index: int) -> Spans:
        """Return the `index`-th window of every stream; after `len(self)` of them the next pass begins."""
        index %= len(self)
        window_B = self._first_window_B + index
        ended_B = window_B >= self._end_window_B
        piece_B = np.searchsorted(self._first_window_P, window_B, side="right") - 1
        offset_B = (window_B - self._first_window_P[piece_B]) * self._length
        length_B = np.minimum(self._positions_P[piece_B] - offset_B, self._length)
        length_B[ended_B] = 0
        first_token_B = self._first_token_P[piece_B] + offset_B
        return Spans(first_token_B, length_B, ended_B | (offset_B == 0))

    def batch(self, index: int) -> Batch:
        """The symbols of `spans`."""
        return cut_windows(self.tokens, self.spans(index))


class RandomWindows:
    """Independent windows with fresh state, in an order shuffled anew for each pass.

    A pass lays windows side by side over the text, from a random place on, and takes them in random order: each
    position is predicted once in a pass, every time with another context. A window may overhang its document at
    either end and is then cut there, so that this holds in documents shorter than a window as well.
    """

    def __init__(self, split: Split, streams: int, length: int, documents: str = "separate", *, seed: int) -> None:
        self._first_token_D, self._positions_D = documents_of(split, documents)
        self._first_start_D = np.concatenate([[0], np.cumsum(self._positions_D + length - 1)])
        self.tokens = np.asarray(split.tokens)
        self.streams, self._length, self._seed = streams, length, seed
        self._windows = -(-int(self._first_start_D[-1]) // length)
        self._pass, self._shift, self._order_W = -1, np.int64(0), np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Batches (optimizer steps) in one pass; the last one is filled up with windows of the pass's beginning."""
        return -(-self._windows // self.streams)

    def spans(self, index: int) -> Spans:
        """Return the `index`-th batch's windows; any index >= 0 may be asked for."""
        number, place = divmod(index, len(self))
        if number != self._pass:
            generator = np.random.default_rng((self._seed, number))
            self._shift = generator.integers(self._first_start_D[-1])
            self._pass, self._order_W = number, generator.permutation(self._windows)
        chosen_B = np.arange(place * self.streams, (place + 1) * self.streams) % self._windows
        start_B = (self._shift + self._order_W[chosen_B] * self._length) % self._first_start_D[-1]
        document_B = np.searchsorted(self._first_start_D, start_B, side="right") - 1
        begin_B = start_B - self._first_start_D[document_B] - (self._length - 1)
        end_B = np.minimum(begin_B + self._length, self._positions_D[document_B])
        begin_B = np.maximum(begin_B, 0)
        first_token_B = self._first_token_D[document_B] + begin_B
        return Spans(first_token_B, end_B - begin_B, np.ones(self.streams, dtype=bool))

    def batch(self, index: int) -> Batch:
        """The symbols of `spans`."""
        return cut_windows(self.tokens, self.spans(index))


def documents_of(split: Split, documents: str) -> tuple[Integers, Integers]:
    """Return (first token, number of positions) of every document in which there is something to predict."""
    first_token_D = split.document_starts if documents == "separate" else split.document_starts[:1]
    positions_D = np.diff(first_token_D, append=len(split)) - 1
    predictable_D = positions_D > 0
    if not predictable_D.any():
        raise InputError("task", "no document has two symbols, so there is nothing to predict")
    return first_token_D[predictable_D], positions_D[predictable_D]


def cut_pieces(positions_D: Integers, streams: int) -> tuple[Integers, Integers, Integers]:
    """Return each run's first piece, and behind it the number of pieces (B + 1,); each piece's start and positions."""
    total = int(positions_D.sum())
    run_start = np.arange(streams + 1) * total // streams
    piece_start_P = np.union1d(run_start[:-1], np.cumsum(positions_D) - positions_D)
    piece_start_P = piece_start_P[piece_start_P < total]
    return np.searchsorted(piece_start_P, run_start), piece_start_P, np.diff(piece_start_P, append=total)


def cut_windows(tokens: NDArray[Any], spans: Spans) -> Batch:
    """Gather the windows' symbols; behind their ends, inputs are 0 and targets IGNORE."""
    longest, length_B = spans.steps, spans.length_B
    index_TB = np.arange(longest + 1)[:, None] + spans.first_token_B
    # Clipped because padding may lie behind the last token.
    window_TB = tokens.take(index_TB, mode="clip").astype(np.int64)
    inputs_TB, targets_TB = window_TB[:-1], window_TB[1:].copy()
    if int(length_B.min()) < longest:
        padding_TB = np.arange(longest)[:, None] >= length_B
        inputs_TB[padding_TB], targets_TB[padding_TB] = 0, IGNORE
    return Batch(inputs_TB, targets_TB, spans.fresh_B, spans.predictions)
