"""Recorded learning curves of RNN trainings as a black box: the TaskSet tables (Metz et al. 2020).

A table has 1,000 configurations of Adam with eight hyperparameters, each with the losses at 51 checkpoints. A search
asks for configurations between them, so a smooth model is fitted to the table: the logarithms of the curves
are written in their principal components, and each component is a Gaussian process over the hyperparameters (the
mean of its posterior; length scales by leave-one-out error, Rasmussen and Williams 2006, section 5.4.2). A second
one tells where trials diverge. Reading the nearest row instead would punish every search that learns, as it
would land on the same few rows again and again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from tune_rnn import space
from tune_rnn.errors import InputError
from tune_rnn.search.picking import matern
from tune_rnn.space import Distribution

Array = NDArray[np.float64]

EXPLAINED = 0.995  # of the curves' variance, by the components that are kept
FIT_ROWS = 200
"""Length scales are searched on so many rows: all of them would take half a minute a table."""

LEAST_DIVERGED = 5  # fewer say nothing about where


class TaskSet:
    """A TaskSet table: `TaskSet("…_LSTM128_bs128.json")`; the resource is a fiftieth of a whole training.

    `best` and `median` are those of the table's losses at the end. Raises InputError for another kind of file.
    """

    max_resource = 50
    space: dict[str, Distribution] = {  # noqa: RUF012 (never changed)
        "learning_rate": space.log_uniform(1e-8, 1e1),
        "one_minus_beta1": space.log_uniform(1e-4, 1.0),
        "one_minus_beta2": space.log_uniform(1e-6, 1.0),
        "epsilon": space.log_uniform(1e-10, 1e3),
        "l1": space.log_uniform(1e-8, 1e1),
        "l2": space.log_uniform(1e-8, 1e1),
        "linear_decay": space.log_uniform(1e-7, 1e-4),
        "exponential_decay": space.log_uniform(1e-6, 1e-3),
    }

    def __init__(self, path: str | Path) -> None:
        places, curves = _read(Path(path), self.space)
        with threadpool_limits(1):  # two threads on busy cores wait for each other, up to forty times as long
            self._fit(places, curves)

    def _fit(self, places: Array, curves: Array) -> None:
        start, curves = float(np.median(curves[:, 0])), curves[:, 1:]
        sound = np.isfinite(curves).all(axis=1)
        self.best, self.median = float(curves[sound, -1].min()), float(np.median(curves[sound, -1]))
        logs = np.log(np.minimum(curves[sound], 2 * start))  # twice the loss before training is as bad as 1e18
        self.mean = logs.mean(axis=0)
        _, values, components = np.linalg.svd(logs - self.mean, full_matrices=False)
        count = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), EXPLAINED)) + 1
        self.components = components[:count]
        self.model = _Smooth.fit(places[sound], (logs - self.mean) @ self.components.T)
        diverged = (~sound).sum() >= LEAST_DIVERGED
        self.divergence = _Smooth.fit(places, np.where(sound, -1.0, 1.0)[:, None]) if diverged else None

    def curve(self, config: Mapping[str, Any]) -> list[float]:
        """Validation losses after each fiftieth of the training; NaN from the second on where it diverges."""
        place = np.array([one.to_unit(config[key]) for key, one in self.space.items()])
        losses = np.exp(self.mean + self.model.at(place) @ self.components)
        if self.divergence is not None and self.divergence.at(place)[0] > 0:
            losses[1:] = np.nan
        return [float(loss) for loss in losses]


def _read(path: Path, searched: Mapping[str, Distribution]) -> tuple[Array, Array]:
    """Places in the unit cube (N, 8) and validation losses (N, 51) of a table."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        given = [{**row["hp"], **{f"one_minus_{b}": 1 - row["hp"][b] for b in ("beta1", "beta2")}} for row in rows]
        curves = np.array([row["valid"]["loss"] for row in rows], dtype=float)
        ends = {key: one.corners() for key, one in searched.items()}
        inside = [{key: min(max(row[key], low), high) for key, (low, high) in ends.items()} for row in given]
    except (OSError, ValueError, KeyError, TypeError) as error:
        rule = f"must be a TaskSet table, a JSON list of records with hp and valid ({type(error).__name__}: {error})"
        raise InputError(str(path), rule, "Take a file of github machinelearningnuremberg/DPL, data/taskset.") from None
    places = np.array([[one.to_unit(row[key]) for key, one in searched.items()] for row in inside])
    return places, curves


@dataclass(frozen=True)
class _Smooth:
    """Means of Gaussian processes with one kernel, Matérn 5/2 with a length scale for each axis, of zero prior mean."""

    places: Array
    scales: Array
    mean: Array
    weights: Array

    @classmethod
    def fit(cls, places: Array, targets: Array) -> _Smooth:
        """Fit to targets (N, K); length scales and noise are those that predict the first column best."""
        few = np.random.default_rng(0).permutation(len(places))[:FIT_ROWS]
        scales, noise = _best_scales(places[few], targets[few, 0])
        mean = targets.mean(axis=0)
        kernel = matern(places / scales, places / scales) + noise * np.eye(len(places))
        return cls(places / scales, scales, mean, cho_solve(cho_factor(kernel), targets - mean))

    def at(self, place: Array) -> Array:
        prediction: Array = self.mean + matern(place[None] / self.scales, self.places)[0] @ self.weights
        return prediction


def _best_scales(places: Array, target: Array) -> tuple[Array, float]:
    """Coordinate search over the length scales, from 1 on all axes."""
    scales = np.ones(places.shape[1])
    error, noise = _leave_one_out(places / scales, target)
    for _ in range(2):
        for axis in range(len(scales)):
            for factor in (0.4, 0.65, 1.6, 3.0):
                tried = scales.copy()
                tried[axis] = np.clip(scales[axis] * factor, 0.05, 30)
                its_error, its_noise = _leave_one_out(places / tried, target)
                if its_error < error:
                    error, noise, scales = its_error, its_noise, tried
    return scales, noise


def _leave_one_out(places: Array, target: Array) -> tuple[float, float]:
    """The lowest mean squared error of predicting each target from the others, over levels of noise, and that level."""
    values, vectors = np.linalg.eigh(matern(places, places))
    projected = vectors.T @ (target - target.mean())
    errors = []
    for noise in (1e-3, 1e-2, 3e-2, 0.1, 0.3):
        inverse = 1 / (np.maximum(values, 0) + noise)
        left_out = (vectors @ (inverse * projected)) / ((vectors * vectors) @ inverse)
        errors.append((float(np.mean(left_out**2)), noise))
    return min(errors)
