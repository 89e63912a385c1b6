"""The journal of a run: what is appended is what is read, whatever a crash left of it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tune_rnn.errors import InputError
from tune_rnn.report import Report
from tune_rnn.results.journal import Journal, TrialRecord, outcome_of

CONFIG = {"model": {"hidden_size": 64}, "one_of": None}


def a_report(spent: float, loss: float | None, **changes: Any) -> Report:
    """A report of 10 training seconds that improves, unless `changes` say otherwise."""
    report = Report(
        spent=spent,
        tokens=int(1000 * spent),
        step=int(10 * spent),
        train_loss=loss,
        validation_loss=loss,
        best_loss=loss,
        learning_rate=1e-3,
        gradient_norm=0.5,
        tokens_per_second=100.0,
        training_s=10.0,
        improved=loss is not None,
    )
    return replace(report, **changes)


def begin(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.propose(number, 100 + number, {"x": number / 3}, CONFIG)


def add(journal: Journal, number: int, *losses: float, checkpoint: bool = True, **changes: Any) -> None:
    """Reports of one trial, each with its checkpoint."""
    for loss in losses:
        done = len(journal.trials[number].reports) + 1
        journal.report(number, a_report(float(done), loss, **changes))
        if checkpoint:
            journal.checkpoint(number, f"ray/1/trial_{number:04d}/checkpoint_{done:06d}")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    opened = Journal(tmp_path / "trials.jsonl")
    opened.open_session("abc", 2, 1000.0)
    return opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `time.time()` says to the journal; the tests set it."""
    now = [1000.0]
    monkeypatch.setattr("tune_rnn.results.journal.time.time", lambda: now[0])
    return now


def test_what_is_appended_is_what_is_read(journal: Journal) -> None:
    begin(journal, 0, 1, 2)
    add(journal, 0, 2.0, 1.5)
    journal.end(0, "completed", "trained to the end of its budget")
    journal.report(1, a_report(1.0, None, finished="diverged", reason="validation loss became nan"))
    journal.end(1, "diverged", "validation loss became nan")
    again = Journal(journal.path)
    assert again.trials == journal.trials
    assert again.sessions == journal.sessions
    assert again.data_sha256 == "abc"
    assert again.trials[0].assignment == {"x": 0.0}
    assert again.trials[0].checkpoint == "ray/1/trial_0000/checkpoint_000002"
    assert [trial.outcome for trial in again.trials.values()] == ["completed", "diverged", ""]


def test_values_come_back_with_their_types(journal: Journal) -> None:
    assignment = {"a": True, "b": 1, "c": 1.0, "d": 1e-300, "e": "ü\u2028\x85\n", "f": 0.1 + 0.2}
    journal.propose(0, 2**32 - 1, assignment, CONFIG)
    found = Journal(journal.path).trials[0]
    assert [(type(value), value) for value in found.assignment.values()] == [
        (type(value), value) for value in assignment.values()
    ]
    assert found.seed == 2**32 - 1


def test_reading_writes_nothing(journal: Journal) -> None:
    begin(journal, 0)
    before = journal.path.read_bytes()
    Journal(journal.path)
    assert journal.path.read_bytes() == before
    assert not Journal(journal.path.with_name("none.jsonl")).path.exists()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 1.0])
def test_a_line_that_a_crash_cut_off_is_ignored(journal: Journal, kept: float) -> None:
    begin(journal, 0)
    add(journal, 0, 2.0)
    whole = journal.path.read_bytes()
    last = '{"event": "ended", "trial": 0, "outcome": "failed", "reason": "caf\u00e9", "time": 1}'.encode()
    journal.path.write_bytes(whole + last[: int(kept * (len(last) - 1))])
    cut = Journal(journal.path)
    assert cut.trials == journal.trials
    cut.open_session("abc", 2, 1000.0)
    begin(cut, 1)
    again = Journal(journal.path)
    assert again.trials == cut.trials
    assert len(again.sessions) == 2, "what comes after the cut is not lost with it"


def test_a_letter_that_a_crash_cut_in_two_is_ignored(journal: Journal) -> None:
    begin(journal, 0)
    with journal.path.open("ab") as file:
        file.write('{"event": "ended", "reason": "é'.encode()[:-1])
    assert Journal(journal.path).trials == journal.trials


def test_reports_without_a_checkpoint_are_dropped_by_a_new_session(journal: Journal) -> None:
    begin(journal, 0, 1)
    add(journal, 0, 3.0, 2.0)
    add(journal, 0, 1.0, checkpoint=False)
    add(journal, 1, 3.0, checkpoint=False)
    assert journal.trials[0].best_loss == 2.0, "the model of the third report is nowhere"
    for opened in (journal, Journal(journal.path)):
        opened.open_session("abc", 2, 1000.0)
        assert [report.validation_loss for report in opened.trials[0].reports] == [3.0, 2.0]
        assert opened.trials[1].reports == []
        assert [trial.number for trial in opened.unfinished] == [0, 1]
        assert opened.training_s == 20.0, "what is done again counts once"


def test_finished_trials_stay_finished(journal: Journal) -> None:
    begin(journal, 0, 1, 2)
    for number, outcome in enumerate(("completed", "stopped_early", "diverged")):
        add(journal, number, 2.0)
        journal.end(number, outcome, "why")
    before = {number: (trial.outcome, trial.reason) for number, trial in journal.trials.items()}
    journal.open_session("abc", 2, 1000.0)
    assert {number: (trial.outcome, trial.reason) for number, trial in journal.trials.items()} == before
    assert journal.unfinished == []


def test_failed_trials_return_to_their_checkpoint(journal: Journal) -> None:
    begin(journal, 0)
    add(journal, 0, 2.0)
    add(journal, 0, 1.0, checkpoint=False)
    journal.end(0, "failed", "no space left on the disk")
    assert journal.trials[0].outcome == "failed"
    journal.open_session("abc", 2, 1000.0)
    (trial,) = journal.unfinished
    assert (trial.outcome, trial.reason, trial.spent) == ("", "", 1.0)


@pytest.mark.parametrize(
    ("finished", "outcome"), [("budget", "completed"), ("patience", "stopped_early"), ("diverged", "diverged")]
)
def test_a_crash_between_the_last_checkpoint_and_the_end_loses_no_result(
    journal: Journal, finished: str, outcome: str
) -> None:
    """There is nothing left to train: the trial must not be begun again."""
    begin(journal, 0)
    add(journal, 0, 2.0, finished=finished, reason="its reason")
    assert [trial.number for trial in journal.unfinished] == [0]
    journal.open_session("abc", 2, 1000.0)
    assert journal.unfinished == []
    assert (journal.trials[0].outcome, journal.trials[0].reason) == (outcome, "its reason")


def test_the_best_trial_has_the_lowest_loss(journal: Journal) -> None:
    begin(journal, 0, 1, 2)
    best: list[TrialRecord | None] = [journal.best_trial]
    for number, loss in ((1, 2.0), (2, 1.5), (0, 3.0), (0, 1.0)):
        add(journal, number, loss)
        best.append(journal.best_trial)
    trials = journal.trials
    assert best == [None, trials[1], trials[2], trials[2], trials[0]]


def test_the_first_of_equals_is_the_best(journal: Journal) -> None:
    begin(journal, 2, 0, 1)
    for number in (2, 1, 0):
        add(journal, number, 1.25)
    assert journal.best_trial is journal.trials[0]


def test_a_diverged_trial_is_never_the_best(journal: Journal) -> None:
    begin(journal, 0, 1)
    add(journal, 0, 0.5)
    journal.report(0, a_report(2.0, None, best_loss=0.5, finished="diverged"))
    journal.checkpoint(0, "ray/1/trial_0000/checkpoint_000002")
    journal.end(0, "diverged", "training loss became inf")
    assert [trial.number for trial in (journal.best_trial,) if trial] == []
    add(journal, 1, 2.0)
    assert journal.best_trial is journal.trials[1]


def test_a_failed_trial_keeps_the_loss_of_its_checkpoint(journal: Journal) -> None:
    begin(journal, 0)
    add(journal, 0, 2.0)
    journal.end(0, "failed", "killed")
    assert journal.best_trial is journal.trials[0]


def test_the_best_report_is_the_last_that_improved(journal: Journal) -> None:
    begin(journal, 0)
    add(journal, 0, 3.0, 2.0)
    add(journal, 0, 2.5, improved=False, best_loss=2.0)
    best = journal.trials[0].best
    assert best is not None
    assert (best.validation_loss, best.spent) == (2.0, 2.0)
    assert TrialRecord(1, 0, {}, {}).best is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_word_for_cannot_be_written(journal: Journal, number: float) -> None:
    begin(journal, 0)
    before = journal.path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.report(0, a_report(1.0, number))
    assert journal.path.read_bytes() == before
    assert journal.trials[0].reports == []


def test_every_line_is_an_event_with_its_time(journal: Journal) -> None:
    begin(journal, 0)
    add(journal, 0, 2.0)
    journal.end(0, "completed", "")
    events = [json.loads(line) for line in journal.path.read_text("utf-8").splitlines()]
    assert [event["event"] for event in events] == ["session", "proposed", "report", "checkpoint", "ended"]
    assert all(event["time"] > 1.6e9 for event in events)


def test_wall_time_counts_sessions_and_not_the_nights_between(tmp_path: Path, clock: list[float]) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("abc", 2, clock[0] - 5)
    assert journal.wall_s == 5
    begin(journal, 0)
    clock[0] = 1030.5
    add(journal, 0, 2.0)  # killed then
    clock[0] = 90_000.0
    journal.open_session("abc", 3, clock[0])
    clock[0] = 90_010.0
    journal.end(0, "completed", "")
    clock[0] = 90_011.0
    journal.close_session()
    read = Journal(journal.path)
    assert journal.wall_s == read.wall_s == 35.5 + 11
    assert journal.slot_s == read.slot_s == 2 * 35.5 + 3 * 11


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"event": "report", "trial": 7}', "KeyError: 7"),
        ('{"trial": 0, "time": 1}', "KeyError: 'event'"),
        ("[1, 2]", "TypeError: "),
    ],
)
def test_a_line_of_somebody_else_is_named(journal: Journal, line: str, found: str) -> None:
    with journal.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=rf"trials\.jsonl: line 2 is not what tune_rnn writes \({re.escape(found)}"):
        Journal(journal.path)


def test_the_data_must_be_what_they_were(journal: Journal) -> None:
    journal.check_data("abc")
    with pytest.raises(InputError, match="data has changed"):
        journal.check_data("abd")


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (a_report(8, 2.0, finished="budget", reason="done"), ("completed", "done")),
        (a_report(8, None, finished="diverged", reason="nan"), ("diverged", "nan")),
        (a_report(4, 2.0, finished="patience", reason="3 reports"), ("stopped_early", "3 reports")),
    ],
)
def test_outcomes_follow_from_the_last_report(last: Report, outcome: tuple[str, str]) -> None:
    assert outcome_of(last, "epochs") == outcome


def test_the_scheduler_stopped_what_did_not_end_itself() -> None:
    outcome, reason = outcome_of(a_report(3.0, 2.0), "epochs")
    assert outcome == "stopped_early"
    assert reason == "its loss after 3 epochs was not good enough to go on"
