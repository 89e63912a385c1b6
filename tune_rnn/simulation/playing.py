"""Plays a searcher and a scheduler against a black box of learning curves: no training, no Ray, no waiting.

The searcher and the scheduler are those that a study uses, built by the same functions and told the same things.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

from tune_rnn.config.starting import check_start
from tune_rnn.config.validation import validate
from tune_rnn.errors import InputError
from tune_rnn.schedulers import Scheduler, build_scheduler
from tune_rnn.schema import StudyConfig
from tune_rnn.search import Assignment, Evidence, Proposal, Searcher, build_searcher
from tune_rnn.search.coordinates import Cube
from tune_rnn.simulation.blackbox import BlackBox, space_of, whole
from tune_rnn.simulation.history import Event, History
from tune_rnn.space import Space

Section = Mapping[str, Any]


class Proposes(Protocol):
    """A searcher of your own. Trials are numbered 0, 1, 2 … in the order in which they begin."""

    def propose(self, number: int) -> Proposal | None:
        """What trial `number` tries, `tune_rnn.search.Proposal({"x": 0.5})`; None: nothing is left to try."""

    def began(self, number: int, assignment: Assignment) -> None:
        """It has begun with what was proposed."""

    def reported(self, number: int, spent: float, score: float) -> None:
        """After `spent` units of the resource its lowest loss is `score`."""

    def ended(self, number: int, diverged: bool = False) -> None:
        """It has come to its end, was stopped, or diverged."""


def simulate(
    search: str | Section | Proposes,
    scheduler: str | Section | Scheduler,
    blackbox: BlackBox,
    workers: int,
    budget: float,
    seed: int = 0,
    trials: int | None = None,
) -> History:
    """Play a study of `budget` whole trainings, at least 1, all workers together, and return what happened.

    `search` and `scheduler` are names, or the sections of an experiment file: {"algorithm": "asha",
    "reduction_factor": 4}, or objects of your own (`Proposes`, `tune_rnn.schedulers.Scheduler`); starting points have
    the black box's keys: {"start": [{"x": 0.5}]}. `blackbox` is any object with `space` (distributions of
    `tune_rnn.space` by key), `max_resource` and `curve` (see `BlackBox`). Rungs count in units of its resource, of
    which a worker does one in a unit of time. `trials` ends the study sooner. Raises InputError for what a study
    would refuse.
    """
    space = space_of(blackbox)
    workers = whole("workers", workers, "Write workers=8, for example.")
    check_budget("budget", budget)
    seed = whole("seed", seed, "Write seed=0, for example.", least=0)
    if trials is not None:
        trials = whole("trials", trials, "Write trials=100, for example, or leave it out.")
    _check_kind("search", search, "propose", "hyperopt")
    _check_kind("scheduler", scheduler, "goes_on", "asha")
    searcher = _searcher(search, space, seed) if isinstance(search, (str, Mapping)) else search
    if isinstance(scheduler, (str, Mapping)):
        searcher = searcher if isinstance(searcher, Searcher) else _Overheard(searcher, space)
        scheduler = _scheduler(scheduler, blackbox.max_resource, searcher.evidence)
    end = budget * blackbox.max_resource / workers
    return _Play(searcher, scheduler, blackbox, workers, trials).until(end)


def check_pair(search: str, scheduler: str, blackbox: BlackBox) -> None:
    """Refuse names that `simulate` would refuse."""
    searcher = _searcher(search, space_of(blackbox), 0)
    _scheduler(scheduler, blackbox.max_resource, searcher.evidence)


def _check_kind(where: str, given: Any, method: str, example: str) -> None:
    """Refuse what is neither a name, nor a section, nor an object with the method that it is called by."""
    if isinstance(given, type) or not (isinstance(given, (str, Mapping)) or hasattr(given, method)):
        rule = f"must be a name, a section of an experiment file, or an object with {method}"
        raise InputError(where, rule, f'Write "{example}", for example.', given)


def check_budget(where: str, budget: Any) -> None:
    """Refuse what is not enough for one whole training, and what is no finite number."""
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 1 <= float(budget) < math.inf:
        raise InputError(where, "must be a number of whole trainings, at least 1", "Write 40, for example.", budget)


def _searcher(given: str | Section, space: Space, seed: int) -> Searcher:
    settings = _study("search", given).search.model_copy(update={"seed": seed})
    check_start(settings.start, space)
    if settings.warm_start:
        raise InputError("search.warm_start", "names runs, and a simulation knows of none", "Remove it.")
    return build_searcher(settings, space)


def _scheduler(given: str | Section, amount: float, evidence: Evidence) -> Scheduler:
    settings = _study("scheduler", given).scheduler
    if settings.algorithm == "pbt":
        rule = "changes configurations while they train, and a black box has curves of fixed ones"
        raise InputError("scheduler.algorithm", rule, "Write asha, hyperband, median or none.", "pbt")
    return build_scheduler(settings, amount, evidence)


def _study(section: str, given: str | Section) -> StudyConfig:
    """A section of an experiment file, or just the name of its algorithm, checked as part of one."""
    values = {"algorithm": given} if isinstance(given, str) else given
    return validate(StudyConfig, {"name": "simulation", "budget": {"epochs": 1}, section: values})


class _Overheard:
    """A searcher of somebody's own, and the evidence that our schedulers decide by."""

    def __init__(self, searcher: Proposes, space: Space) -> None:
        self.searcher, self.evidence = searcher, Evidence(features=Cube(space).features)
        self.propose = searcher.propose

    def began(self, number: int, assignment: Assignment) -> None:
        self.searcher.began(number, assignment)
        self.evidence.begin(number, assignment)

    def reported(self, number: int, spent: float, score: float) -> None:
        self.searcher.reported(number, spent, score)
        self.evidence.report(number, spent, score)

    def ended(self, number: int, diverged: bool = False) -> None:
        self.searcher.ended(number, diverged)
        self.evidence.end(number, diverged)


@dataclass
class _Running:
    """A trial at work: the losses it will report."""

    number: int
    losses: Iterator[float]
    resource: int = 0
    lowest: float = math.inf


def _number(loss: Any) -> float:
    try:
        return float(loss)
    except (TypeError, ValueError) as error:
        rule = "must return losses, which are numbers"
        raise InputError("curve", rule, "Return a list of floats, for example.", loss) from error


class _Play:
    """A study whose trials take simulated time."""

    def __init__(
        self, searcher: Proposes, scheduler: Scheduler, blackbox: BlackBox, workers: int, trials: int | None
    ) -> None:
        self.searcher, self.scheduler, self.blackbox, self.limit = searcher, scheduler, blackbox, trials
        self.history = History(workers, int(blackbox.max_resource))
        self.queue: list[tuple[float, int, _Running]] = []  # by time, then by the order of entering
        self.entered = itertools.count()

    def until(self, end: float) -> History:
        """Play up to a time, or until the searcher has nothing left."""
        for _ in range(self.history.workers):
            self._begin(0.0)
        while self.queue and self.queue[0][0] <= end * (1 + 1e-12):
            time, _, trial = heapq.heappop(self.queue)
            if self._report(time, trial):
                self._enter(time + 1, trial)
            else:
                self._begin(time)
        return self.history

    def _begin(self, time: float) -> None:
        number = len(self.history.trials)
        proposal = None if number == self.limit else self.searcher.propose(number)
        if proposal is None:
            return
        self.searcher.began(number, proposal.assignment)
        self.history.trials.append(proposal.assignment)
        curve = self.blackbox.curve(proposal.assignment)
        if not isinstance(curve, Iterable):
            raise InputError("curve", "must return losses, one for each unit", "Return a list of floats.", curve)
        self._enter(time + 1, _Running(number, map(_number, curve)))

    def _enter(self, time: float, trial: _Running) -> None:
        heapq.heappush(self.queue, (time, next(self.entered), trial))

    def _report(self, time: float, trial: _Running) -> bool:
        """One unit of a trial is done: tell everyone; returns whether it goes on."""
        loss = next(trial.losses, None)
        if loss is None:
            rule = f"ended after {trial.resource} of {self.history.max_resource} losses"
            raise InputError("curve", rule, "Only NaN or inf, divergence, may be the last one before.")
        trial.resource += 1
        trial.lowest = min(trial.lowest, loss)
        self.history.events.append(Event(time, trial.number, trial.resource, loss))
        diverged = not math.isfinite(loss)
        goes_on = False
        if not diverged:
            self.searcher.reported(trial.number, trial.resource, trial.lowest)
            whole = trial.resource == self.blackbox.max_resource
            goes_on = self.scheduler.goes_on(trial.number, trial.resource, trial.lowest) and not whole
        if not goes_on:
            self.searcher.ended(trial.number, diverged)
        return goes_on
