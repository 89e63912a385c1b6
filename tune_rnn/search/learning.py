"""What algorithms that learn have in common: how they begin, what they are told, and that they keep nothing.

Until `startup` trials have shown something, points come from a Sobol sequence. From then on a model is made anew for
each proposal, of what trials at any budget have shown: every trial that has reported, running or not, by the score
it is expected to reach at the deepest budget (`Evidence.expected`). As nothing is kept from one proposal to the next,
the same seed and the same evidence give the same proposal, in a resumed study too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tune_rnn.search.comparison import Array
from tune_rnn.search.coordinates import Cube, Point
from tune_rnn.search.designs import Sobol
from tune_rnn.search.evidence import Evidence
from tune_rnn.search.observed import Observed
from tune_rnn.search.proposals import Proposal, trial_seed
from tune_rnn.space import Space


@dataclass(frozen=True)
class Told:
    """What a model is to believe: points of the unit cube, in the order of `Evidence.known`.

    `scores` (N,) belong to `points`, lower is better; inf for what diverged or was refused, NaN for what cannot be
    compared. `pending` are the points of trials that have shown nothing yet. `features` (N + pending, F) has all of
    them as numbers (`Cube.features`).
    """

    points: list[Point]
    scores: Array
    pending: list[Point]
    features: Array

    def ranks(self) -> Array:
        """0 for the best, then 1, 2, 3 … (N,); what diverged comes last but for what cannot be compared."""
        ranks = np.empty(len(self.scores))
        ranks[np.argsort(self.scores, kind="stable")] = np.arange(len(self.scores))
        return ranks

    def believed(self) -> tuple[list[Point], Array]:
        """All points, and a finite score for each.

        What diverged gets the worst score of the others: a huge number would make these alike to a model. What has
        shown nothing yet is believed to be ordinary, so that it is not proposed again at once (a constant liar).
        """
        finite = np.isfinite(self.scores)
        worst = self.scores[finite].max() if finite.any() else 0.0
        scores = np.where(np.isposinf(self.scores), worst, self.scores)
        scores = np.append(scores, np.full(len(self.pending), np.nan))
        lie = np.nanmedian(scores) if np.isfinite(scores).any() else 0.0
        return [*self.points, *self.pending], np.where(np.isnan(scores), lie, scores)


class Learner(ABC):
    """An algorithm that searches the unit cube with a model: a subclass says which point the model asks for.

    A model's time grows with what it is told: `best` of the best trials, and `recent` of the latest ones. `random` is
    the share of proposals that are drawn at random instead, for models that never look back at what they gave up.
    """

    best: ClassVar[int] = 50
    recent: ClassVar[int] = 250
    random: ClassVar[float] = 0.0

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed, self.cube = space, seed, Cube(space)
        self.design = Sobol(space, seed)
        self.startup = max(5, 2 * self.cube.dimensions)
        self._points: dict[int, tuple[Observed, Point]] = {}  # by identity, which they keep alive

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.space, self.seed)  # all else follows from these

    def suggest(self, place: int, evidence: Evidence) -> Proposal:
        if evidence.shown < self.startup:
            return self.design.suggest(place + len(evidence.earlier), evidence)  # theirs may be its first points
        generator = np.random.default_rng((self.seed, place))
        if generator.random() < self.random:
            return Proposal(self.space.sample(generator))
        return Proposal(self.cube.assignment(self.ask(self.told(evidence), trial_seed(self.seed, place))))

    def told(self, evidence: Evidence) -> Told:
        """The best trials and the latest ones, and those that have only begun."""
        known, scores = evidence.known, evidence.expected
        best = np.argsort(scores, kind="stable")[: self.best]
        kept = sorted({*best.tolist(), *range(max(0, len(known) - self.recent), len(known))})
        trials, pending = [known[index] for index in kept], evidence.pending
        features = np.array([trial.features for trial in (*trials, *pending)])
        return Told([*map(self._place, trials)], scores[kept], [*map(self._place, pending)], features)

    def _place(self, trial: Observed) -> Point:
        """Where a trial is, worked out once: it is told again for each proposal."""
        if id(trial) not in self._points:
            self._points[id(trial)] = trial, self.cube.point(trial.assignment)
        return self._points[id(trial)][1]

    @abstractmethod
    def ask(self, told: Told, seed: int) -> Point:
        """The next point to try; the seed is the proposal's own."""
