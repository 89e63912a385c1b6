"""HyperOpt's tree-structured Parzen estimator (Bergstra et al. 2011), told what trials at any budget have shown.

HyperOpt itself learns from ended trials alone, and compares their last scores whatever their budgets were. Here it
is told an order instead, made anew for each proposal: first the trials that have shown something, by the score
expected of them; then the diverged ones; and last those that have not reported yet, so that proposals do not pile up
where trials have just begun (a constant liar, Ginsbourger et al. 2010).
"""

from __future__ import annotations

from typing import Any

from tune_rnn.search.coordinates import Axes, Point
from tune_rnn.search.designs import BRANCH
from tune_rnn.search.learning import Learner, Told
from tune_rnn.space import Space

GAMMA = 0.35
"""The good trials are the best GAMMA √n of n. HyperOpt's default is 0.25, the best 2 of 60."""


class HyperOpt(Learner):
    """TPE over the unit cube of the space."""

    def __init__(self, space: Space, seed: int) -> None:
        import hyperopt  # 1.7 s, and only this searcher needs it

        super().__init__(space, seed)
        self._hyperopt = hyperopt
        self._domain = hyperopt.base.Domain(_no_objective, self._pyll_space())

    def ask(self, told: Told, seed: int) -> Point:
        losses = [*told.ranks(), *(float(len(told.points)) for _ in told.pending)]
        points = [*told.points, *told.pending]
        documents = [self._document(number, *one) for number, one in enumerate(zip(points, losses, strict=True))]
        trials = self._hyperopt.base.trials_from_docs(documents, validate=False)
        asked = self._hyperopt.tpe.suggest(
            [len(points)], self._domain, trials, seed, n_startup_jobs=0, gamma=GAMMA, verbose=False
        )
        return {label: drawn[0] for label, drawn in asked[0]["misc"]["vals"].items() if len(drawn)}

    def _document(self, number: int, point: Point, loss: float) -> dict[str, Any]:
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
        space = self._nodes({label: axis for label, axis in self.cube.shared.items() if label != BRANCH})
        if self.cube.own:
            space[BRANCH] = self._hyperopt.hp.choice(BRANCH, [self._nodes(axes) for axes in self.cube.own.values()])
        return space

    def _nodes(self, axes: Axes) -> dict[str, Any]:
        hp = self._hyperopt.hp
        return {
            label: hp.uniform(label, 0, 1) if categories is None else hp.randint(label, categories)
            for label, categories in axes.items()
        }


def _no_objective(point: Any) -> float:
    raise AssertionError("HyperOpt only proposes here; trials are trained elsewhere")
