"""The contract of every pair of searcher and scheduler, driven together as a study drives them, without Ray.

Each pair plays one small study with starting points, a key of one value, branches where it can search them, and trials
that diverge or fail; in the middle it is left, and goes on from its pickles and from its journal.
"""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from tune_rnn.checkpoint_folder import write
from tune_rnn.config.distributions import Distribution
from tune_rnn.constraints import ParameterCap
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.final.stage import FinalStage
from tune_rnn.report import Report
from tune_rnn.results.journal import Journal, TrialRecord, outcome_of
from tune_rnn.schedulers import Scheduler
from tune_rnn.schema import flatten
from tune_rnn.search import Searcher, build_searcher
from tune_rnn.study.adapters import StudyScheduler, StudySearcher, replay
from tune_rnn.study.lost import LostTrials
from tune_rnn.study.population import Population
from tune_rnn.study.proposing import Proposer
from tune_rnn.study.trainable import SCORE
from tune_rnn.study.tuning import scheduler_of

SEARCHERS = ["grid", "random", "sobol", "hyperopt", "optuna", "gp", "forest"]
SCHEDULERS = ["asha", "hyperband", "median", "pbt", "none"]
REFUSED = [(searcher, "pbt") for searcher in SEARCHERS if searcher != "random"]
PAIRS = [(one, other) for one in SEARCHERS for other in SCHEDULERS if (one, other) not in REFUSED]

TRIALS, EPOCHS, LEFT_AT = 13, 4, 11
"""A study's trials, the reports of a whole one, and how many have begun when it is left."""

DIVERGES = {3: (1, math.nan), 5: (1, math.inf), 9: (2, math.nan)}
"""With which report trials diverge, and what they report then: those that early stopping does not stop before."""

FAILS = {4: 0, 8: 1}
"""After how many reports trials fail, likewise."""

CURVES = (3.0, 2.0, 0.5, 0.4), (2.9, 1.9, 1.0, 0.0)
"""What is missing to a trial's end after each epoch: those of odd numbers are the worse only after the third."""

START: list[dict[str, Any]] = [
    {"model": {"cell": "gru"}, "training": {"learning_rate": 0.01}},
    {"regularizers": {"input_dropout": 0.25}},
]


def experiment(searcher: str, scheduler: str, **sections: Any) -> Experiment:
    """A space of both kinds of numbers and choices, one of them of a single value; finite for a grid."""
    rate: dict[str, Any] = {"log_uniform": [1e-3, 1e-1]}
    slow: dict[str, Any] = {"log_uniform": [1e-3, 1e-2]}
    dropout: dict[str, Any] = {"uniform": [0, 0.5]}
    if searcher == "grid":
        rate, slow, dropout = {"grid": [0.01, 0.02]}, {"grid": [0.003, 0.01]}, {"uniform": [0, 0.5, 0.25]}
    whole: dict[str, Any] = {
        "name": "study",
        "model": {"cell": {"choice": ["lstm", "gru"]}, "layers": {"choice": [2]}},
        "regularizers": {"input_dropout": dropout},
        "budget": {"epochs": EPOCHS, "trials": TRIALS},
        "search": {"algorithm": searcher, "seed": 1, "start": START},
        "scheduler": {"algorithm": scheduler, "reduction_factor": 2},
        "final": {"top_k": 0},
    }
    if searcher == "gp":  # which searches no branches
        whole["training"] = {"learning_rate": rate}
    else:
        whole["one_of"] = {
            "adam": {"training": {"optimizer": "adam", "learning_rate": rate}},
            "rmsprop": {"training": {"optimizer": "rmsprop", "learning_rate": slow}},
        }
    return Experiment(**whole | sections)


class Recorded:
    """What the study's searcher and its population ask of a recorder."""

    def __init__(self, path: Path) -> None:
        self.run, self.journal = SimpleNamespace(path=path), Journal(path / "trials.jsonl")
        self.proposed, self.took_over = self.journal.propose, self.journal.take_over

    def reported(self, number: int, report: Report) -> None:
        folder = f"checkpoint_{number}_{report.spent:g}"
        write(self.run.path / folder, tiny.packed())
        self.journal.report(number, report)
        self.journal.checkpoint(number, folder)

    def ended(self, number: int) -> None:
        self.journal.end(number, *outcome_of(self.journal.trials[number].reports[-1], "epochs"))


class Study:
    """A study as Ray Tune drives it: trials take turns, and each has a report when its turn comes.

    `told`: every trial that began, and every report with whether its trial went on, in order. `running`: trials that
    an earlier study left at work.
    """

    def __init__(
        self, path: Path, study: Experiment, searcher: Searcher, scheduler: Scheduler, running: Sequence[int] = ()
    ) -> None:
        self.study, self.path, self.ours, self.judge = study, path, searcher, scheduler
        self.recorder = Recorded(path)
        self.journal = self.recorder.journal
        self.slots = 1 if study.has_population else 2
        if not self.journal.sessions:
            self.journal.open_session("sha", self.slots, 0.0)
        proposer = Proposer(searcher, self.recorder, study, ParameterCap(None, 50))  # type: ignore[arg-type]
        self.population = Population(proposer) if study.has_population else None
        final = FinalStage(self.journal, study, self.slots, None)
        lost = LostTrials(self.recorder)  # type: ignore[arg-type]
        self.searcher = StudySearcher(proposer, self.slots, final, path, lost, self.population)
        self.searcher.unfinished = [self.journal.trials[number] for number in running]
        self.scheduler = StudyScheduler(scheduler, searcher, final)
        self.running: list[tuple[str, int]] = []
        self.begun = 0
        self.told: list[tuple[Any, ...]] = []
        self.finished = False
        for _ in running:
            self._begin()
        self.told.clear()

    def play(self, until: int | None = None) -> Study:
        """Go on to the end, or until so many trials have begun and one of them has had its turn."""
        while until is None or len(self.journal.trials) < until:
            while len(self.running) < self.slots and self._begin():
                pass
            if not self.running:
                break
            self._report(*self.running.pop(0))
        return self

    def _begin(self) -> bool:
        identity = f"trial {self.begun}"
        suggested: Any = self.searcher.suggest(identity)
        self.finished = suggested == "FINISHED"
        if suggested is None or self.finished:
            return False
        trial = self.journal.trials[suggested["number"]]
        self.begun += 1
        self.running.append((identity, trial.number))
        self.told.append(("begins", trial.number, trial.spent, trial.seed, trial.assignment))
        return True

    def _report(self, identity: str, number: int) -> None:
        """Ray's order: the scheduler hears a report first, then it is written down; the searcher hears of an end."""
        trial = self.journal.trials[number]
        if len(trial.own_reports) == FAILS.get(number):
            self.journal.end(number, "failed", "out of memory")
            self.searcher.on_trial_complete(identity, error=True)
            self.told.append(("fails", number))
            return
        report, score = self._train(trial)
        result = {"spent": report.spent, SCORE: score, "finished": report.finished}
        handle = SimpleNamespace(config={"number": number}, placement_group_factory=None)
        done = report.finished and not math.isnan(score)  # a loss that is no number is left to the scheduler
        goes_on = not done and self.scheduler.on_trial_result(None, handle, result) == "CONTINUE"
        self.recorder.reported(number, report)
        self.told.append(("reports", number, report.spent, score if math.isfinite(score) else str(score), goes_on))
        if goes_on:
            self.running.append((identity, number))
            return
        controller = SimpleNamespace(_actor_cache=SimpleNamespace(increase_max=lambda resources: None))
        self.scheduler.on_trial_complete(controller, handle, result)
        self.searcher.on_trial_complete(identity, result)
        if self.population is None or not self.population.waits(number):
            self.recorder.ended(number)

    def _train(self, trial: TrialRecord) -> tuple[Report, float]:
        """An epoch: the report, and the score that Ray is told."""
        spent, (diverges, score) = int(trial.spent) + 1, DIVERGES.get(trial.number, (0, math.nan))
        bad = spent == diverges and not trial.taken_over
        end = sum(float(value) for value in trial.assignment.values() if not isinstance(value, str))
        loss = end + CURVES[trial.number % 2][spent - 1]
        best = loss if trial.best_loss is None else min(loss, trial.best_loss)
        finished = "diverged" if bad else "budget" if spent == EPOCHS else ""
        shown, lowest, improved = (None, trial.best_loss, False) if bad else (loss, best, best == loss)
        report = Report(spent, spent, spent, shown, shown, lowest, 0.1, 1.0, 1.0, 1.0, improved, finished)
        return report, score if bad else best


class Played:
    """A pair's whole study, and how it went on after it was left, from its pickles and from its journal."""

    def __init__(self, path: Path, searcher: str, scheduler: str) -> None:
        self.study = experiment(searcher, scheduler)
        (path / "whole").mkdir()
        self.whole = new(path / "whole", self.study).play(LEFT_AT)
        running, done = [number for _, number in self.whole.running], len(self.whole.told)
        self.shown = self.whole.ours.evidence.shown
        searcher_alone = copy.copy(self.whole.ours)
        searcher_alone.allowed = None  # the study's
        kept = pickle.dumps((searcher_alone, self.whole.judge))
        for name in ("pickled", "replayed"):
            shutil.copytree(path / "whole", path / name)
        self.after = self.whole.play().told[done:]
        ours, judge = pickle.loads(kept)
        self.pickled = Study(path / "pickled", self.study, ours, judge, running).play().told
        ours, judge = fresh(self.study)
        replay(ours, judge, Journal(path / "replayed" / "trials.jsonl"))
        self.replayed = Study(path / "replayed", self.study, ours, judge, running).play().told
        self.trials = self.whole.journal.trials


def new(path: Path, study: Experiment) -> Study:
    return Study(path, study, *fresh(study))


def fresh(study: Experiment) -> tuple[Searcher, Scheduler]:
    searcher = build_searcher(study.search, study.space)
    return searcher, scheduler_of(study, searcher.evidence)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("study"), *request.param)


def test_every_proposal_lies_in_the_space_with_the_right_types(played: Played) -> None:
    space = played.study.space
    assert list(played.trials) == list(range(TRIALS))
    for trial in played.trials.values():
        branch = trial.assignment.get("one_of")
        expected: dict[str, Distribution] = space.distributions(branch)
        assert trial.assignment.keys() - {"one_of"} == expected.keys(), "its branch's keys and no other's"
        for key, distribution in expected.items():
            value = trial.assignment[key]
            assert 0 <= distribution.to_unit(value) <= 1  # ValueError for a value outside
            assert type(value) in {type(corner) for corner in distribution.corners()}
        assert played.study.trial_config(trial.assignment).to_dict() == trial.config
        assert trial.assignment["model.layers"] == 2, "one choice is no choice"
    assert len({str(trial.assignment) for trial in played.trials.values()}) > TRIALS / 2


def test_starting_points_come_first(played: Played) -> None:
    begun = [event[4] for event in played.whole.told if event[0] == "begins" and event[2] == 0]
    for given, assignment in zip(START, begun, strict=False):
        assert flatten(given).items() <= assignment.items()


def test_bad_results_and_failures_end_a_trial_and_nothing_else(played: Played) -> None:
    trials = played.trials
    assert played.whole.finished
    ended = {"completed", "stopped_early", "diverged", "failed"}
    assert all(trial.outcome in ended for trial in trials.values())
    may_be_stopped = played.study.scheduler.algorithm in ("asha", "hyperband", "median")
    failed = {number for number, trial in trials.items() if trial.outcome == "failed"}
    assert failed == set(FAILS) or (may_be_stopped and failed == {4})
    bad = {event[1]: event for event in played.whole.told if event[0] == "reports" and isinstance(event[3], str)}
    assert bad.keys() == DIVERGES.keys() or (may_be_stopped and bad.keys() == {3, 5})
    assert [bad[number][3:] for number in (3, 5)] == [("nan", False), ("inf", False)]
    if played.study.has_population:
        assert all(trials[number].taken_over for number in DIVERGES), "they go on from another's weights"
    else:
        assert {number for number, trial in trials.items() if trial.outcome == "diverged"} == set(bad)


def test_the_scheduler_s_word_holds(played: Played) -> None:
    """What it stops reports no more; what it lets go on comes to the end of its budget."""
    algorithm, told = played.study.scheduler.algorithm, played.whole.told
    if algorithm == "pbt":
        assert any(trial.taken_over for trial in played.trials.values())
        return
    for number, trial in played.trials.items():
        verdicts = [event[4] for event in told if event[:2] == ("reports", number)]
        assert all(verdicts[:-1])
        if trial.outcome == "completed":
            assert len(trial.reports) == EPOCHS
    stopped = [one for one in played.trials.values() if one.outcome == "stopped_early"]
    assert all(len(one.reports) < EPOCHS for one in stopped)
    assert bool(stopped) == (algorithm != "none")


def first_difference(one: Sequence[Any], other: Sequence[Any]) -> tuple[Any, Any] | None:
    """Where two studies part; pytest's own comparison takes minutes."""
    return next((pair for pair in itertools.zip_longest(one, other) if pair[0] != pair[1]), None)


def test_it_goes_on_from_its_pickles(played: Played) -> None:
    assert first_difference(played.pickled, played.after) is None


def test_what_is_resumed_proposes_and_decides_as_what_was_not_interrupted(played: Played) -> None:
    assert first_difference(played.replayed, played.after) is None
    assert {event[0] for event in played.after} >= {"begins", "reports"}
    assert played.shown >= getattr(played.whole.ours.algorithm, "startup", 0), "what learns has something to learn from"


@pytest.mark.parametrize("pair", [(one, other) for one in SEARCHERS for other in SCHEDULERS], ids="-".join)
def test_with_nothing_to_search_one_trial_runs_to_its_end(tmp_path: Path, pair: tuple[str, str]) -> None:
    search = {"algorithm": pair[0]}
    alone = experiment(*pair, model={}, regularizers={}, training={}, one_of=None, search=search)
    study = new(tmp_path, alone).play()
    assert study.finished
    assert [(one.outcome, one.spent, one.assignment) for one in study.journal.trials.values()] == [
        ("completed", EPOCHS, {})
    ]


@pytest.mark.parametrize("pair", REFUSED, ids="-".join)
def test_pairs_that_make_no_sense_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        experiment(*pair)
    start = (
        f"search.algorithm: {pair[0]!r}: must be random with scheduler.algorithm: pbt, which draws its population at "
    )
    assert str(caught.value).startswith(start)
    assert caught.value.remedy == "Write search.algorithm: random."
