"""HyperOpt's Parzen estimators, those of all axes at once: its own functions, axis by axis, take three times as long.

Letters after names are shapes: A axes, N values, M = N + 1 parts of a mixture, K categories, C candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from tune_rnn.search.comparison import Array

PRIOR_WEIGHT, PRIOR_MEAN, PRIOR_WIDTH = 1.0, 0.5, 1.0
"""HyperOpt's prior: its weight, in trials, and for numbers in [0, 1] its Gaussian."""

LEAST = -600.0
"""exp of less is no normal number, which takes ten times as long, and nothing beside the prior's density."""


class Numbers:
    """On each axis a Gaussian for each value and for the prior, as wide as it is far to the neighbours, within [0, 1].

    As `hyperopt.tpe.adaptive_parzen_normal`: `weights_N` are the values', and the last ones are the latest.
    """

    def __init__(self, values_AN: Array, weights_N: Array) -> None:
        axes, count = values_AN.shape
        means_AM = np.hstack([np.full((axes, 1), PRIOR_MEAN), values_AN])
        order_AM = means_AM.argsort(axis=1, kind="stable")
        self.means_AM = np.take_along_axis(means_AM, order_AM, axis=1)
        if count > 1:
            gaps = np.diff(self.means_AM, axis=1)
            widths_AM = np.maximum(np.hstack([gaps[:, :1], gaps]), np.hstack([gaps, gaps[:, -1:]]))
        else:
            widths_AM = np.full_like(self.means_AM, PRIOR_WIDTH / 2)
        self.widths_AM = np.clip(widths_AM, PRIOR_WIDTH / min(100, 2 + count), PRIOR_WIDTH)
        self.widths_AM[order_AM == 0] = PRIOR_WIDTH
        self.shares_AM = np.append(PRIOR_WEIGHT, weights_N)[order_AM] / (PRIOR_WEIGHT + weights_N.sum())

    def draw(self, count: int, generator: Generator) -> Array:
        """(A, C): a part by its weight within [0, 1], then a place on its Gaussian there."""
        from scipy.special import ndtr, ndtri

        low_AM, high_AM = ndtr(-self.means_AM / self.widths_AM), ndtr((1 - self.means_AM) / self.widths_AM)
        part_AC = _picked(self.shares_AM * (high_AM - low_AM), count, generator)
        low, high, means, widths = (
            np.take_along_axis(of_parts, part_AC, axis=1)
            for of_parts in (low_AM, high_AM, self.means_AM, self.widths_AM)
        )
        drawn_AC = means + widths * ndtri(low + (high - low) * generator.random(part_AC.shape))
        clipped_AC: Array = np.clip(drawn_AC, 0, 1)  # rounding may put an end a hair outside
        return clipped_AC

    def density(self, drawn_AC: Array) -> Array:
        """(A, C), but for a factor of each axis: how much of the Gaussians lies outside of [0, 1]."""
        exponent_ACM = drawn_AC[:, :, None] - self.means_AM[:, None]
        exponent_ACM /= self.widths_AM[:, None]
        exponent_ACM *= exponent_ACM
        exponent_ACM *= -0.5
        np.maximum(exponent_ACM, LEAST, out=exponent_ACM)
        density_AC: Array = np.einsum("acm,am->ac", np.exp(exponent_ACM), self.shares_AM / self.widths_AM)
        return density_AC


class Choices:
    """On each axis how often each category was chosen, and the prior once for each; `categories_A`: how many it has."""

    def __init__(self, values_AN: Array, weights_N: Array, categories_A: list[int]) -> None:
        axes, most = len(categories_A), max(categories_A)
        place_AN = values_AN.astype(int) + most * np.arange(axes)[:, None]
        chosen = np.bincount(place_AN.ravel(), np.tile(weights_N, axes), axes * most)
        counts_AK = chosen.reshape(axes, most) + PRIOR_WEIGHT * (np.arange(most) < np.array(categories_A)[:, None])
        self.shares_AK = counts_AK / counts_AK.sum(axis=1, keepdims=True)

    def draw(self, count: int, generator: Generator) -> Array:
        """(A, C), categories by their shares."""
        return _picked(self.shares_AK, count, generator).astype(float)

    def density(self, drawn_AC: Array) -> Array:
        """(A, C), the shares of categories."""
        return np.take_along_axis(self.shares_AK, drawn_AC.astype(int), axis=1)


def _picked(shares_AK: Array, count: int, generator: Generator) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """(A, C): on each axis so many indices, each drawn by its share, which need not sum to 1."""
    ends_AK = shares_AK.cumsum(axis=1)
    drawn_AC = ends_AK[:, -1:] * generator.random((len(shares_AK), count))
    picked: np.ndarray[tuple[int, int], np.dtype[np.intp]] = (drawn_AC[:, :, None] >= ends_AK[:, None, :-1]).sum(axis=2)
    return picked
