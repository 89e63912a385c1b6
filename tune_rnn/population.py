"""Population based training (Jaderberg et al. 2017, arXiv 1711.09846): who takes over whose weights, what mutates.

After every interval a trial among the worst quarter of the population takes over weights, optimizer and whole
configuration of one of the best quarter, and changes its learning rate and strengths a little. This file decides, and
knows nothing of Ray or of files: `tune_rnn.study.population` carries out.

Trials are compared by their validation loss at the same budget, that of the weights which would be copied, not by the
lowest so far. The paper compares whatever the others have shown last; it takes fifths, and so much from each task.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from tune_rnn.config.conflicts import AVERAGES
from tune_rnn.config.distributions import Distribution, Scalar
from tune_rnn.errors import InputError
from tune_rnn.schema import StudyConfig
from tune_rnn.space import Assignment, Space

if TYPE_CHECKING:
    import numpy as np

LEAST = 4
"""Trials of the smallest population: a quarter of it is one."""

FACTORS = (0.8, 1.2)
RESAMPLED = 0.25
"""How likely a value is drawn anew instead of multiplied by one of `FACTORS`."""


def mutable(space: Space, branch: str | None) -> dict[str, Distribution]:
    """What mutates in a branch: the learning rate, and the strengths of regularisers, where a range is searched.

    A choice has no neighbours to mutate to. Averages of the weights stay, as they have begun or not.
    """
    return {
        key: distribution
        for key, distribution in space.distributions(branch).items()
        if (key == "training.learning_rate" or key.startswith("regularizers."))
        and key not in AVERAGES
        and distribution.categories() is None
    }


def mutate(assignment: Assignment, space: Space, generator: np.random.Generator) -> Assignment:
    """Change each mutable value of an assignment, within its distribution in the assignment's branch."""
    changed = {
        key: _mutated(distribution, assignment[key], generator)
        for key, distribution in mutable(space, assignment.get("one_of")).items()
    }
    return {**assignment, **changed}


def _mutated(distribution: Distribution, value: Any, generator: np.random.Generator) -> Scalar:
    draw, factor = generator.random(), float(generator.choice(FACTORS))
    return distribution.from_unit(generator.random()) if draw < RESAMPLED else perturb(distribution, value, factor)


def perturb(distribution: Distribution, value: Any, factor: float) -> Scalar:
    """A number times a factor, within its distribution: the nearest of finitely many, but at least the next one.

    A strength of 0 in a continuous range stays off until it is drawn anew.
    """
    low, *_, high = map(float, distribution.corners())
    wanted: float = min(max(value * factor, low), high)
    values = distribution.values()
    if values is None:
        return wanted
    numbers, last = cast(Sequence[float], values), len(values) - 1
    above = min(bisect.bisect_left(numbers, wanted), last)
    nearest = min((max(above - 1, 0), above), key=lambda place: abs(numbers[place] - wanted))
    place = numbers.index(value)
    return numbers[min(max(nearest, place + 1), last) if factor > 1 else max(min(nearest, place - 1), 0)]


def source(
    number: int, losses: Mapping[int, float], available: Collection[int], generator: np.random.Generator
) -> int | None:
    """Whose weights trial `number` takes over, if any.

    `losses` are those of all trials that have got to the same budget, infinite for diverged ones, which are replaced
    wherever they stand; `available` are trials whose weights at that budget still exist.
    """
    ranked = sorted(losses, key=lambda one: (losses[one], one))
    quarter = len(ranked) // 4
    if number not in ranked[len(ranked) - quarter :] and math.isfinite(losses[number]):
        return None
    best = [one for one in ranked[: max(1, quarter)] if one in available and math.isfinite(losses[one])]
    return int(generator.choice(best)) if best else None


def check_population(study: StudyConfig, space: Space) -> None:
    """Refuse what a population cannot be trained with; where nothing is searched there is none."""
    if study.scheduler.algorithm != "pbt" or space.is_empty:
        return
    with_pbt = "with scheduler.algorithm: pbt"
    if study.search.algorithm != "random":
        rule = f"must be random {with_pbt}, which draws its population at random and then mutates it"
        raise InputError("search.algorithm", rule, "Write search.algorithm: random.", study.search.algorithm)
    trials = study.budget.trials
    if trials is None or trials < LEAST:
        rule = f"must be at least {LEAST} {with_pbt}: it is the size of the population"
        raise InputError("budget.trials", rule, "Write for example budget.trials: 16.", trials)
    if not any(mutable(space, branch) for branch in space.branches or [None]):
        rule = "mutates the learning rate and strengths of regularisers, and none of them is searched over a range"
        remedy = "Write for example training.learning_rate: {log_uniform: [0.001, 0.03]}."
        raise InputError("scheduler.algorithm", rule, remedy, "pbt")
    whole, first = study.budget.amount, study.scheduler.first_rung
    if first is not None and first >= whole:
        rule = f"must be less than budget.{study.budget.unit}, {whole:,.10g}, {with_pbt}, which compares in between"
        raise InputError("scheduler.first_rung", rule, "Lower it, or raise the budget.", first)
    if study.final is not None and study.final.top_k:
        rule = f"trains configurations again, and {with_pbt} these change while they train"
        raise InputError("final.top_k", rule, "Write final.top_k: 0, or another scheduler.", study.final.top_k)
