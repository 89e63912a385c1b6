"""`train`: one model in this process, in a run directory like any other; and a trial of a run once more."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import tune_rnn
from tune_rnn.checkpoint import load
from tune_rnn.data import load_corpus
from tune_rnn.display import Display, Progress
from tune_rnn.errors import InputError, StudyFailed, StudyInterrupted
from tune_rnn.experiment import Experiment
from tune_rnn.report import Report, TrialBudget
from tune_rnn.results.directory import RunDirectory, create, locked, write_experiment
from tune_rnn.results.evaluate import evaluate_run
from tune_rnn.results.journal import Journal, TrialRecord
from tune_rnn.results.summary import Result
from tune_rnn.search import trial_seed
from tune_rnn.single import Rerun, train
from tune_rnn.training import Training, TrainingData

SECTIONS: dict[str, Any] = {
    "name": "one",
    "model": {"embedding_size": 8, "hidden_size": 16},
    "regularizers": {"input_dropout": 0.1, "clip_norm": 1.0},
    "training": {
        "learning_rate": 0.01,
        "batch_size": 8,
        "sequence_length": 64,
        "precision": "fp32",
        "report_every": 0.25,
    },
    "budget": {"epochs": 1},
    "resources": {"device": "cpu"},
}


def experiment(corpus: Path, storage: Path, **changes: Any) -> Experiment:
    """A small LSTM that reports four times; `changes` replace whole sections."""
    sections = {**SECTIONS, "task": {"corpus": str(corpus)}, "storage": str(storage), **changes}
    return Experiment(**sections)


def trial_of(path: Path, number: int = 0) -> TrialRecord:
    return Journal(RunDirectory(path).journal).trials[number]


def measured(reports: list[Report]) -> list[dict[str, Any]]:
    """Reports without the two numbers that are another each time."""
    return [asdict(report) | {"training_s": 0, "tokens_per_second": 0} for report in reports]


class StopAfter(Display):
    """A display that stops the process after some reports, by a signal or as Ctrl-C does."""

    def __init__(self, updates: int, by: int | None = None) -> None:
        super().__init__()
        self.left, self.by = updates, by

    def update(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0 and self.by is not None:
            os.kill(os.getpid(), self.by)
        elif self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One trained model that several tests look at."""
    return train(experiment(corpus, tmp_path_factory.mktemp("storage")))


def test_the_run_directory_is_complete(finished: Result) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert names == {"experiment.yaml", "summary.json", "best", "trials.jsonl", "trial_0000", "checkpoints"}
    best = {path.name for path in (finished.path / "best").iterdir()}
    assert best == {"model.safetensors", "config.json", "vocabulary.json"}
    assert list((finished.path / "trial_0000").glob("events.out.tfevents.*"))
    assert [path.name for path in (finished.path / "checkpoints").iterdir()] == ["checkpoint_000004"]


def test_the_summary_keeps_its_contract(finished: Result) -> None:
    summary = json.loads((finished.path / "summary.json").read_text("utf-8"))
    assert summary == finished.summary
    keys = "name status metric best trials time tokens seed provenance"
    assert " ".join(summary) == keys
    assert (summary["name"], summary["status"], summary["metric"]) == ("one", "completed", "validation_loss")
    assert summary["best"].keys() == {"trial", "config", "metrics"}
    assert summary["trials"] == {
        **{"total": 1, "completed": 1, "stopped_early": 0, "diverged": 0, "failed": 0},
        "unfinished": 0,
        "refused": 0,
    }
    time = summary["time"]
    assert time.keys() == {"wall_s", "training_s", "slots", "useful_fraction"}
    assert 0 < time["training_s"] <= time["wall_s"]
    assert time["slots"] == 1
    assert time["useful_fraction"] == round(time["training_s"] / time["wall_s"], 4)
    assert summary["provenance"].keys() >= {"versions", "data", "git", "hardware"}
    assert summary["seed"] == 0


def test_the_summary_says_what_the_trial_reported(finished: Result) -> None:
    trial = trial_of(finished.path)
    best = min(trial.reports, key=lambda report: report.validation_loss or 0)
    assert finished.best_metrics["validation_loss"] == best.validation_loss
    assert finished.best_metrics["spent"] == best.spent
    assert finished.best_config == trial.config
    assert finished.summary["tokens"] == trial.reports[-1].tokens
    assert finished.summary["provenance"]["data"]["sha256"] == Journal(finished.path / "trials.jsonl").data_sha256
    assert trial.seed == trial_seed(0, 0), "that of a study's first trial"
    assert [report.spent for report in trial.reports] == [0.25, 0.5, 0.75, 1.0]


def test_the_model_learnt_something_and_is_what_evaluate_finds(finished: Result) -> None:
    reports = trial_of(finished.path).reports
    losses = [report.validation_loss for report in reports if report.validation_loss is not None]
    assert losses[-1] < losses[0] < 4
    assert evaluate_run(finished.path)["loss"] == finished.best_metrics["validation_loss"]


def test_the_closing_text_names_what_one_needs(finished: Result) -> None:
    for part in ("validation_loss", str(finished.path / "best"), "tensorboard", "Sample", "learning_rate"):
        assert part in finished.text


def test_the_same_seed_trains_the_same_model_and_another_seed_another(finished: Result, corpus: Path) -> None:
    storage = finished.path.parent
    again = train(experiment(corpus, storage))
    assert again.path.name == "one-2"
    assert measured(trial_of(again.path).reports) == measured(trial_of(finished.path).reports)
    other = train(experiment(corpus, storage), seed=1)
    assert measured(trial_of(other.path).reports) != measured(trial_of(finished.path).reports)


def test_a_trained_model_is_trained_again_bit_for_bit(finished: Result) -> None:
    rerun = Rerun.of(f"{finished.path}:0")
    again = train(rerun.experiment, rerun.seed)
    assert again.path == finished.path.parent / "one-trial_0000"
    assert measured(trial_of(again.path).reports) == measured(trial_of(finished.path).reports)
    best = "best/model.safetensors"
    assert (again.path / best).read_bytes() == (finished.path / best).read_bytes()


@pytest.fixture
def study(corpus: Path, tmp_path: Path) -> RunDirectory:
    """A study of two trials, in different branches, as `run` records them; the second is the better one."""
    searched = experiment(
        corpus,
        tmp_path,
        name="study",
        budget={"epochs": 1, "trials": 2},
        search={"seed": 5},
        one_of={
            "lstm": {"model": {"cell": "lstm", "hidden_size": {"int": [8, 16]}}},
            "gru": {"model": {"cell": "gru"}, "training": {"learning_rate": {"log_uniform": [1e-3, 1e-1]}}},
        },
    )
    run = create(str(tmp_path), "study")
    write_experiment(run, searched)
    journal = Journal(run.journal)
    journal.open_session(sha256(corpus), 1, 0.0)
    assignments = [{"one_of": "lstm", "model.hidden_size": 12}, {"one_of": "gru", "training.learning_rate": 1 / 300}]
    for number, assignment in enumerate(assignments):
        config = searched.trial_config(assignment).to_dict()
        journal.propose(number, trial_seed(5, number), assignment, config)
        journal.report(number, a_report(2.0 - number))
        journal.checkpoint(number, "ray/1/checkpoint")
    return run


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def a_report(loss: float) -> Report:
    return Report(1.0, 100, 10, loss, loss, loss, 1e-3, 1.0, 100.0, 1.0, improved=True, finished="budget")


@pytest.mark.parametrize(("which", "number"), [(":0", 0), (":1", 1), ("", 1)])
def test_a_trial_of_a_study_is_fixed_as_it_was(study: RunDirectory, which: str, number: int) -> None:
    rerun = Rerun.of(f"{study.path}{which}")
    trial = trial_of(study.path, number)
    assert rerun.seed == trial.seed == trial_seed(5, number)
    assert rerun.experiment.unfixed == []
    assert rerun.experiment.trial_config({}).to_dict() | {"one_of": trial.config["one_of"]} == trial.config
    assert rerun.experiment.name == f"study-trial_000{number}"


@pytest.mark.parametrize(
    ("given", "url", "number"),
    [
        ("s3://b/study", "s3://b/study", 1),
        ("s3://b/study:0", "s3://b/study", 0),
        ("s3://b/study?endpoint_override=h:9000&scheme=http", "s3://b/study?endpoint_override=h:9000&scheme=http", 1),
        ("s3://b/study?endpoint_override=h:9000", "s3://b/study?endpoint_override=h:9000", 1),
        ("s3://b/study:0?endpoint_override=h:9000", "s3://b/study?endpoint_override=h:9000", 0),
    ],
)
def test_a_trial_of_a_study_on_object_storage(
    study: RunDirectory, given: str, url: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_rnn.results.directory.open_run", {url: study}.__getitem__)
    assert Rerun.of(given).seed == trial_seed(5, number)


def test_overrides_come_after_the_values_of_the_trial(study: RunDirectory) -> None:
    rerun = Rerun.of(f"{study.path}:0", ["budget.epochs=3", "model.hidden_size=20", "name=longer"])
    config = rerun.experiment.trial_config({})
    assert (rerun.experiment.budget.epochs, config.model.hidden_size, rerun.experiment.name) == (3, 20, "longer")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (":2", r"study:2: the run has no such trial\. It has trials 0 to 1\."),
        (":x", r"study:x: the run has no such trial\. It has trials 0 to 1\."),
        ("/trial_0000", r"does not exist"),
        (":0/trial_0000", r"study:0/trial_0000: does not exist"),
    ],
)
def test_a_trial_that_is_not_there(study: RunDirectory, which: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rerun.of(f"{study.path}{which}")


def test_a_rerun_refuses_data_that_have_changed_unless_told_to_take_others(
    study: RunDirectory, corpus: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_text(corpus.read_text() + "More.")
    changed = study.experiment.read_text().replace(str(corpus), str(copy))
    study.experiment.write_text(changed)
    with pytest.raises(InputError, match="data has changed"):
        Rerun.of(str(study.path))
    assert Rerun.of(str(study.path), [f"task.corpus={corpus}"]).experiment.task.corpus == str(corpus)


def test_training_works_outside_the_main_thread(corpus: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(train, experiment(corpus, tmp_path)).result()
    assert result.summary["status"] == "completed"


@pytest.mark.parametrize("fails", ["tune_rnn.results.journal.Journal.report", "tune_rnn.checkpoint_folder.write"])
def test_a_full_disk_ends_the_training_with_that_reason(
    fails: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fails, full)
    with pytest.raises(StudyFailed, match=r"^The disk is full\. Free some space; then `tune-rnn resume"):
        train(experiment(corpus, tmp_path))
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert (summary["status"], summary["trials"]["failed"]) == ("failed", 1)


def test_a_model_larger_than_the_memory_is_refused_before_anything_is_made(corpus: Path, tmp_path: Path) -> None:
    huge = {**SECTIONS["model"], "hidden_size": 1_000_000}
    with pytest.raises(
        InputError, match=r"^model: [\d,]+ parameters take [\d,]+ GiB to train, and there are [\d,]+ GiB"
    ):
        train(experiment(corpus, tmp_path / "storage", model=huge))
    assert not (tmp_path / "storage").exists()


def test_more_streams_than_characters_are_refused(corpus: Path, tmp_path: Path) -> None:
    wide = {**SECTIONS["training"], "batch_size": 100_000}
    with pytest.raises(
        InputError, match=r"^training\.batch_size: 100000: the training text has only [\d,]+ characters"
    ):
        train(experiment(corpus, tmp_path, training=wide))


def test_what_was_hardly_meant_is_said(corpus: Path, tmp_path: Path) -> None:
    wide = {**SECTIONS["training"], "batch_size": 500}
    said = io.StringIO()
    odd = experiment(corpus, tmp_path, training=wide, regularizers={"hidden_dropout": 0.1})
    train(odd, display=Display(said))
    assert "Note: with training.batch_size 500 and training.sequence_length" in said.getvalue()
    assert (
        "Note: regularizers.hidden_dropout acts between layers, so with one layer it does nothing." in said.getvalue()
    )


def test_a_run_without_trials_has_no_best_one(corpus: Path, tmp_path: Path) -> None:
    run = create(str(tmp_path), "empty")
    write_experiment(run, experiment(corpus, tmp_path))
    with pytest.raises(InputError, match=r"the run has no best trial\. Name one: RUN:TRIAL\."):
        Rerun.of(str(run.path))


@pytest.mark.parametrize(("name", "which"), [("a:0", ""), ("a:0", ":0"), ("at 10:30", ":0"), ("x" * 200, "")])
def test_a_directory_may_have_any_name(finished: Result, tmp_path: Path, name: str, which: str) -> None:
    (tmp_path / name).symlink_to(finished.path)
    assert Rerun.of(f"{tmp_path / name}{which}").seed == trial_of(finished.path).seed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"layers": {"int": [1, 2]}, "hidden_size": {"choice": [8, 16]}}},
            r"^model\.hidden_size: still has a distribution, and so do model\.layers; .*size=VALUE model\.layers=V",
        ),
        ({"one_of": {"a": {}, "b": {}}}, r"^one_of: .*Fix them all \(one_of=NAME\)"),
        ({"resources": {"device": "cuda"}}, r"^resources\.device: 'cuda': torch .* sees no GPU\. Install"),
        ({"task": {"corpus": "nowhere.txt"}}, r"^task\.corpus: 'nowhere\.txt': neither"),
    ],
)
def test_what_train_refuses_leaves_nothing(
    changes: dict[str, Any], message: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused = experiment(corpus, tmp_path / "storage", **{"budget": {"epochs": 1, "trials": 2}, **changes})
    with pytest.raises(InputError, match=message):
        train(refused)
    assert not (tmp_path / "storage").exists()


def test_divergence_is_a_failure_without_a_number(corpus: Path, tmp_path: Path) -> None:
    wild = {**SECTIONS["training"], "optimizer": "sgd", "learning_rate": 1e6}
    with pytest.raises(StudyFailed, match=r"^The model diverged: .* loss "):
        train(experiment(corpus, tmp_path, training=wild, regularizers={}))
    run = RunDirectory(tmp_path / "one")
    summary = json.loads(run.summary.read_text())
    assert (summary["status"], summary["best"]) == ("failed", None)
    assert summary["trials"]["diverged"] == 1
    assert not run.best.exists()
    last = trial_of(run.path).reports[-1]
    assert (last.validation_loss, last.train_loss, last.finished) == (None, None, "diverged")


@pytest.mark.parametrize("by", [None, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.usefixtures("every_tick")
def test_an_interrupted_model_is_kept_and_goes_on_bit_for_bit(
    finished: Result, corpus: Path, tmp_path: Path, by: int | None
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupted = experiment(corpus, tmp_path)
    with pytest.raises(StudyInterrupted, match=rf"`tune-rnn resume {tmp_path}/one` goes on"):
        train(interrupted, display=StopAfter(2, by))
    assert signal.getsignal(signal.SIGTERM) is before
    run = RunDirectory(tmp_path / "one")
    summary = json.loads(run.summary.read_text())
    assert (summary["status"], summary["trials"]["unfinished"]) == ("interrupted", 1)
    assert evaluate_run(run.path)["loss"] == summary["best"]["metrics"]["validation_loss"]
    with locked(run):
        journal = Journal(run.journal)
        journal.open_session(journal.data_sha256, 1, 0.0)
    (record,) = journal.unfinished
    rest = [*training_of(interrupted, record, run).run()]
    assert measured([*record.reports, *rest]) == measured(trial_of(finished.path).reports)


@pytest.mark.parametrize("by", [None, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interruption_while_the_best_model_is_exported_leaves_a_summary(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int | None
) -> None:
    monkeypatch.setattr("tune_rnn.results.recorder.TICK_SHARE", 1e-9)  # the second update is the export's
    monkeypatch.setattr("tune_rnn.results.recorder.LONGEST_PAUSE_S", 1e9)
    with pytest.raises(StudyInterrupted):
        train(experiment(corpus, tmp_path), display=StopAfter(2, by))
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert (summary["status"], summary["best"]["trial"], summary["trials"]["completed"]) == ("interrupted", 0, 1)


def training_of(interrupted: Experiment, record: TrialRecord, run: RunDirectory) -> Training:
    """What `resume` does in a trial's process."""
    data = load_corpus(interrupted.task)
    shared = TrainingData(data.vocabulary.size, data.train, data.validation, interrupted.task.documents)
    training = Training(interrupted.trial_config({}), shared, TrialBudget.of(interrupted), record.seed)
    load(training, run.path / record.checkpoint)
    return training


def test_an_interruption_before_the_first_report_is_no_failure(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Training) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "train_step", stop)
    messages: list[str] = []
    monkeypatch.setattr(Display, "update", lambda _, progress: messages.append(progress.message))
    with pytest.raises(StudyInterrupted):
        train(experiment(corpus, tmp_path), display=Display(io.StringIO()))
    assert messages[-1] == "", "nothing is about to start"
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert (summary["status"], summary["best"], summary["trials"]["unfinished"]) == ("interrupted", None, 1)
    assert summary["tokens"] == 0


def test_a_run_is_found_again_from_anywhere(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus lies beside the experiment file; the run lies elsewhere, and so does who asks."""
    beside, elsewhere = tmp_path / "beside", tmp_path / "elsewhere"
    for folder in (beside, elsewhere):
        folder.mkdir()
    (beside / "text.txt").write_bytes(corpus.read_bytes())
    written = experiment(corpus, tmp_path / "results", task={"corpus": "text.txt"}, beside=beside)
    (beside / "study.yaml").write_text(written.to_yaml())
    result = train(Experiment.load(beside / "study.yaml", ["training.report_every=1"]))
    monkeypatch.chdir(elsewhere)
    assert evaluate_run(result.path)["loss"] == result.best_metrics["validation_loss"]
    again = Rerun.of(str(result.path)).experiment
    assert load_corpus(again.task, beside=again.beside).sha256 == result.summary["provenance"]["data"]["sha256"]


def test_it_is_there_for_python_too() -> None:
    assert tune_rnn.train is train
