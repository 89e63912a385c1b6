"""A small Gaussian process that picks among proposals (Rasmussen and Williams 2006, chapter 2).

TPE looks at each hyperparameter by itself. What is good only together, this sees: it is told normal scores, the normal
distribution's quantiles of ranks, so that it asks neither how losses are scaled nor how bad the bad ones are.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from tune_rnn.search.comparison import Array

LENGTH = 0.35
"""Length scale over the square root of the number of axes: a little less than two random points are apart (0.41)."""

NOISE = 0.1  # variance of a score, of which all together have 1
CURIOSITY = 0.5
"""Of so many standard deviations a candidate gets the benefit of the doubt."""


def most_promising(told_NF: Array, ranks_N: Array, candidates_CF: Array, axes: int) -> int:
    """The candidate with the lowest confidence bound; the lowest of `ranks_N` (0 to 1) is the best trial's."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.special import ndtri

    length, scores_N = LENGTH * math.sqrt(axes), ndtri(ranks_N)
    told_NF, candidates_CF = told_NF / length, candidates_CF / length
    kernel_NN = matern(told_NF, told_NF) + NOISE * np.eye(len(told_NF))
    known_NC = matern(told_NF, candidates_CF)
    with _threads().limit(limits=1):
        solved_NC = cho_solve(cho_factor(kernel_NN, check_finite=False), known_NC, check_finite=False)
    mean_C = solved_NC.T @ (scores_N - scores_N.mean())
    deviation_C = np.sqrt(np.maximum(1 - (known_NC * solved_NC).sum(axis=0), 0))
    return int((mean_C - CURIOSITY * deviation_C).argmin())


@cache
def _threads() -> ThreadpoolController:
    """Where trials have the processors, several threads that wait for each other take ten times as long as one."""
    return ThreadpoolController()


def matern(a_AF: Array, b_BF: Array) -> Array:
    """Matérn's kernel of smoothness 5/2 and length scale 1 (A, B)."""
    squares = (a_AF * a_AF).sum(axis=1)[:, None] + (b_BF * b_BF).sum(axis=1) - 2 * a_AF @ b_BF.T
    distance = np.sqrt(5 * np.maximum(squares, 0))
    kernel: Array = (1 + distance + distance * distance / 3) * np.exp(-distance)
    return kernel
