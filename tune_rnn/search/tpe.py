"""HyperOpt's tree-structured Parzen estimator (Bergstra et al. 2011), told what trials at any budget have shown.

HyperOpt itself learns from ended trials alone, and compares their last scores whatever their budgets were. Here it
is told an order instead, made anew for each proposal: every trial that has reported, running or not, by the score
it is expected to reach at the deepest budget (`expected_scores`); then the diverged ones; and last those
that have not reported yet, so that proposals do not pile up where trials have just begun (a constant liar, Ginsbourger
et al. 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tune_rnn.search.comparison import expected_scores
from tune_rnn.search.designs import BRANCH, Sobol
from tune_rnn.search.evidence import Evidence, Observed
from tune_rnn.search.proposals import Proposal, trial_seed
from tune_rnn.space import Assignment, Distribution, Space

BEST, RECENT = 50, 250
"""HyperOpt's time grows with what it is told: it learns from so many of the best trials and of the latest ones."""

GAMMA = 0.5
"""The good trials are the best GAMMA √n of n. HyperOpt's default, 0.25, takes the best 2 of 60 for all that is good."""


class HyperOpt:
    """TPE over the unit cube of the space.

    Numbers are searched as their place in [0, 1] (so that log scales, steps and integers are the distribution's
    business, never HyperOpt's), choices and branches as categories. Until `startup` trials have shown something,
    points come from a Sobol sequence.
    """

    def __init__(self, space: Space, seed: int) -> None:
        import hyperopt  # 1.7 s, and only this searcher needs it

        self.space, self.seed = space, seed
        self.branches = list(space.branches)
        self.design = Sobol(space, seed)
        dimensions = len(space.shared) + max((len(keys) for keys in space.branches.values()), default=0)
        self.startup = max(5, 2 * dimensions)
        self._hyperopt = hyperopt
        self._domain = hyperopt.base.Domain(_no_objective, self._pyll_space())

    def __reduce__(self) -> tuple[Any, ...]:
        return HyperOpt, (self.space, self.seed)  # all else follows from these

    def suggest(self, place: int, evidence: Evidence) -> Proposal:
        if evidence.shown < self.startup:
            return self.design.suggest(place, evidence)
        told, seed = self._told(evidence.known, evidence.pending), trial_seed(self.seed, place)
        documents = self._hyperopt.tpe.suggest(
            [place], self._domain, told, seed, n_startup_jobs=0, gamma=GAMMA, verbose=False
        )
        values = documents[0]["misc"]["vals"]
        return Proposal(self._assignment({label: drawn[0] for label, drawn in values.items() if len(drawn)}))

    def _told(self, known: list[Observed], pending: list[Observed]) -> Any:
        """What HyperOpt is to believe: trials in the order in which they began, with their ranks as losses."""
        order = np.argsort(expected_scores(known), kind="stable")
        best, recent = set(order[:BEST].tolist()), range(max(0, len(known) - RECENT), len(known))
        kept = sorted(best.union(recent))
        rank = np.empty(len(known))
        rank[order] = np.arange(len(known))
        told = [(known[index], rank[index]) for index in kept]
        told += [(trial, float(len(known))) for trial in pending]
        documents = [self._document(number, *one) for number, one in enumerate(told)]
        return self._hyperopt.base.trials_from_docs(documents, validate=False)

    def _document(self, number: int, trial: Observed, loss: float) -> dict[str, Any]:
        point = self._point(trial.assignment)
        values = {label: [point[label]] if label in point else [] for label in self._domain.params}
        return {
            "state": self._hyperopt.JOB_STATE_DONE,
            "tid": number,
            "result": {"status": self._hyperopt.STATUS_OK, "loss": float(loss)},
            "misc": {
                "tid": number,
                "cmd": self._domain.cmd,
                "workdir": None,
                "idxs": {label: [number] * len(drawn) for label, drawn in values.items()},
                "vals": values,
            },
            **dict.fromkeys(("spec", "exp_key", "owner", "book_time", "refresh_time")),
            "version": 0,
        }

    def _pyll_space(self) -> dict[str, Any]:
        shared = {key: self._node(key, distribution) for key, distribution in self.space.shared.items()}
        if not self.branches:
            return shared
        options = [
            {key: self._node(_label(name, key), distribution) for key, distribution in parameters.items()}
            for name, parameters in self.space.branches.items()
        ]
        return {**shared, BRANCH: self._hyperopt.hp.choice(BRANCH, options)}

    def _node(self, label: str, distribution: Distribution) -> Any:
        categories = distribution.categories()
        if categories is not None:
            return self._hyperopt.hp.randint(label, categories)
        return self._hyperopt.hp.uniform(label, 0, 1)

    def _point(self, assignment: Assignment) -> dict[str, float]:
        """HyperOpt's coordinates of an assignment."""
        branch = assignment.get(BRANCH)
        point = {key: _coordinate(one, assignment[key]) for key, one in self.space.shared.items()}
        if branch is not None:
            point[BRANCH] = self.branches.index(branch)
            for key, distribution in self.space.branches[branch].items():
                point[_label(branch, key)] = _coordinate(distribution, assignment[key])
        return point

    def _assignment(self, point: Mapping[str, float]) -> Assignment:
        """Values of a point: the shared parameters' and those of the branch it took."""
        assignment = {key: _value(distribution, point[key]) for key, distribution in self.space.shared.items()}
        if self.branches:
            branch = self.branches[int(point[BRANCH])]  # an index, as those of all choices
            for key, distribution in self.space.branches[branch].items():
                assignment[key] = _value(distribution, point[_label(branch, key)])
            assignment[BRANCH] = branch
        return assignment


def _label(branch: str, key: str) -> str:
    return f"{branch}:{key}"


def _coordinate(distribution: Distribution, value: Any) -> float:
    categories, unit = distribution.categories(), distribution.to_unit(value)
    return unit if categories is None else int(unit * categories)


def _value(distribution: Distribution, coordinate: float) -> Any:
    categories = distribution.categories()
    if categories is None:
        return distribution.from_unit(float(coordinate))
    return distribution.from_unit((int(coordinate) + 0.5) / categories)


def _no_objective(point: Any) -> float:
    raise AssertionError("HyperOpt only proposes here; trials are trained elsewhere")
