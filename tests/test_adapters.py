"""ASHA behind our adapter, and its state after a resumed study; no Ray cluster is started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.experiment import Experiment
from tune_rnn.report import Report, rungs
from tune_rnn.results.journal import Journal
from tune_rnn.search import Proposal
from tune_rnn.study.adapters import _reason, build_scheduler, replay_reports
from tune_rnn.study.trainable import SCORE, score

BASELINE = 4.0


def experiment(first: float = 1.0, factor: float = 3.0, amount: float = 9.0) -> Experiment:
    scheduler = {"algorithm": "asha", "first_rung": first, "reduction_factor": factor}
    return Experiment(name="x", budget={"epochs": amount}, training={"report_every": first}, scheduler=scheduler)


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


def tell(scheduler: Any, number: int, spent: float, loss: float) -> str:
    trial = SimpleNamespace(config={"number": number})
    if number not in scheduler._trial_info:
        scheduler.on_trial_add(None, trial)
    return str(scheduler.on_trial_result(None, trial, {"spent": spent, SCORE: loss}))


def recorded(scheduler: Any) -> dict[float, dict[int, float]]:
    (bracket,) = scheduler._brackets
    return {milestone: dict(values) for milestone, values in bracket._rungs}


@given(st.floats(0.1, 2), st.floats(1.5, 5), st.floats(1, 30))
def test_trials_report_exactly_at_the_rungs_of_ray(first: float, factor: float, times: float) -> None:
    study = experiment(first, factor, first * times)
    milestones = recorded(build_scheduler(study))
    ours = rungs(study)
    assert set(ours) <= {*milestones, *ours[-1:]}  # the logarithm in Ray may round the last one away
    assert {rung for rung in milestones if rung < first * times} <= set(ours)


def test_a_worse_trial_is_stopped_at_its_rung_and_not_between() -> None:
    scheduler = build_scheduler(experiment())
    for number, loss in enumerate([1.0, 1.1, 1.2]):
        tell(scheduler, number, 1.0, loss)
    assert tell(scheduler, 3, 1.0, 3.0) == "STOP"
    assert tell(scheduler, 4, 1.0, 0.9) == "CONTINUE"
    assert tell(scheduler, 4, 2.0, 3.9) == "CONTINUE"


def test_a_resumed_study_has_the_rungs_it_had_and_no_trial_enters_one_twice(tmp_path: Path) -> None:
    straight = build_scheduler(experiment())
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("sha", 1, 0.0)
    for number, losses in enumerate([[1.0, 0.9, 0.8], [1.5], [0.7, 0.6]]):
        journal.propose(number, 0, Proposal({}, {}), {})
        for spent, loss in enumerate(losses, start=1):
            tell(straight, number, float(spent), loss)
            journal.report(number, report(float(spent), loss))
            journal.checkpoint(number, "somewhere")
    resumed = build_scheduler(experiment())
    replay_reports(resumed, journal, BASELINE)
    assert recorded(resumed) == recorded(straight)
    assert tell(resumed, 2, 3.0, 0.5) == tell(straight, 2, 3.0, 0.5)
    assert recorded(resumed) == recorded(straight)
    assert recorded(resumed)[1.0][2] == -0.7


@pytest.mark.parametrize("loss", [0.1, 3.9, 7.9, 1e9])
def test_a_diverged_trial_scores_worse_than_every_finite_loss(loss: float) -> None:
    assert score(report(1.0, loss), BASELINE) < score(report(1.0, None, "diverged"), BASELINE)


def test_a_trial_that_diverged_after_good_reports_scores_as_diverged() -> None:
    late = report(3.0, 0.5, "diverged")
    assert score(late, BASELINE) == score(report(1.0, None, "diverged"), BASELINE)


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
