"""Searchers by name: what to try next, given what was tried.

A searcher numbers trials 0, 1, 2 … and knows nothing of Ray: the study, a resumed study and a simulation drive the
same objects. Scores are to be minimised; a trial that failed for reasons of its own has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tune_rnn.experiment import Experiment
from tune_rnn.space import Distribution, Space

Assignment = dict[str, Any]
"""Dotted key → value, and "one_of" → the branch's name where the space has branches."""


@dataclass(frozen=True)
class Proposal:
    """What a searcher wants tried: the values, and its own coordinates of them (JSON), needed to replay it."""

    assignment: Assignment
    point: dict[str, float]
    seed: int | None = None  # None: that of the trial's number


class Searcher(Protocol):
    """Proposes assignments and learns from scores."""

    def propose(self, number: int) -> Proposal | None:
        """What trial `number` should try; None when there is nothing left."""
        ...

    def observe(self, proposal: Proposal, number: int, score: float) -> None:
        """Trial `number`, which tried `proposal`, ended with `score`. Also how a resumed study replays results."""
        ...


def build_searcher(algorithm: str, space: Space, seed: int, trials: int | None, seeds: int = 1) -> Searcher:
    """The searcher `search.algorithm` names; `trials` is the study's budget, where it has one."""
    if algorithm == "grid" or space.is_empty:
        return GridSearcher(space, seed, seeds)
    if algorithm == "random":
        return RandomSearcher(space, seed)
    return HyperOptSearcher(space, seed, trials)


def planned_trials(experiment: Experiment) -> int | None:
    """How many trials a study has, where it is not only time that ends it."""
    space, trials = experiment.space, experiment.budget.trials
    if space.is_empty:
        return 1
    if experiment.search.algorithm != "grid":
        return trials
    size = space.grid_size() * experiment.search.seeds
    return size if trials is None else min(size, trials)


def trial_seed(study_seed: int, number: int) -> int:
    """A trial's own seed: from the study's seed and the trial's number, never from the order of events."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


class GridSearcher:
    """Every combination, the last key varying fastest; with several seeds, all combinations with one seed first."""

    def __init__(self, space: Space, seed: int = 0, seeds: int = 1) -> None:
        self.assignments, self.seed, self.seeds = space.grid(), seed, seeds

    def propose(self, number: int) -> Proposal | None:
        repeat, place = divmod(number, len(self.assignments))
        if repeat >= self.seeds:
            return None
        seed = trial_seed(self.seed, repeat) if self.seeds > 1 else None
        return Proposal(self.assignments[place], {}, seed)

    def observe(self, proposal: Proposal, number: int, score: float) -> None:
        """A grid learns nothing."""


class RandomSearcher:
    """Independent draws; a trial's assignment depends on the study's seed and the trial's number alone."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def propose(self, number: int) -> Proposal:
        return Proposal(self.space.sample(np.random.default_rng((self.seed, number))), {})

    def observe(self, proposal: Proposal, number: int, score: float) -> None:
        """Random search learns nothing."""


class HyperOptSearcher:
    """HyperOpt's tree-structured Parzen estimator (Bergstra et al. 2011) over the unit cube of the space.

    Numbers are searched as their place in [0, 1] (so that log scales, steps and integers are the distribution's
    business, never HyperOpt's), choices and branches as categories. The first trials are random: a quarter of the
    budget, at least 5 and at most 20. Trials that still run are not in its model.
    """

    BRANCH = "one_of"

    def __init__(self, space: Space, seed: int, trials: int | None) -> None:
        import hyperopt  # 1.7 s, and only this searcher needs it

        self.space, self.seed = space, seed
        self.startup = 20 if trials is None else min(20, max(5, math.ceil(trials / 4)))
        self.branches = list(space.branches)
        self._hyperopt = hyperopt
        self._domain = hyperopt.base.Domain(_no_objective, self._pyll_space())
        self._trials = hyperopt.Trials()

    def propose(self, number: int) -> Proposal:
        seed = trial_seed(self.seed, number)
        documents = self._hyperopt.tpe.suggest(
            [number], self._domain, self._trials, seed, n_startup_jobs=self.startup, verbose=False
        )
        values = documents[0]["misc"]["vals"]
        point = {label: np.asarray(drawn[0]).item() for label, drawn in values.items() if len(drawn)}
        return Proposal(self._assignment(point), point)

    def observe(self, proposal: Proposal, number: int, score: float) -> None:
        point = proposal.point
        values = {label: [point[label]] if label in point else [] for label in self._domain.params}
        misc = {
            "tid": number,
            "cmd": self._domain.cmd,
            "workdir": None,
            "idxs": {label: [number] * len(drawn) for label, drawn in values.items()},
            "vals": values,
        }
        result = {"status": self._hyperopt.STATUS_OK, "loss": score}
        documents = self._trials.new_trial_docs([number], [None], [result], [misc])
        documents[0]["state"] = self._hyperopt.JOB_STATE_DONE
        self._trials.insert_trial_docs(documents)
        self._trials.refresh()

    def _pyll_space(self) -> dict[str, Any]:
        shared = {key: self._node(key, distribution) for key, distribution in self.space.shared.items()}
        if not self.branches:
            return shared
        options = [
            {key: self._node(_label(name, key), distribution) for key, distribution in parameters.items()}
            for name, parameters in self.space.branches.items()
        ]
        return {**shared, self.BRANCH: self._hyperopt.hp.choice(self.BRANCH, options)}

    def _node(self, label: str, distribution: Distribution) -> Any:
        categories = distribution.categories()
        if categories is not None:
            return self._hyperopt.hp.randint(label, categories)
        return self._hyperopt.hp.uniform(label, 0, 1)

    def _assignment(self, point: Mapping[str, float]) -> Assignment:
        """Values of a point: the shared parameters' and those of the branch it took."""
        assignment = {key: _value(distribution, point[key]) for key, distribution in self.space.shared.items()}
        if self.branches:
            branch = self.branches[int(point[self.BRANCH])]  # an index, as those of all choices
            for key, distribution in self.space.branches[branch].items():
                assignment[key] = _value(distribution, point[_label(branch, key)])
            assignment[self.BRANCH] = branch
        return assignment


def _label(branch: str, key: str) -> str:
    return f"{branch}:{key}"


def _value(distribution: Distribution, coordinate: float) -> Any:
    categories = distribution.categories()
    if categories is None:
        return distribution.from_unit(coordinate)
    return distribution.from_unit((coordinate + 0.5) / categories)


def _no_objective(point: Any) -> float:
    raise AssertionError("HyperOpt only proposes here; trials are trained elsewhere")
