"""Intervals from a few values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tune_rnn.confidence import (
    BOOTSTRAP_HOLDS,
    bootstrap_interval,
    rank_correlation,
    share_interval,
    student_interval,
)

VALUES = [1.41, 1.38, 1.44, 1.40, 1.43, 1.37, 1.39]


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    theirs = stats.bootstrap((VALUES,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert bootstrap_interval(VALUES, seed=0) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_an_interval_is_the_same_each_time_and_moves_with_the_values() -> None:
    interval = bootstrap_interval(VALUES, seed=3)
    assert interval == bootstrap_interval(VALUES, seed=3)
    assert interval != bootstrap_interval(VALUES, seed=4)
    moved = bootstrap_interval([value + 1 for value in VALUES], seed=3)
    assert interval is not None
    assert moved == pytest.approx((interval[0] + 1, interval[1] + 1))


def test_one_value_has_no_interval() -> None:
    assert bootstrap_interval([1.0], seed=0) is None
    assert student_interval([1.0]) is None


def test_of_three_values_the_bootstrap_can_tell_no_more_than_their_ends() -> None:
    assert bootstrap_interval([1.0, 1.2, 1.5], seed=0) == (1.0, 1.5)


@pytest.mark.parametrize("seeds", [2, 3, 6, 10])
def test_how_often_a_bootstrap_interval_holds_the_mean(seeds: int) -> None:
    generator = np.random.default_rng(0)
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=4000) / seeds
    means = weights @ generator.standard_normal((seeds, 2000))
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(BOOTSTRAP_HOLDS[seeds], abs=0.02)


def test_student_s_interval_is_that_of_scipy() -> None:
    theirs = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert student_interval(VALUES) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("count", "of"), [(0, 2), (1, 4), (3, 8), (5, 5)])
def test_the_interval_of_a_share_is_the_exact_one(count: int, of: int) -> None:
    theirs = stats.binomtest(count, of).proportion_ci(method="exact")
    assert share_interval(count, of) == pytest.approx((theirs.low, theirs.high))


def test_a_share_of_nothing_may_be_anything() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)


def test_the_rank_correlation_is_spearman_s_with_infinite_losses_last() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 4.0], [0.5, 0.7, 0.6, 0.9, 1.0]
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0, float("inf")]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
