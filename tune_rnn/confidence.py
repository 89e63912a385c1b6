"""95 % intervals from a few values: of a mean over seeds, by bootstrap and by Student, and of a share.

A percentile bootstrap interval over few seeds is too narrow, as no resampled mean lies beyond the values that were
seen (`BOOTSTRAP_HOLDS`). Student's holds the truth in 95 % of cases whatever their number, but of normal noise alone.
What is to be trusted asks both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000

BOOTSTRAP_HOLDS = {2: 0.49, 3: 0.75, 4: 0.80, 5: 0.84, 6: 0.86, 7: 0.87, 8: 0.88, 9: 0.89, 10: 0.91}
"""In what share of cases a bootstrap interval of so many normal values holds the true mean, as simulated by a test."""

Ends = tuple[float, float]


def bootstrap_interval(values: Sequence[float], seed: int) -> Ends | None:
    """Percentile bootstrap interval of the mean (Efron 1979), from a generator of its own; None for a single value."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng((seed, 0xB007)).integers(len(values), size=(RESAMPLES, len(values)))
    means = np.asarray(values, dtype=float)[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def student_interval(values: Sequence[float]) -> Ends | None:
    """Student's interval of the mean; None for a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    mean, half = statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def share_interval(count: int, of: int) -> Ends:
    """The exact interval of a share (Clopper & Pearson 1934), from `count` of `of` draws; 0 to 1 for no draw."""
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, count, of - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1 - tail, count + 1, of - count)) if count < of else 1.0
    return low, high


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equals with their mean rank; None for fewer than 3 pairs, or where all are equal."""
    from scipy.stats import rankdata

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def as_list(ends: Ends | None) -> list[float] | None:
    """An interval as JSON has it."""
    return None if ends is None else list(ends)
