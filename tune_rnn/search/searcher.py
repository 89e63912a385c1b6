"""The searcher: hands out what to try next, and keeps what was shown.

It numbers trials 0, 1, 2 … and knows nothing of Ray: the study, a resumed study and a simulation drive the same
object, and tell it the same things. How to choose is an `Algorithm`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from tune_rnn.search.coordinates import Cube
from tune_rnn.search.evidence import Evidence
from tune_rnn.search.observed import Observed
from tune_rnn.search.proposals import Proposal
from tune_rnn.space import Assignment, Space

COMPLETIONS = 100
"""So often what a starting point lacks is drawn anew where the whole is not allowed."""


class Algorithm(Protocol):
    """Chooses assignments; what it chooses depends on its seed, the place in the order and the evidence alone."""

    def suggest(self, place: int, evidence: Evidence) -> Proposal | None:
        """The assignment at a place (0, 1, 2 …) in the order of suggestions; None when there is nothing left."""
        ...


class Searcher:
    """Proposes assignments, the starting points first, and learns from what is told.

    `start`: assignments to begin with, each of all searched keys or of some; the others are sampled, if possible so
    that the whole is `allowed` (which a study sets, see `refused`). `earlier`: trials of other studies to learn from.
    """

    allowed: Callable[[Assignment], bool] | None = None

    def __init__(
        self,
        space: Space,
        algorithm: Algorithm,
        seed: int,
        start: Sequence[Assignment] = (),
        earlier: Iterable[Observed] = (),
    ) -> None:
        self.space, self.algorithm, self.seed, self.start = space, algorithm, seed, start
        self.evidence = Evidence(earlier, Cube(space).features)

    def propose(self, number: int) -> Proposal | None:
        """What trial `number` should try; None when there is nothing left. Asking again changes nothing.

        What was refused counts as asked for, so that the next answer is another one.
        """
        place = number + len(self.evidence.refused)
        if place < len(self.start):
            return Proposal(self.starting_point(place), start=place)
        return self.algorithm.suggest(place - len(self.start), self.evidence)

    def starting_point(self, place: int) -> Assignment:
        """A point of `start` whole: the first completion, or else the first that is allowed, where there is one."""
        generator = np.random.default_rng((self.seed, place))
        first = self.space.complete(self.start[place], generator)
        if self.allowed is None or self.allowed(first):
            return first
        others = (self.space.complete(self.start[place], generator) for _ in range(COMPLETIONS))
        return next(filter(self.allowed, others), first)

    def began(self, number: int, assignment: Assignment) -> None:
        """Trial `number` begins with an assignment, one that was proposed here or by an earlier session."""
        self.evidence.begin(number, assignment)

    def reported(self, number: int, spent: float, score: float) -> None:
        """Trial `number` has reached `score` (its lowest loss, or NaN or inf) with a budget of `spent`."""
        self.evidence.report(number, spent, score)

    def ended(self, number: int, diverged: bool = False) -> None:
        """Trial `number` has ended: completed, stopped, diverged, or failed for reasons of its own."""
        self.evidence.end(number, diverged)

    def refused(self, assignment: Assignment) -> None:
        """What was proposed will not be trained, as it breaks a constraint."""
        self.evidence.refuse(assignment)
