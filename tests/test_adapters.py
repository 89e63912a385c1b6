"""Our searcher and scheduler behind Ray's, and their state in a resumed study; no Ray cluster is started."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from tune_rnn import space
from tune_rnn.report import Report
from tune_rnn.results.journal import Journal
from tune_rnn.schedulers import Asha
from tune_rnn.schema import Search
from tune_rnn.search import Searcher, build_searcher
from tune_rnn.space import Space
from tune_rnn.study.adapters import StudyScheduler, _reason, replay
from tune_rnn.study.trainable import SCORE


def report(spent: float, loss: float | None, finished: str = "") -> Report:
    return Report(
        spent=spent,
        tokens=int(spent),
        step=int(spent),
        train_loss=loss,
        validation_loss=loss,
        best_loss=loss,
        learning_rate=0.1,
        gradient_norm=1.0,
        tokens_per_second=1.0,
        training_s=1.0,
        improved=loss is not None,
        finished=finished,
    )


def a_study() -> tuple[Searcher, Asha]:
    return build_searcher(Search(algorithm="hyperopt"), Space({"x": space.uniform(0, 1)}, {})), Asha([1.0, 3.0], 3.0)


def test_a_resumed_study_knows_what_the_uninterrupted_one_does(tmp_path: Path) -> None:
    searcher, scheduler = a_study()
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("sha", 1, 0.0)
    for number, losses in enumerate([[1.0, 0.9, 0.8], [1.5], [0.7, 0.6]]):
        journal.propose(number, 0, {"x": 0.1 * number}, {})
        searcher.began(number, {"x": 0.1 * number})
        for spent, loss in enumerate(losses, start=1):
            journal.report(number, report(float(spent), loss))
            journal.checkpoint(number, "somewhere")
            searcher.reported(number, float(spent), loss)
            scheduler.goes_on(number, float(spent), loss)
    journal.end(1, "stopped_early", "")
    searcher.ended(1)
    journal.propose(3, 0, {"x": 0.9}, {})
    journal.report(3, report(1.0, None, "diverged"))
    journal.checkpoint(3, "somewhere")
    journal.end(3, "diverged", "")
    searcher.began(3, {"x": 0.9})
    searcher.reported(3, 1.0, math.inf)
    searcher.ended(3)
    again, rungs = a_study()
    replay(again, rungs, Journal(journal.path))
    assert again.evidence.trials == searcher.evidence.trials
    assert [vars(rung) for _, rung in rungs.rungs] == [vars(rung) for _, rung in scheduler.rungs]


def test_a_diverged_trial_is_stopped_and_asks_nobody() -> None:
    rules = Asha([1.0], 3.0)
    scheduler = StudyScheduler(rules)
    trial = SimpleNamespace(config={"number": 0})
    assert scheduler.on_trial_result(None, trial, {"spent": 1.0, SCORE: math.inf}) == "STOP"
    assert scheduler.on_trial_result(None, trial, {"spent": 1.0, SCORE: 2.0}) == "CONTINUE"
    assert rules.rungs[0][1].scores == [2.0]


@pytest.mark.parametrize("loss", [0.1, 3.9, 1e9])
def test_a_trial_that_diverged_after_good_reports_scores_as_diverged(loss: float) -> None:
    assert report(1.0, loss).score == loss
    assert report(3.0, loss, "diverged").score == math.inf


@pytest.mark.parametrize(
    ("traceback", "expected"),
    [
        ("Traceback\nValueError: bad\n", "ValueError: bad"),
        ("Traceback\ntune_rnn.errors.TrialFailed: The disk is full.\n", "The disk is full."),
        ("The actor is dead because its owner has died.\n", "its process was killed, perhaps because"),
        (
            "ActorUnavailableError: The actor 4ee2 is unavailable: RpcError: keepalive watchdog timeout\n",
            "its process did not answer for long",
        ),
        ("", "unknown"),
    ],
)
def test_a_traceback_becomes_a_reason_in_one_line(traceback: str, expected: str) -> None:
    assert _reason(traceback).startswith(expected)
