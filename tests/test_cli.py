"""The command line: exit status, one clear message, nothing half-written. What needs Ray is tested elsewhere."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from object_storage import CREDENTIALS, ObjectStorage

from tune_rnn import checking
from tune_rnn.cli import main
from tune_rnn.results.directory import RunDirectory, locked
from tune_rnn.results.mirror import Copy, below
from tune_rnn.training import Training

STUDY = """
name: study
task: {corpus: text.txt}
model: {embedding_size: 8, hidden_size: 16}
training: {learning_rate: 0.01, batch_size: 8, precision: fp32}
budget: {epochs: 1, trials: 4}
resources: {device: cpu}
"""
SEARCHED = "training.learning_rate={log_uniform: [1e-3, 1e-1]}"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a study, its text, and texts that are none."""
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "text.txt").write_bytes(corpus.read_bytes())
    texts = {
        "empty.txt": b"",
        "binary.txt": b"\x7fELF\0\0" * 1000,
        "latin.txt": "déjà vu ".encode("latin-1") * 500,
        "one-letter.txt": b"a" * 5000,
        "short.txt": b"abc" * 300,
    }
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "no-texts").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a trained model."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "study.yaml").write_text(STUDY)
    arguments = [f"task.corpus={corpus}", f"storage={folder / 'results'}", "name=done"]
    assert main(["train", str(folder / "study.yaml"), *arguments]) == 0
    return folder / "results" / "done"


def listing(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in sorted(folder.rglob("*"))}


def refused(arguments: list[str], capsys: Capture) -> str:
    """What a command says that must end with status 2, in one line, without a trace on the disk."""
    before = listing(Path.cwd())
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert listing(Path.cwd()) == before, "nothing half-written"
    (line,) = err.splitlines()
    assert line.startswith("tune-rnn: ")
    return line.removeprefix("tune-rnn: ")


MISTAKES = [
    # the corpus
    ("task.corpus=nowhere.txt", "task.corpus: 'nowhere.txt': neither a named corpus nor an existing path."),
    ("task.corpus=tinyshakspeare", "task.corpus: 'tinyshakspeare': neither a named corpus nor an existing path. Did"),
    ("task.corpus=empty.txt", "empty.txt: "),
    ("task.corpus=binary.txt", "binary.txt: "),
    ("task.corpus=latin.txt", "latin.txt: is not UTF-8: byte 0xe9 at offset 1"),
    ("task.corpus=one-letter.txt", "one-letter.txt: "),
    ("task.corpus=short.txt", "short.txt: the text has 900 characters, at least 1000 are"),
    ("task.corpus=no-texts", "task.corpus: 'no-texts': the directory has no .txt file."),
    ("task.split=[0.9, 0.2, 0.1]", "task.split: [0.9, 0.2, 0.1]: "),
    # keys and types
    ("model.hiden_size=64", "model.hiden_size: there is no such key. Did you mean model.hidden_size?"),
    ("model.layers=two", "model.layers: 'two': must be a whole number."),
    ("model.tied=3", "model.tied: 3: must be "),
    ("training.learning_rate=-1", "training.learning_rate: -1: must be greater than 0."),
    ("model", "override: 'model': must be KEY=VALUE. Write for example budget.trials=4."),
    ("other.yaml", "override: 'other.yaml': must be KEY=VALUE."),
    # distributions
    ("model.layers={int: [3, 3]}", "model.layers: {'int': [3, 3]}: low must be less than high."),
    ("model.layers={int: [3, 1]}", "model.layers: {'int': [3, 1]}: low must be less than high."),
    ("training.learning_rate={log_uniform: [0, 1]}", "training.learning_rate: {'log_uniform': [0, 1]}: low must be "),
    ("training.learning_rate={log_uniform: [-1, 1]}", "training.learning_rate: {'log_uniform': [-1, 1]}: low must be "),
    ("training.learning_rate={loguniform: [1, 2]}", "training.learning_rate: "),
    ("regularizers.input_dropout={uniform: [0, 1]}", "regularizers.input_dropout: 1"),
    # study
    ("search.algorithm=bayes", "search.algorithm: 'bayes': must be one of hyperopt, "),
    ("scheduler.algorithm=hyper", "scheduler.algorithm: 'hyper': must be one of asha, "),
    ("name=runs/study", "name: 'runs/study': must be 1 to 100 letters"),
    ("name=..", "name: '..': must be 1 to 100 letters"),
    ("budget.trials=0", "budget.trials: 0: must be at least 1."),
    ("budget.epochs=0", "budget.epochs: 0: must be greater than 0."),
    ("budget.hours=0", "budget.hours: 0: must be greater than 0."),
    ("storage=ftp://host/runs", "storage: 'ftp://host/runs': must be a path, or begin with s3:// or gs://"),
    ("resources.per_trial.gpu=2", "resources.per_trial.gpu: 2: must be at most 1, as a trial runs on one GPU."),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[mistake for mistake, _ in MISTAKES])
def test_a_mistake_is_refused_by_every_command(folder: Path, override: str, message: str, capsys: Capture) -> None:
    said = {refused([command, "study.yaml", override], capsys) for command in ("run", "train", "check")}
    assert len(said) == 1, "the same words everywhere"
    assert said.pop().removeprefix(f"{folder}/").startswith(message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [SEARCHED, "search.algorithm=grid"],
            "training.learning_rate: {'log_uniform': [0.001, 0.1]}: a grid needs finitely many values",
        ),
        ([SEARCHED, "budget.trials=null"], "budget: trials or hours must say when the search ends."),
    ],
)
def test_a_search_without_an_end_is_refused(folder: Path, overrides: list[str], message: str, capsys: Capture) -> None:
    for command in ("run", "train", "check"):
        assert refused([command, "study.yaml", *overrides], capsys).startswith(message)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.yaml", "none.yaml: there is no such file."),
        (".", ".: this is a directory, not an experiment file."),
        ("empty.txt", "empty.txt: there is nothing in it."),
        ("latin.txt", "latin.txt: not UTF-8 text: byte 1 cannot be read."),
        ("text.txt", "text.txt"),
    ],
)
def test_what_is_no_experiment_file(folder: Path, file: str, message: str, capsys: Capture) -> None:
    for command in ("run", "train", "check"):
        assert refused([command, file], capsys).startswith(message)


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("storage", ["text.txt", "text.txt/below", "~no-such-user-here"])
def test_storage_that_cannot_be_written(folder: Path, command: str, storage: str, capsys: Capture) -> None:
    said = refused([command, "study.yaml", f"storage={storage}"], capsys)
    assert said.startswith(f"storage: '{storage}': cannot be written (")
    assert said.endswith("Give a directory that you may write to: storage=PATH.")


def test_gpus_that_are_not_there(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    automatic = ["study.yaml", "resources.device=auto"]
    said = refused(["check", *automatic, "resources.use={gpu: 2}"], capsys)
    assert said.startswith("resources.use.gpu: 2.0: the cluster has 1 GPUs. Write 1 or less")
    assert refused(["train", "study.yaml", "resources.device=cuda"], capsys).startswith(
        "resources.device: 'cuda': torch"
    )


def test_train_needs_one_model(folder: Path, capsys: Capture) -> None:
    said = refused(["train", "study.yaml", SEARCHED], capsys)
    assert said.startswith("training.learning_rate: still has a distribution; `train` trains one model.")
    assert refused(["train"], capsys) == "train: nothing to train. Give an experiment FILE, or --from RUN[:TRIAL]."


@pytest.mark.parametrize("command", [["evaluate"], ["resume"], ["train", "--from"]])
@pytest.mark.parametrize("where", [".", "nowhere", "text.txt"])
def test_what_is_no_run(folder: Path, command: list[str], where: str, capsys: Capture) -> None:
    said = refused([*command, where], capsys)
    wrong = "does not exist" if where == "nowhere" else "is not a run directory (it has no experiment.yaml)"
    assert said == (f"{where}: {wrong}. Give a directory that `tune-rnn run` made.")


def test_a_run_without_a_model_yet_says_how_to_get_one(folder: Path, capsys: Capture) -> None:
    assert main(["train", "study.yaml", "name=early"]) == 0
    capsys.readouterr()
    shutil.rmtree("results/early/best")
    said = refused(["evaluate", "results/early"], capsys)
    assert said.endswith(
        "has no best model yet. `tune-rnn resume " + str(Path("results/early").resolve()) + "` goes on until it has."
    )


@pytest.mark.parametrize("where", [".", "nowhere", "text.txt"])
def test_what_holds_no_model(folder: Path, where: str, capsys: Capture) -> None:
    assert refused(["sample", where], capsys).startswith(f"{where}: holds no exported model. Give a run directory")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.learning_rate=1"], "training.learning_rate: only budget.trials and budget.hours can change"),
        (["budget.epochs=9"], "budget.epochs: only budget.trials and budget.hours can change"),
        (["budget.trials=many"], "budget.trials: 'many': must be a whole number."),
        (["budget.trials=2"], "budget.trials: 2: was 4; a budget can only grow."),
    ],
)
def test_what_resume_refuses(trained: Path, overrides: list[str], message: str, capsys: Capture) -> None:
    assert main(["resume", str(trained), *overrides]) == 2
    assert capsys.readouterr().err.startswith(f"tune-rnn: {message}")


def test_a_live_run_is_not_resumed(trained: Path, capsys: Capture) -> None:
    with locked(RunDirectory(trained)):
        assert main(["resume", str(trained), "budget.trials=5"]) == 2
    assert f"is in use by process {os.getpid()} on this host" in capsys.readouterr().err


def test_a_run_whose_data_have_changed(folder: Path, capsys: Capture) -> None:
    assert main(["train", "study.yaml"]) == 0
    with open("text.txt", "a") as file:
        file.write("one more line\n")
    capsys.readouterr()
    assert "is not the data that this model was trained on" in refused(["evaluate", "results/study"], capsys)
    assert "the data has changed since the study began" in refused(["resume", "results/study"], capsys)
    os.remove("text.txt")
    for command in ("evaluate", "resume"):
        assert "text.txt': neither a named corpus nor an existing path" in refused([command, "results/study"], capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["runn", "study.yaml"], "invalid choice: 'runn'"),
        (["run"], "the following arguments are required: FILE"),
        (["run", "study.yaml", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["evaluate", "x", "--split", "dev"], "argument --split: invalid choice: 'dev'"),
        (["train", "study.yaml", "--seed", "-1"], "argument --seed: must be a whole number from 0 to"),
        (["train", "study.yaml", "--seed", "4294967296"], "argument --seed: must be a whole number from 0 to"),
        (["sample", "x", "--seed", "0.5"], "argument --seed: must be a whole number from 0 to 4294967295, not 0.5"),
        (["sample", "x", "--length", "long"], "argument --length: invalid int value: 'long'"),
    ],
)  # fmt: skip
def test_what_is_no_command_line(folder: Path, arguments: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length", "0"], "--length: 0: must be at least 1."),
        (["--temperature", "-0.1"], "temperature: -0.1: must be 0 or more."),
        (["--temperature", "nan"], "temperature: nan: must be 0 or more."),
    ],
)
def test_what_sample_refuses(trained: Path, options: list[str], message: str, capsys: Capture) -> None:
    assert main(["sample", str(trained), *options]) == 2
    assert capsys.readouterr().err == f"tune-rnn: {message}\n"


def test_a_model_that_diverges_is_a_failed_study(folder: Path, capsys: Capture) -> None:
    assert main(["train", "study.yaml", "training.optimizer=sgd", "training.learning_rate=1e6"]) == 1
    assert capsys.readouterr().err.startswith("tune-rnn: The model diverged: ")


def test_an_interrupted_command_says_how_to_go_on(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "train_step", stop)
    assert main(["train", "study.yaml"]) == 130
    assert (
        capsys.readouterr().err == f"tune-rnn: Interrupted. `tune-rnn resume {folder}/results/study` goes on with it.\n"
    )
    monkeypatch.setattr("tune_rnn.single.load_corpus", stop)
    assert main(["train", "study.yaml"]) == 130
    assert capsys.readouterr().err == "tune-rnn: interrupted\n"


def test_train_prints_what_it_found_and_where(folder: Path, capsys: Capture) -> None:
    assert main(["train", "study.yaml", "model.hidden_size=8", "storage=runs"]) == 0
    out = capsys.readouterr().out
    assert f"results in {folder}/runs/study\n" in out
    assert "hidden_size=8" in out
    assert "validation_loss" in out
    assert main(["train", "--from", "runs/study", "model.hidden_size=9", "--seed", "7"]) == 0
    again = RunDirectory(folder / "runs" / "study-trial_0000")
    assert json.loads(again.summary.read_text())["best"]["config"]["model"]["hidden_size"] == 9
    assert '"seed": 7' in again.journal.read_text()


def test_evaluate_prints_the_reported_loss(trained: Path, capsys: Capture) -> None:
    reported = json.loads((trained / "summary.json").read_text())["best"]["metrics"]
    assert main(["evaluate", str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"kind", "run", "split", "loss", "bits_per_character", "predictions"}
    assert found["loss"] == reported["validation_loss"]
    assert found["bits_per_character"] == reported["bits_per_character"]
    assert main(["evaluate", str(trained)]) == 0
    text = f"validation: {found['loss']:.6f} nats, {found['bits_per_character']:.4f} bits per character, over "
    assert capsys.readouterr().out.startswith(text)
    assert not (trained / "test_evaluations.jsonl").exists(), "only looks at the test split are logged"


def test_each_look_at_the_test_split_is_logged(trained: Path, capsys: Capture) -> None:
    found = []
    for _ in range(2):
        assert main(["evaluate", str(trained), "--split", "test", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    logged = [json.loads(line) for line in (trained / "test_evaluations.jsonl").read_text().splitlines()]
    assert [line | {"time": ""} for line in logged] == [look | {"time": ""} for look in found]
    assert logged[0]["split"] == "test"


def test_looks_from_several_machines_are_in_the_log_of_the_run_s_copy(
    trained: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = trained / "test_evaluations.jsonl"
    before = log.read_text().splitlines() if log.exists() else []
    for machine in ("one", "two", "one"):
        monkeypatch.setenv("TUNE_RNN_CACHE", str(tmp_path / machine))
        assert main(["evaluate", f"file://{trained}", "--split", "test"]) == 0
    capsys.readouterr()
    assert len(log.read_text().splitlines()) == len(before) + 3


def test_without_its_line_in_the_log_there_is_no_look(folder: Path, capsys: Capture) -> None:
    assert main(["train", "study.yaml"]) == 0
    (folder / "results" / "study" / "test_evaluations.jsonl").mkdir()
    capsys.readouterr()
    said = refused(["evaluate", "results/study", "--split", "test"], capsys)
    assert "test_evaluations.jsonl: cannot be written (Is a directory), and each look at the test split is" in said


def test_a_corpus_without_a_test_split(folder: Path, capsys: Capture) -> None:
    (folder / "study.yaml").write_text(
        STUDY.replace("corpus: text.txt", "files: {train: text.txt, validation: text.txt}")
    )
    assert main(["train", "study.yaml"]) == 0
    capsys.readouterr()
    said = refused(["evaluate", "results/study", "--split", "test"], capsys)
    assert said == "--split: 'test': this corpus has no test split. See task.split and task.files."


def test_sample_goes_on_from_the_prompt(trained: Path, capsys: Capture) -> None:
    options = [["--seed", "1"], ["--seed", "1"], ["--seed", "2"], ["--temperature", "0", "--prompt", ""]]
    texts = []
    for option in options:
        assert main(["sample", str(trained), "--prompt", "the cat ☃ ", "--length", "40", *option]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the cat ☃ ")
    assert [len(text) for text in texts] == [51, 51, 51, 41]


def test_the_best_directory_alone_can_be_sampled(trained: Path, capsys: Capture) -> None:
    texts = []
    for path in (trained, trained / "best"):
        assert main(["sample", str(path), "--length", "20"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_check_says_what_would_run(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.checking.TIMED_S", 0.02)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    before = listing(folder)
    overrides = [
        SEARCHED,
        "model.layers={int: [1, 2]}",
        "budget.epochs=9",
        "budget.hours=100",
        "resources.use={cpu: 2}",
        "storage=runs",
    ]
    assert main(["check", "study.yaml", *overrides]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert listing(folder) == before
    assert lines[0] == "study would run:"
    titles = [
        "corpus",
        "trials",
        "final",
        "search",
        "stopping",
        "searched",
        "searched",
        "slots",
        "parameters",
        "precision",
        "time",
        "results",
    ]
    assert [line.split()[0] for line in lines[1:]] == titles
    told = "\n".join(lines)
    for part in (
        "text.txt: train ",
        "4 trials of at most 9 epochs, at most 100 hours in all",
        "the best with 3 new seeds: 3 trainings of 9 epochs; final.top_k=0 leaves it out",
        "asha, comparing trials at 1, 3 epochs",
        "model.layers: int [1, 2]",
        "training.learning_rate: log_uniform [0.001, 0.1]",
        "2 at a time here, 1 processor each",
        "as measured on this machine now",
        f"{folder}/runs/study",
    ):
        assert part in told


def test_check_counts_the_final_stage(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.checking.TIMED_S", 0.02)
    monkeypatch.setattr("tune_rnn.checking._trial_s", lambda *_: 100.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    overrides = [SEARCHED, "budget.epochs=9", "scheduler.reduction_factor=1.5"]
    final = ["final.top_k=2", "final.seeds=3", "final.epochs=18", "final.audit=1"]
    times = []
    for keys in (["final.top_k=0"], final, [*final, "final.top_k=0"]):
        assert main(["check", "study.yaml", *overrides, *keys]) == 0
        told = capsys.readouterr().out
        (shown,) = re.findall(r"time +about (\d+):(\d+) min", told)
        times.append(60 * int(shown[0]) + int(shown[1]))
        assert ("the best 2 with 3 new seeds: 6 trainings of 18 epochs" in told) is (keys == final)
        assert ("and 1 stopped trial trained to the end (audit)" in told) is (keys == final)
        assert ("of which the final stage 11:40 min, as measured" in told) is (keys == final)
        assert ("  final       none, as final.top_k is 0\n" in told) is (keys != final)
    assert times[1] == pytest.approx(times[0] + 3 * 200 + 100, abs=1)
    assert times[2] == times[0]
    assert main(["check", "study.yaml", *overrides, *final, "budget.hours=0.05"]) == 0
    assert "(budget.hours; all 4 trials and the final stage would take about " in capsys.readouterr().out
    assert main(["check", "study.yaml", "final.seeds=5"]) == 0
    assert "the best with 5 new seeds: 5 trainings of 1 epoch; final.top_k=0 leaves it out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], "nothing is searched"),
        ([SEARCHED, "scheduler.algorithm=pbt", "scheduler.first_rung=0.5"], "configurations change while pbt trains"),
        (
            ["model.layers={int: [1, 2]}", "search.algorithm=grid", "search.seeds=3"],
            "each point of the grid has 3 seeds already",
        ),
    ],
)
def test_check_says_why_there_is_no_final_stage(
    folder: Path, overrides: list[str], reason: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_rnn.checking._trial_s", lambda *_: 100.0)
    random = ["search.algorithm=random"] if "scheduler.algorithm=pbt" in overrides else []
    assert main(["check", "study.yaml", *overrides, *random]) == 0
    assert f"  final       none, as {reason}" in capsys.readouterr().out


def test_check_of_one_model(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.checking.TIMED_S", 0.02)
    with open("text.txt", "a") as file:
        file.write("☃☃")  # at the end: in the test split alone
    assert main(["check", "study.yaml", "scheduler.algorithm=none"]) == 0
    told = capsys.readouterr().out
    for part in (
        "1 trial of at most 1 epoch\n",
        "nothing to search",
        "characters of validation and test (less than 1 %) are not in the vocabulary, and read as <unk>: '☃'",
        "stopping    none",
    ):
        assert part in told


def test_check_of_one_model_with_several_seeds(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.checking._trial_s", lambda *_: 100.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    overrides = ["search.algorithm=grid", "search.seeds=3", "budget.epochs=9", "budget.trials=null"]
    assert main(["check", "study.yaml", *overrides]) == 0
    told = capsys.readouterr().out
    assert "  trials      3 trials of at most 9 epochs\n" in told
    assert "  time        about 2:45 min, as measured" in told, "nobody is stopped"


def test_check_sees_the_runs_on_object_storage(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.checking.TIMED_S", 0.02)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with ObjectStorage() as server:
        storage = server.bucket("runs")
        Copy(below(storage, "study")).put("experiment.yaml", b"name: study")
        assert main(["check", "study.yaml", f"storage={storage}"]) == 0
    assert f"  results     {below(storage, 'study-2')}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "stopping", "time"),
    [
        (
            ["budget.trials=8", "budget.epochs=4", "scheduler.first_rung=2"],
            "median, at every report from 2 epochs on: what is above the median of the others, of which at least 5",
            "at most about ",
        ),
        (["budget.trials=5", "budget.epochs=4"], "none; median: needs 5 other trials to compare with", "about "),
        (["budget.trials=8", "budget.epochs=1"], "none; median: no report from 1 epoch on before the end", "about "),
        (["training.learning_rate=0.1"], "none", "about "),
    ],
)
def test_check_says_what_the_median_stops(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, overrides: list[str], stopping: str, time: str
) -> None:
    monkeypatch.setattr("tune_rnn.checking.TIMED_S", 0.02)
    assert main(["check", "study.yaml", SEARCHED, "scheduler.algorithm=median", *overrides]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert told["stopping"].startswith(stopping)
    assert told["time"].startswith(time)


@pytest.mark.parametrize("reader", ["cat", "true"])
def test_an_encoding_that_lacks_a_letter_and_a_reader_that_goes_away(trained: Path, reader: str) -> None:
    command = f"{sys.executable} -m tune_rnn sample {trained} --prompt ☃ --length 10"
    shell = ["bash", "-c", f"set -o pipefail; {command} | {reader}"]
    done = subprocess.run(shell, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout[:1], done.stderr) == (0, "?" if reader == "cat" else "", "")


@pytest.mark.parametrize("command", [["evaluate"], ["sample", "--length", "5"]])
def test_an_answer_that_cannot_be_written_is_an_error(trained: Path, command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "tune_rnn", *command, str(trained)]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tune-rnn: the output cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    ("trials", "factor", "expected"), [(1, 3, 1.0), (2, 3, 1.5), (16, 3, 6.8), (100, 3, 36), (16, 2, 8.5)]
)
def test_how_many_trials_early_stopping_lets_go_on(trials: int, factor: float, expected: float) -> None:
    assert checking._going_on(trials, factor) == pytest.approx(expected, rel=0.03)


def test_overrides_may_stand_after_options(folder: Path, capsys: Capture) -> None:
    assert main(["train", "study.yaml", "model.layers=0", "--seed", "3", "model.cell=x"]) == 2
    assert "model.cell: 'x': must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "address: 'nonsense': must be auto or HOST:PORT."),
        ("ray://10.0.0.1:10001", "address: 'ray://10.0.0.1:10001': must be auto or HOST:PORT."),
        ("127.0.0.1:99999", "address: '127.0.0.1:99999': must be auto or HOST:PORT."),
        ("127.0.0.1:9", "address: '127.0.0.1:9': no Ray cluster answers there. Start it with `ray start --head`"),
        ("auto", "address: 'auto': no Ray cluster answers there."),
    ],
)
def test_an_address_without_a_ray_is_refused_at_once(
    folder: Path, address: str, message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", functools.cache(set))
    began = time.monotonic()
    assert main(["run", "study.yaml", "--address", address]) == 2
    assert time.monotonic() - began < 10
    assert message in capsys.readouterr().err
    assert not Path("results").exists()


def test_neither_torch_nor_ray_is_loaded_before_a_study_starts() -> None:
    """`tune-rnn run` imports torch in a thread while Ray starts."""
    script = "import sys, tune_rnn.experiment, tune_rnn.study; print([m for m in ('ray', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
