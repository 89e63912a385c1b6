"""Synthetic learning curves of recurrent networks: two families, each with as many members as there are seeds.

A curve falls from ln(vocabulary) by a power law to a floor, as losses of language models do (Hestness et al. 2017).
The floor is a bowl around an optimum of the member's own, with an interaction between learning rate and batch size;
of the seven hyperparameters some matter much more than others, as they do in practice (Bergstra and Bengio 2012).

    crossing   what learns faster ends higher: a low learning rate, much dropout and large networks begin slowly and
               end best, so that stopping early by the loss alone stops the best
    noisy      each report has noise, and trials with a high learning rate diverge, some at once and some late
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tune_rnn import space
from tune_rnn.errors import InputError
from tune_rnn.space import Distribution

START = math.log(65)  # nats: every one of 65 symbols alike
FLOOR = 1.2
FAMILIES = ("crossing", "noisy")


class Synthetic:
    """One member of a family: `Synthetic("noisy", seed=3)`.

    Raises InputError for a family that does not exist.
    """

    space: dict[str, Distribution] = {  # noqa: RUF012 (never changed)
        "training.learning_rate": space.log_uniform(1e-4, 1e-1),
        "training.batch_size": space.log_int(8, 128),
        "model.hidden_size": space.int(64, 512, 64),
        "model.cell": space.choice("lstm", "gru", "rnn"),
        "regularizers.input_dropout": space.uniform(0, 0.6),
        "regularizers.output_dropout": space.uniform(0, 0.6),
        "regularizers.l2": space.log_uniform(1e-8, 1e-2),
    }

    def __init__(self, family: str, seed: int = 0, max_resource: int = 50) -> None:
        if family not in FAMILIES:
            raise InputError("blackbox", "there is no such family", f"There are {' and '.join(FAMILIES)}.", family)
        self.family, self.seed, self.max_resource = family, seed, max_resource
        generator = np.random.default_rng((seed, FAMILIES.index(family)))
        self.optimum = dict(zip(self.space, generator.uniform(0.2, 0.8, len(self.space)), strict=True))
        weights = generator.permutation([3.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1])
        weights[0] = 4.0  # the learning rate matters most
        self.weights = dict(zip(self.space, weights, strict=True))
        self.cells = generator.permutation([0.0, 0.3, 1.0])

    @property
    def optimum_config(self) -> dict[str, Any]:
        """The configuration of the lowest floor."""
        place = {**self.optimum, "model.cell": (int(self.cells.argmin()) + 0.5) / 3}
        return {key: distribution.from_unit(place[key]) for key, distribution in self.space.items()}

    def curve(self, config: Mapping[str, Any]) -> list[float]:
        """Losses in nats after each unit of the resource; NaN from where a trial diverges."""
        place = {key: distribution.to_unit(config[key]) for key, distribution in self.space.items()}
        excess = self._excess(place)
        floor = FLOOR + (START - FLOOR) * (1 - math.exp(-excess))
        scale, power = self._speed(place)
        steps = np.arange(1, self.max_resource + 1)
        losses = floor + (START - floor) * (1 + steps / scale) ** -power
        return self._with_noise(losses, place) if self.family == "noisy" else losses.tolist()

    def _excess(self, place: Mapping[str, float]) -> float:
        """How far from the optimum, 0 at it: a weighted sum of squares."""
        shift = dict(place)
        shift["training.learning_rate"] -= 0.4 * (place["training.batch_size"] - self.optimum["training.batch_size"])
        total = 0.0
        for key, weight in self.weights.items():
            if key == "model.cell":
                total += 0.3 * float(self.cells[int(place[key] * 3)])
            else:
                total += weight * (shift[key] - self.optimum[key]) ** 2
        return total / 2

    def _speed(self, place: Mapping[str, float]) -> tuple[float, float]:
        """Scale in units of the resource, and power, of the fall."""
        if self.family == "noisy":
            return 1.0, 1.2
        slow = 1 - place["training.learning_rate"] + place["regularizers.input_dropout"] + place["model.hidden_size"]
        return 0.2 * 80 ** (slow / 3), 1.5

    def _with_noise(self, losses: np.ndarray[Any, Any], place: Mapping[str, float]) -> list[float]:
        """Noise that belongs to the configuration, so that a curve is the same whenever it is asked for."""
        key = zlib.crc32(repr(sorted(place.items())).encode())
        generator = np.random.default_rng((self.seed, key))
        noisy = losses + 0.03 * generator.standard_normal(len(losses))
        danger = 6 * (place["training.learning_rate"] - 0.75 - 0.2 * place["training.batch_size"])
        if generator.random() < 1 / (1 + math.exp(-4 * danger)):
            noisy[int(self.max_resource * generator.random() ** 3) :] = math.nan
        return [float(loss) for loss in noisy]
