"""A Gaussian process that picks among proposals."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from tune_rnn.search.picking import CURIOSITY, LENGTH, NOISE, most_promising


def test_it_sees_what_is_good_only_together() -> None:
    """Good is where both coordinates are alike: each by itself tells nothing."""
    rng = np.random.default_rng(0)
    told = rng.uniform(-0.5, 0.5, (60, 2))
    ranks = (np.abs(told[:, 0] - told[:, 1]).argsort().argsort() + 0.5) / 60
    candidates = np.array([[-0.3, 0.3], [0.3, -0.3], [0.25, 0.3], [-0.3, 0.4]])
    assert most_promising(told, ranks, candidates, axes=2) == 2


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 5))
def test_it_is_the_textbook_s(seed: int, count: int, axes: int) -> None:
    """Rasmussen and Williams 2006, equations 2.23 and 2.24, written out."""
    rng = np.random.default_rng(seed)
    told, candidates, ranks = rng.random((count, axes)), rng.random((6, axes)), rng.uniform(0.01, 0.99, count)

    def kernel(a: Any, b: Any) -> float:
        r = np.sqrt(5) * np.linalg.norm(a - b) / (LENGTH * np.sqrt(axes))
        return float((1 + r + r * r / 3) * np.exp(-r))

    inverse = np.linalg.inv(np.array([[kernel(a, b) for b in told] for a in told]) + NOISE * np.eye(count))
    bounds = []
    for candidate in candidates:
        known = np.array([kernel(one, candidate) for one in told])
        mean = known @ inverse @ (ndtri(ranks) - ndtri(ranks).mean())
        bounds.append(mean - CURIOSITY * np.sqrt(max(1 - known @ inverse @ known, 0)))
    picked = most_promising(told, ranks, candidates, axes)
    assert bounds[picked] <= min(bounds) + 1e-9
