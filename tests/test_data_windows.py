"""Windows: every position once, no border crossed, fresh exactly where the state must not be carried.

The token arrays here are 0, 1, 2, …, so that a token is its own place in the text.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tune_rnn.data import IGNORE, Batch, RandomWindows, Split, StreamWindows, VariableWindows
from tune_rnn.errors import InputError

document_sizes = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 60)), min_size=1, max_size=12).filter(
    lambda sizes: max(sizes) > 1
)
streams_and_length = st.tuples(st.integers(1, 40), st.integers(1, 20))


def split_of(sizes: list[int]) -> Split:
    return Split(np.arange(sum(sizes), dtype=np.uint16), np.cumsum([0, *sizes[:-1]], dtype=np.int64))


def expected_positions(sizes: list[int]) -> list[int]:
    """All tokens but the last of each document."""
    ends = np.cumsum(sizes)
    return [place for place in range(int(ends[-1])) if place + 1 not in ends]


def windows_of(batch: Batch) -> list[NDArray[np.int64]]:
    """The positions of each window of a batch, after checking its form."""
    assert batch.inputs_TB.shape == batch.targets_TB.shape
    assert batch.inputs_TB.dtype == batch.targets_TB.dtype == np.int64
    assert batch.fresh_B.shape == batch.inputs_TB.shape[1:]
    real_TB = batch.targets_TB != IGNORE
    lengths_B = real_TB.sum(axis=0)
    assert lengths_B.max() == len(real_TB), "no longer than its longest window"
    assert batch.predictions == lengths_B.sum()
    assert (real_TB == (np.arange(len(real_TB))[:, None] < lengths_B)).all(), "padding comes last"
    assert (batch.inputs_TB[~real_TB] == 0).all()
    assert (batch.targets_TB == np.where(real_TB, batch.inputs_TB + 1, IGNORE)).all()
    return [batch.inputs_TB[:length, stream] for stream, length in enumerate(lengths_B)]


def one_pass(windows: VariableWindows, number: int = 0) -> tuple[list[Batch], int]:
    """The batches of a pass, and the step it begins at."""
    first = sum(len(windows._plan_of(before)) for before in range(number))
    return [windows.batch(first + index) for index in range(len(windows._plan_of(number)))], first


@given(document_sizes, streams_and_length, st.integers(0, 2))
def test_variable_windows_predict_every_position_once_a_pass(
    sizes: list[int], shape: tuple[int, int], number: int
) -> None:
    split, (streams, length) = split_of(sizes), shape
    batches, _ = one_pass(VariableWindows(split, streams, length, seed=3), number)
    runs = [[place for window in stream for place in window] for stream in zip(*map(windows_of, batches), strict=True)]
    assert [place for run in runs for place in run] == expected_positions(sizes)
    assert sum(batch.predictions for batch in batches) == split.predictions
    starts = {*np.cumsum([0, *sizes[:-1]]).tolist(), *(run[0] for run in runs if run)}
    for batch in batches:
        for stream, window in enumerate(windows_of(batch)):
            assert batch.fresh_B[stream] == (len(window) == 0 or int(window[0]) in starts)


def test_variable_windows_have_their_lengths() -> None:
    windows = VariableWindows(split_of([200_000]), 1, 70, seed=0)
    batches, _ = one_pass(windows)
    lengths = np.array([len(batch.inputs_TB) for batch in batches[:-1]])
    long = lengths[lengths > 52]
    assert len(long) / len(lengths) == pytest.approx(0.95, abs=0.01)
    assert long.mean() == pytest.approx(70, abs=0.5)
    assert long.std() == pytest.approx(5, abs=0.5)
    assert lengths.min() >= 5
    assert len(batches) == pytest.approx(len(windows), rel=0.02)
    assert len(set(lengths[:20])) > 3


@pytest.mark.parametrize("sizes", [[21] * 4000, [21, 300, 2, 1000] * 100])
@pytest.mark.parametrize("streams", [1, 7])
def test_variable_windows_count_the_steps_of_a_pass_through_short_documents(sizes: list[int], streams: int) -> None:
    windows = VariableWindows(split_of(sizes), streams, 70, seed=0)
    assert len(windows) == pytest.approx(len(windows._plan_of(0)), rel=0.05)


def test_variable_windows_differ_from_pass_to_pass_and_are_a_function_of_the_step() -> None:
    windows, again = (VariableWindows(split_of([5000]), 4, 30, seed=1) for _ in range(2))
    steps = [*range(120), 60, 0, 119]
    for step in steps:
        assert (windows.batch(step).inputs_TB == again.batch(step).inputs_TB).all()
    assert (VariableWindows(split_of([5000]), 4, 30, seed=1).batch(119).inputs_TB == again.batch(119).inputs_TB).all()
    (first, _), (second, _) = one_pass(windows, 0), one_pass(windows, 1)
    assert [len(batch.inputs_TB) for batch in first] != [len(batch.inputs_TB) for batch in second]


@given(document_sizes, streams_and_length)
def test_streams_predict_every_position_once(sizes: list[int], shape: tuple[int, int]) -> None:
    split, (streams, length) = split_of(sizes), shape
    windows = StreamWindows(split, streams, length)
    passes = [windows_of(windows.batch(index)) for index in range(len(windows))]
    runs = [[place for window in stream for place in window.tolist()] for stream in zip(*passes, strict=True)]
    assert [place for run in runs for place in run] == expected_positions(sizes), "in order, one after another"
    assert max(map(len, runs)) - min(map(len, runs)) <= 1
    assert sum(windows.batch(index).predictions for index in range(len(windows))) == split.predictions
    assert max(len(window) for batch in passes for window in batch) <= length


@given(document_sizes, streams_and_length)
def test_state_is_carried_exactly_where_the_text_goes_on(sizes: list[int], shape: tuple[int, int]) -> None:
    windows = StreamWindows(split_of(sizes), *shape)
    batches = [windows.batch(index) for index in range(len(windows))]
    assert batches[0].fresh_B.all()
    for batch, following in pairwise(batches):
        pairs = zip(windows_of(batch), windows_of(following), following.fresh_B, strict=True)
        for window, next_window, fresh in pairs:
            if not len(next_window):
                assert fresh, "an ended stream has nothing to carry"
                continue
            goes_on = window[-1] + 1 == next_window[0]  # a border would leave one position out
            assert fresh != goes_on
            if not fresh:
                assert len(window) == len(batch.inputs_TB), "no padding between two windows of one text"


@given(document_sizes, streams_and_length)
def test_joined_documents_are_one_text(sizes: list[int], shape: tuple[int, int]) -> None:
    separate, one = split_of(sizes), split_of([sum(sizes)])
    joined, whole = StreamWindows(separate, *shape, "joined"), StreamWindows(one, *shape)
    assert len(joined) == len(whole)
    for index in range(len(whole)):
        assert (joined.batch(index).inputs_TB == whole.batch(index).inputs_TB).all()


def test_a_batch_spelt_out() -> None:
    windows = StreamWindows(split_of([6, 1, 3, 5]), 2, 3)
    # Positions 0-4, 7-8, 10-13: eleven, cut into five (documents one) and six (documents three and four).
    assert [windows.batch(index).inputs_TB.T.tolist() for index in range(len(windows))] == [
        [[0, 1, 2], [7, 8, 0]],
        [[3, 4, 0], [10, 11, 12]],
        [[0], [13]],
    ]
    assert windows.batch(0).targets_TB.T.tolist() == [[1, 2, 3], [8, 9, IGNORE]]
    assert windows.batch(1).targets_TB.T.tolist() == [[4, 5, IGNORE], [11, 12, 13]]
    assert [windows.batch(index).fresh_B.tolist() for index in range(3)] == [
        [True, True],
        [False, True],
        [True, False],
    ]


@given(document_sizes, streams_and_length, st.integers(0, 2**40))
def test_random_windows_stay_inside_a_document(sizes: list[int], shape: tuple[int, int], seed: int) -> None:
    split, (streams, length) = split_of(sizes), shape
    windows = RandomWindows(split, streams, length, seed=seed)
    positions = set(expected_positions(sizes))
    batch = windows.batch(3)
    assert batch.fresh_B.all()
    assert (batch.inputs_TB == windows.batch(3).inputs_TB).all(), "a function of seed and index"
    for window in windows_of(batch):
        assert 1 <= len(window) <= length
        assert (np.diff(window) == 1).all()
        assert set(window.tolist()) <= positions


@pytest.mark.parametrize("sizes", [[300], [2, 3, 5, 100, 9, 1, 40]])
def test_random_windows_predict_each_position_once_in_a_pass(sizes: list[int]) -> None:
    windows = RandomWindows(split_of(sizes), 4, 16, seed=1)
    counts, passes = np.zeros(sum(sizes)), 500
    for number in range(passes):
        before = counts.copy()
        for index in range(len(windows)):
            for window in windows_of(windows.batch(number * len(windows) + index)):
                counts[window] += 1
        in_pass = (counts - before)[expected_positions(sizes)]
        assert in_pass.min() == 1
        assert in_pass.mean() < 1.25, "but for what fills up the last batch"
    drawn = counts[expected_positions(sizes)]
    assert drawn.sum() == counts.sum()
    assert np.abs(drawn - drawn.mean()).max() < 5 * np.sqrt(passes * 0.25), "and all equally often in the long run"


def test_random_windows_of_a_pass_cut_the_text_at_other_places_in_another_order() -> None:
    windows = RandomWindows(split_of([5000]), 8, 10, seed=3)
    passes = [[windows.batch(number * len(windows) + index).inputs_TB for index in range(3)] for number in range(2)]
    begins = [np.concatenate([batch[0] for batch in batches]) for batches in passes]
    assert not set(begins[0]) & set(begins[1])
    assert np.any(np.diff(begins[0]) < 0)


def test_random_windows_differ_between_batches_and_seeds() -> None:
    split = split_of([1000])
    first, other = RandomWindows(split, 8, 4, seed=0), RandomWindows(split, 8, 4, seed=1)
    assert not np.array_equal(first.batch(0).inputs_TB, first.batch(1).inputs_TB)
    assert not np.array_equal(first.batch(0).inputs_TB, other.batch(0).inputs_TB)


def test_nothing_to_predict() -> None:
    with pytest.raises(InputError, match="nothing to predict"):
        StreamWindows(split_of([1, 1, 1]), 2, 4)
    with pytest.raises(InputError, match="nothing to predict"):
        RandomWindows(split_of([1, 1, 1]), 2, 4, seed=0)
    assert StreamWindows(split_of([1, 1, 1]), 1, 4, "joined").batch(0).inputs_TB.tolist() == [[0], [1]]
