"""What a run says it found: `summary.json`, the object, the closing text."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_rnn.data import Corpus, load_corpus
from tune_rnn.display import Display, counts
from tune_rnn.errors import StudyFailed, StudyInterrupted
from tune_rnn.experiment import Experiment
from tune_rnn.final.timing import final_seconds
from tune_rnn.report import Report
from tune_rnn.results import provenance as provenance_module
from tune_rnn.results.best import Sample
from tune_rnn.results.conclusion import carry_out
from tune_rnn.results.directory import create
from tune_rnn.results.journal import Journal, Span
from tune_rnn.results.provenance import git_state, provenance
from tune_rnn.results.recorder import Plan, Recorder
from tune_rnn.results.summary import Result, closing_text, write_summary
from tune_rnn.results.work import work_planned

REPORT = Report(1.0, 1000, 10, 2.0, 2.1, 2.1, 1e-3, 0.5, 100.0, 30.0, improved=True)
OUTCOMES = {
    0: ("completed", 2.0),
    1: ("stopped_early", 3.0),
    2: ("diverged", 0.5),
    3: ("failed", 2.5),
    4: ("", 2.4),
    5: ("stopped_early", 1.75),
}


@pytest.fixture
def data(corpus: Path) -> Corpus:
    return load_corpus(
        SimpleNamespace(kind="char_lm", corpus=str(corpus), files=None, split=None, documents="separate")
    )


@pytest.fixture
def recorder(tmp_path: Path, data: Corpus) -> Recorder:
    """A study of six trials, of which each ended in another way."""
    searched = Experiment(
        name="study",
        model={"hidden_size": {"int": [16, 64]}},
        budget={"epochs": 2, "trials": 6},
        search={"seed": 9},
        final={"top_k": 0},
        storage=str(tmp_path),
    )
    run = create(str(tmp_path), "study")
    journal = Journal(run.journal)
    journal.open_session(data.sha256, 2, 1000.0)
    for number, (outcome, loss) in OUTCOMES.items():
        assignment = {"model.hidden_size": 16 + number}
        journal.propose(number, number, assignment, searched.trial_config(assignment).to_dict())
        journal.report(number, replace(REPORT, validation_loss=loss, best_loss=loss))
        journal.checkpoint(number, f"ray/1/{number}")
        if outcome:
            journal.end(number, outcome, "why")
    return Recorder(run, journal, searched, data, Plan(3, 1, "cpu", 6, 2.0), Display(io.StringIO()))


def test_counts_add_up_and_the_best_is_a_sound_trial(recorder: Recorder, data: Corpus) -> None:
    summary = write_summary(recorder, data, "interrupted")
    counts = summary["trials"]
    assert counts == {
        **{"total": 6, "completed": 1, "stopped_early": 2, "diverged": 1, "failed": 1},
        "unfinished": 1,
        "refused": 0,
    }
    assert (summary["name"], summary["status"], summary["seed"]) == ("study", "interrupted", 9)
    best = summary["best"]
    assert (best["trial"], best["metrics"]["validation_loss"]) == (5, 1.75)
    assert best["config"]["model"]["hidden_size"] == 21
    assert summary["tokens"] == 6000


def test_what_the_terminal_shows_does_not_grow_old_where_a_look_at_all_trials_takes_long(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, look_s, shown = [100.0], [0.05], list[float]()

    def collect() -> None:
        clock[0] += look_s[0]

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(recorder.best, "collect", collect)
    monkeypatch.setattr(recorder.best, "offer", lambda *what: None)
    monkeypatch.setattr(recorder.display, "update", lambda progress: shown.append(clock[0]))
    for look_s[0], pause in ((0.05, 2.5), (1.0, 10.0)):
        shown.clear()
        while len(shown) < 3:
            clock[0] += 0.1
            recorder.tick()
        assert shown[2] - shown[1] == pytest.approx(pause + look_s[0], abs=0.11)


def test_useful_is_training_over_slots_and_time(recorder: Recorder, data: Corpus) -> None:
    (session,) = recorder.journal.sessions
    session.slots, session.since, session.until = 3, 1000.0, 1120.0
    summary = write_summary(recorder, data, "completed")
    assert summary["time"] == {"wall_s": 120.0, "training_s": 180.0, "slots": 3, "useful_fraction": 0.5}
    recorder.journal.sessions.append(Span(slots=1, since=2000.0, until=2240.0))
    time = write_summary(recorder, data, "completed")["time"]
    assert time == {"wall_s": 360.0, "training_s": 180.0, "slots": 1.6667, "useful_fraction": 0.3}


def test_the_summary_is_json_without_nan(recorder: Recorder, data: Corpus) -> None:
    summary = write_summary(recorder, data, "completed")
    text = recorder.run.summary.read_text("utf-8")
    assert "NaN" not in text
    assert json.loads(text) == summary


def test_what_nobody_wrote_is_not_called_fixed(recorder: Recorder) -> None:
    for every, shown in ((1.0, False), (0.5, True)):
        best = replace(recorder.journal.trials[5])
        best.config["training"]["report_every"] = every
        assert ("training.report_every" in closing_text(recorder, best, Sample(5, 1000, "text"))) is shown


def test_a_study_whose_best_checkpoint_is_lost_ends_with_a_summary(recorder: Recorder, data: Corpus) -> None:
    with pytest.raises(StudyFailed, match="The checkpoint of the best trial, 5, is missing or damaged"):
        carry_out(lambda: "completed", recorder, data, "begins")
    summary = json.loads(recorder.run.summary.read_text())
    assert (summary["status"], summary["best"]["trial"]) == ("failed", 5)


@pytest.mark.parametrize(("status", "written"), [("completed", "failed"), ("interrupted", "interrupted")])
def test_a_study_without_a_loss_has_no_result(
    tmp_path: Path, recorder: Recorder, data: Corpus, status: str, written: str
) -> None:
    run = create(str(tmp_path), "nothing")
    journal = Journal(run.journal)
    journal.open_session(data.sha256, 2, 1000.0)
    nothing = Recorder(run, journal, recorder.experiment, data, recorder.plan, recorder.display)
    error = StudyInterrupted if status == "interrupted" else StudyFailed
    with pytest.raises(error):
        carry_out(lambda: status, nothing, data, "begins")
    summary = json.loads(run.summary.read_text())
    assert (summary["status"], summary["best"], summary["trials"]["total"]) == (written, None, 0)


def test_a_best_model_that_was_taken_over_has_a_history(recorder: Recorder, data: Corpus) -> None:
    assert "history" not in write_summary(recorder, data, "completed")["best"]
    journal, values = recorder.journal, {"model.hidden_size": 40}
    journal.take_over(4, 5, 1.0, values, recorder.experiment.trial_config(values).to_dict())
    best = write_summary(recorder, data, "completed")["best"]
    assert (best["trial"], best["config"]["model"]["hidden_size"]) == (5, 21), "trial 5 trained that model"
    journal.report(4, replace(REPORT, spent=2.0, tokens=2500, validation_loss=1.5, best_loss=1.5))
    journal.checkpoint(4, "ray/1/4b")
    summary = write_summary(recorder, data, "completed")
    best = summary["best"]
    assert (best["trial"], best["config"]["model"]["hidden_size"]) == (4, 40)
    assert best["history"] == [{"trial": 5, "until": 1.0, "values": {"model.hidden_size": 21}}]
    assert summary["tokens"] == 7500, "what was given up has been processed all the same"
    text = closing_text(recorder, journal.trials[4], Sample(4, 0, ""))
    assert "the best model was trained with 1 other configuration before this one" in text


def test_a_final_stage_has_its_own_section(recorder: Recorder, data: Corpus) -> None:
    assert "final" not in write_summary(recorder, data, "completed")
    journal = recorder.journal
    for seed, loss in ((7, 1.9), (8, 1.8)):
        trial = journal.propose_again(of=5, stage="final", seed=seed)
        journal.report(trial.number, replace(REPORT, validation_loss=loss, best_loss=loss))
        journal.checkpoint(trial.number, "ray/1/again")
        journal.end(trial.number, "completed", "why")
    summary = write_summary(recorder, data, "completed")
    assert summary == json.loads(recorder.run.summary.read_text("utf-8"))
    assert (summary["best"]["trial"], summary["best"]["metrics"]["validation_loss"]) == (7, 1.8)
    assert summary["final"]["winner"] == 5
    assert summary["final"]["candidates"][0]["losses"] == [1.9, 1.8]
    assert (summary["trials"]["total"], summary["trials"]["completed"], summary["tokens"]) == (6, 1, 8000)
    assert summary["final"]["trainings"] == {
        **{"total": 2, "completed": 2, "stopped_early": 0, "diverged": 0, "failed": 0},
        "unfinished": 0,
    }


def test_without_a_final_stage_the_text_says_what_one_would_take(recorder: Recorder, data: Corpus) -> None:
    best = recorder.journal.best_trial
    assert best is not None
    text = closing_text(recorder, best, Sample(5, 1000, "text"))
    assert "the lowest of 6 losses of one seed each is a lucky one: `tune-rnn resume " in text
    assert "final.top_k=1` trains the best again (3 trainings, about " in text, "as many as by default"
    asked = Recorder(
        recorder.run,
        recorder.journal,
        recorder.experiment.replace("final.top_k", 1),
        data,
        recorder.plan,
        recorder.display,
    )
    assert "lucky" not in closing_text(asked, best, Sample(5, 1000, "text"))


@pytest.mark.parametrize("hours", [0.25, 12.4, 24.0, 125.0])
def test_the_hours_that_a_final_stage_would_take_are_enough(recorder: Recorder, hours: float) -> None:
    best = recorder.journal.best_trial
    assert best is not None
    recorder.experiment = recorder.experiment.replace("budget.hours", hours)
    text = closing_text(recorder, best, Sample(5, 1000, "text"))
    (more,) = re.findall(r"final\.top_k=1 budget\.hours=(\d+\.\d\d)` trains", text)
    needed = hours + final_seconds(recorder.journal, recorder.experiment.replace("final.top_k", 1), 3) / 1800
    assert 0 <= float(more) - needed <= 0.01


def test_the_text_warns_of_trials_that_failed(recorder: Recorder) -> None:
    journal, run = recorder.journal, recorder.run.path
    best = journal.best_trial
    assert best is not None
    text = closing_text(recorder, best, Sample(5, 1000, "text"))
    again = f"`tune-rnn resume {run}` tries"
    assert f"  1 of 6 trials failed (see {run}/trial_0003/error.txt): {again} it again\n" in text
    journal.end(4, "failed", "why")
    assert f"  2 of 6 trials failed (see {run}/trial_0003/error.txt): {again} them again\n" in closing_text(
        recorder, best, Sample(5, 1000, "text")
    )
    assert [trial.number for trial in Journal(journal.path).unfinished] == [3, 4], "and so it does"
    recorder.experiment = recorder.experiment.replace("budget.hours", 2)
    assert f"`tune-rnn resume {run} budget.hours=4` tries them" in closing_text(recorder, best, Sample(5, 1000, "text"))
    for number in (3, 4):
        journal.trials[number].outcome = "completed"
    assert "failed" not in closing_text(recorder, best, Sample(5, 1000, "text"))


def test_the_display_counts_the_trainings_of_the_final_stage(recorder: Recorder) -> None:
    recorder.plan = replace(recorder.plan, extra=4, extra_amount=2.0)
    progress = recorder.progress()
    assert (progress.planned, progress.ended, progress.final_planned) == (6, 5, 0)
    assert 0 < progress.fraction < 5 / 10, "final trainings are longer than stopped trials"
    trial = recorder.journal.propose_again(of=5, stage="final", seed=7)
    assert counts(recorder.progress()).endswith("1 failed, 0 of 1 final training")
    recorder.journal.report(trial.number, REPORT)
    recorder.journal.end(trial.number, "completed", "")
    told = counts(recorder.progress())
    assert told == "5 of 6 trials done, 2 stopped early, 1 diverged, 1 failed, 1 of 1 final training"


def test_the_display_counts_what_is_left_of_a_grid_and_the_final_stage(recorder: Recorder) -> None:
    recorder.plan = replace(recorder.plan, points=8, extra=4, extra_amount=2.0)
    assert recorder.progress().planned == 6
    for number in range(3):
        recorder.journal.refuse(6, {"model.hidden_size": number})
    assert recorder.progress().planned == 5
    assert work_planned(recorder.journal, recorder.plan) > 9, "final trainings are longer than stopped trials"


def test_a_result_gives_away_copies(tmp_path: Path) -> None:
    best: dict[str, Any] = {"config": {"model": {}}, "metrics": {"validation_loss": 1.0}}
    result = Result(tmp_path, {"best": best}, "")
    result.best_metrics["validation_loss"] = 0.0
    result.best_config.clear()
    assert result.best_metrics == {"validation_loss": 1.0}
    assert result.best_config == {"model": {}}


def test_provenance_says_what_ran_where_on_what(data: Corpus, corpus: Path) -> None:
    found = provenance(data)
    assert found.keys() == {"versions", "data", "git", "hardware", "finished"}
    assert found["data"]["sha256"] == data.sha256
    assert found["data"]["files"] == [{"name": str(corpus), "sha256": data.sha256, "bytes": corpus.stat().st_size}]
    assert found["versions"].keys() >= {"python", "tune_rnn", "torch", "ray", "numpy"}
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["processor"]


def test_git_knows_the_commit_and_whether_the_tree_was_clean(tmp_path: Path) -> None:
    git = provenance_module._git
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    (tmp_path / "study.yaml").write_text("")
    git(tmp_path, "add", "study.yaml")
    git(tmp_path, *identity, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "clean": True}
    (tmp_path / "results").write_text("what is not tracked does not count")
    assert git_state(tmp_path) == {"commit": commit, "clean": True}
    (tmp_path / "study.yaml").write_text("name: changed")
    assert git_state(tmp_path) == {"commit": commit, "clean": False}


def test_a_machine_without_git_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path.cwd()) is None
