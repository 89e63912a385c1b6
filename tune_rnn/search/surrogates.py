"""Optuna's models (Akiba et al. 2019), asked for one point each time: multivariate TPE and a Gaussian process.

For each proposal a study is made in memory, filled with what is known, and asked once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from tune_rnn.search.comparison import Array
from tune_rnn.search.coordinates import Axes, Cube, Point
from tune_rnn.search.learning import Learner, Told
from tune_rnn.space import Space

if TYPE_CHECKING:
    import optuna

CANDIDATES = 8
"""Of so many draws TPE takes the best; with Optuna's 24 a joint density seldom leaves what it found first."""


class OptunaTPE(Learner):
    """Multivariate TPE (Falkner et al. 2018; Watanabe 2023): it sees which values are good together.

    Branches have a density each, beside that of the parameters they share. Trials that have not reported count as bad.
    """

    def __init__(self, space: Space, seed: int) -> None:
        import optuna  # noqa: F401 (here, so that no trial waits for it)

        super().__init__(space, seed)

    def ask(self, told: Told, seed: int) -> Point:
        from optuna.samplers import TPESampler

        with _apart():
            sampler = TPESampler(
                n_startup_trials=0,
                n_ei_candidates=CANDIDATES,
                multivariate=True,
                group=bool(self.cube.own),
                constant_liar=True,
                seed=seed,
            )
            return _asked(sampler, self.cube, told.points, told.ranks(), told.pending)


class GaussianProcess(Learner):
    """A Gaussian process (Matérn 5/2, a length scale for each axis) and log expected improvement (Ament et al. 2023).

    It cannot search branches. Its time grows with the cube of what it is told, hence less of that. Trials that have
    not reported are given a score: told that they run, Optuna proposes their near neighbours, and takes twice as long.
    A step is an interval to it, where what lies beside a trial promises something; as it would propose the same values
    again and again, random ones take the place of those that have been tried.
    """

    recent = 150

    def __init__(self, space: Space, seed: int) -> None:
        import optuna  # noqa: F401 (here, so that no trial waits for it)

        super().__init__(space, seed)

    def ask(self, told: Told, seed: int) -> Point:
        from optuna.samplers import GPSampler

        points, scores = told.believed()
        with _apart():
            asked = _asked(GPSampler(n_startup_trials=0, seed=seed), self.cube, points, scores)
        if self.cube.assignment(asked) in map(self.cube.assignment, points):
            return self.cube.point(self.space.sample(np.random.default_rng(seed)))
        return asked


def _asked(
    sampler: optuna.samplers.BaseSampler, cube: Cube, points: list[Point], values: Array, pending: Sequence[Point] = ()
) -> Point:
    """What a sampler proposes in a study of `points`, which have `values` (N,), and of `pending`, which still run."""
    import optuna
    from optuna.trial import TrialState, create_trial

    study = optuna.create_study(sampler=sampler)
    for point, value in zip(points, values.tolist(), strict=True):
        study.add_trial(create_trial(params=point, distributions=_distributions(cube, point), value=value))
    for point in pending:
        distributions = _distributions(cube, point)
        study.add_trial(create_trial(state=TrialState.RUNNING, params=point, distributions=distributions))
    trial = study.ask()
    asked = {label: _suggested(trial, label, categories) for label, categories in cube.shared.items()}
    branch = cube.branch_of(asked)
    own = {} if branch is None else cube.own[branch]
    return asked | {label: _suggested(trial, label, categories) for label, categories in own.items()}


def _suggested(trial: optuna.Trial, label: str, categories: int | None) -> float:
    if categories is None:
        return trial.suggest_float(label, 0, 1)
    return trial.suggest_categorical(label, range(categories))


def _distributions(cube: Cube, point: Point) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    branch = cube.branch_of(point)
    axes: Axes = cube.shared if branch is None else cube.shared | cube.own[branch]
    return {
        label: FloatDistribution(0, 1) if categories is None else CategoricalDistribution(range(categories))
        for label, categories in axes.items()
    }


@contextmanager
def _apart() -> Iterator[None]:
    """Without Optuna's news (of every study it makes, and that the grouped TPE is experimental), and in one thread.

    Trials have the processors: several threads that wait for each other took four times as long as one.
    """
    import optuna
    from threadpoolctl import threadpool_limits

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
