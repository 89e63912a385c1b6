"""What trials have shown so far: all that a searcher learns from.

Every report of every trial is kept, those of running trials too. Scores at different budgets cannot be compared as they
are: `Evidence.expected` makes them comparable (`tune_rnn.search.comparison`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from tune_rnn.search.comparison import Array, expected_scores
from tune_rnn.search.observed import Observed
from tune_rnn.space import Assignment

LATEST, FAR = 1000, 1 / 3
"""Of a very long study so many of the latest trials are compared, and of those before the ones that still run or came
so far, as a part of the deepest budget there is."""


def _none(assignment: Assignment) -> tuple[float, ...]:
    return ()


class Evidence:
    """Trials by number, in the order in which they began; refused assignments and earlier studies' trials beside them.

    An algorithm reads `known`, and what to expect of each; it need not know where they come from. `features`: an
    assignment as numbers, for what depends on it in the course of a loss.
    """

    def __init__(
        self, earlier: Iterable[Observed] = (), features: Callable[[Assignment], tuple[float, ...]] = _none
    ) -> None:
        self.features = features
        self.earlier = [one for one in earlier if one.is_informative]
        for one in self.earlier:
            one.features = self.features(one.assignment)
        self.trials: dict[int, Observed] = {}
        self.refused: list[Observed] = []
        # So that not all trials are looked through for each proposal: those that tell something, each with its place in
        # the order, and by number those that do not, with theirs.
        self._begun = 0
        self._telling: list[tuple[int, Observed]] = []
        self._silent: dict[int, tuple[int, Observed]] = {}
        self._deepest = 0.0
        # Worked out when they are asked for, and until something else is told.
        self._known: list[Observed] | None = None
        self._expected: Array | None = None

    @property
    def known(self) -> list[Observed]:
        """All that tells something, the oldest first, within bounds (see `LATEST`); refused ones are among trials."""
        if self._known is None:
            before, latest = self._telling[:-LATEST], self._telling[-LATEST:]
            far = FAR * self._deepest
            kept = [one for _, one in before if one.running or (not one.bad and one.spent[-1] >= far)]
            trials = [*kept, *map(itemgetter(1), latest)]
            self._known = [*self.earlier, *_spread(self.refused[-LATEST:], trials)]
        return self._known

    @property
    def latest(self) -> list[Observed]:
        """This study's own trials that tell something, within the same bounds but for those before."""
        return [one for _, one in self._telling[-LATEST:]]

    @property
    def expected(self) -> Array:
        """For each that is `known` the score expected of it at the deepest budget there is (N,); inf for a bad one."""
        if self._expected is None:
            self._expected = expected_scores(self.known)
        return self._expected

    @property
    def shown(self) -> int:
        """How many trials have shown something, earlier studies' included: what was refused tells of no loss."""
        return len(self.earlier) + len(self._telling)

    @property
    def pending(self) -> list[Observed]:
        """Trials that run and have not reported yet."""
        return [trial for _, trial in self._silent.values() if trial.running]

    def begin(self, number: int, assignment: Assignment) -> None:
        """A trial begins; one that had begun before begins anew."""
        if before := self.trials.pop(number, None):
            self._telling = [pair for pair in self._telling if pair[1] is not before]
            self._forget()
        self.trials[number] = Observed(assignment, features=self.features(assignment))
        self._begun += 1
        self._silent[number] = self._begun, self.trials[number]

    def report(self, number: int, spent: float, score: float) -> None:
        """A trial has reached `score` (lower is better) with a budget of `spent`; NaN and inf: it diverged."""
        if self.trials[number].report(spent, score):
            self._deepest = max(self._deepest, spent)
            self._forget()
            self._listen(number)

    def end(self, number: int, diverged: bool = False) -> None:
        """A trial has ended, in whatever way."""
        trial = self.trials[number]
        trial.running = False
        if diverged and not trial.bad:
            trial.bad = True
            self._forget()
        self._listen(number)

    def _listen(self, number: int) -> None:
        if number in self._silent and self.trials[number].is_informative:
            insort(self._telling, self._silent.pop(number))

    def refuse(self, assignment: Assignment) -> None:
        """An assignment was refused before it was trained."""
        self.refused.append(Observed(assignment, running=False, bad=True, features=self.features(assignment)))
        self._forget()

    def _forget(self) -> None:
        self._known = self._expected = None


def _spread(refused: Sequence[Observed], trials: Sequence[Observed]) -> list[Observed]:
    """Trials in their order, with refused ones spread evenly among them.

    At the end, where models look for the latest, they would crowd the trials out. When each was refused does not count,
    as a resumed study does not know it.
    """
    both = [*refused, *trials]
    places = [number / len(group) for group in (refused, trials) for number in range(1, len(group) + 1)]
    return [both[index] for index in sorted(range(len(both)), key=places.__getitem__)]
