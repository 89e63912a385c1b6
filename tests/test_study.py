"""Studies on a real Ray: two processors, two logical GPUs, trials of a fraction of a second."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.tune.execution import class_cache

import tune_rnn
from tune_rnn.cli import main
from tune_rnn.data import load_corpus
from tune_rnn.display import Display, Progress, duration
from tune_rnn.errors import InputError, StudyFailed, StudyInterrupted, TrialFailed
from tune_rnn.experiment import Experiment
from tune_rnn.report import TrialBudget
from tune_rnn.results.directory import RunDirectory, locked
from tune_rnn.results.evaluate import evaluate_run
from tune_rnn.results.journal import Journal
from tune_rnn.results.summary import Result
from tune_rnn.schema import Resources
from tune_rnn.search import trial_seed
from tune_rnn.single import Rerun
from tune_rnn.study.ahead import load_libraries
from tune_rnn.study.cluster import ray_session
from tune_rnn.study.trainable import TrialTrainable, shared_arrays
from tune_rnn.study.worker import trial_device

CPU = {"device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def _two_slots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.init", _with_logical_resources(ray.init))
        with ray_session(None, Resources(), load_libraries):
            yield


def _with_logical_resources(init: Any) -> Any:
    return lambda **arguments: init(**arguments, num_cpus=2, num_gpus=2)


def experiment(corpus: Path, storage: Path, **changes: Any) -> Experiment:
    """A study of small LSTMs; `changes` replace whole sections."""
    sections: dict[str, Any] = {
        "name": "study",
        "task": {"corpus": str(corpus)},
        "model": {"embedding_size": 8, "hidden_size": {"choice": [8, 16]}},
        "regularizers": {"input_dropout": {"uniform": [0, 0.3]}, "clip_norm": 1.0},
        "training": {
            "learning_rate": {"log_uniform": [1e-3, 1e-1]},
            "batch_size": 8,
            "sequence_length": 32,
            "precision": "fp32",
        },
        "budget": {"epochs": 3, "trials": 4},
        "search": {"algorithm": "random", "seed": 1},
        "final": {"top_k": 0},
        "resources": CPU,
        "storage": str(storage),
    }
    return Experiment(**sections | changes)


def outcomes(result: Result) -> list[tuple[dict[str, Any], list[float | None]]]:
    """What a study tried and found, trial by trial."""
    trials = Journal(RunDirectory(result.path).journal).trials
    return [(t.config, [report.validation_loss for report in t.reports]) for _, t in sorted(trials.items())]


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One finished study that several tests look at."""
    return tune_rnn.run(experiment(corpus, tmp_path_factory.mktemp("storage")))


def test_the_summary_keeps_its_contract(finished: Result) -> None:
    summary = json.loads((finished.path / "summary.json").read_text())
    assert summary == finished.summary
    assert summary["status"] == "completed"
    counts = summary["trials"]
    assert counts["total"] == 4 == counts["completed"] + counts["stopped_early"]
    assert counts["completed"] >= 1
    time = summary["time"]
    assert time["slots"] == 2
    assert time["useful_fraction"] == round(time["training_s"] / (2 * time["wall_s"]), 4)
    assert summary["tokens"] > 0
    assert summary["seed"] == 1
    assert set(summary["provenance"]) >= {"versions", "data", "git", "hardware"}


def test_the_best_model_gives_the_reported_loss_in_a_process_without_ray(finished: Result) -> None:
    script = (
        "import json, sys; from tune_rnn.results.evaluate import evaluate_run; "
        "loss = evaluate_run(sys.argv[1])['loss']; "
        "print(json.dumps([loss, 'ray' in sys.modules]))"
    )
    command = [sys.executable, "-c", script, str(finished.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loss, ray_imported = json.loads(done.stdout)
    assert not ray_imported
    assert loss == finished.best_metrics["validation_loss"]


def test_each_trial_has_curves_and_only_one_writer_made_them(finished: Result) -> None:
    for number in range(4):
        files = list((finished.path / f"trial_{number:04d}").glob("events.out.tfevents.*"))
        assert files, f"trial {number} has no event file"
    assert not list((finished.path / "ray").rglob("events.out*"))


def test_the_experiment_as_run_can_be_loaded_again(finished: Result) -> None:
    again = Experiment.load(finished.path / "experiment.yaml")
    assert again.space.shared.keys() == {"model.hidden_size", "regularizers.input_dropout", "training.learning_rate"}
    assert Path(again.task.corpus).is_absolute()  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_slots_try_the_same_configurations_as_one(finished: Result, corpus: Path, tmp_path: Path) -> None:
    alone = experiment(corpus, tmp_path, resources={**CPU, "use": {"cpu": 1}}, scheduler={"algorithm": "none"})
    result = tune_rnn.run(alone)
    assert result.summary["time"]["slots"] == 1
    assert [config for config, _ in outcomes(result)] == [config for config, _ in outcomes(finished)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_one_slot_and_one_seed_give_the_same_study_twice(corpus: Path, tmp_path: Path) -> None:
    study = experiment(
        corpus,
        tmp_path,
        search={"algorithm": "hyperopt", "seed": 7},
        budget={"epochs": 2, "trials": 8},
        resources={**CPU, "use": {"cpu": 1}},
    )
    first, second = tune_rnn.run(study), tune_rnn.run(study)
    assert first.path.name == "study"
    assert second.path.name == "study-2"
    assert outcomes(first) == outcomes(second)


def test_branches_are_searched_and_a_diverged_trial_is_no_result(corpus: Path, tmp_path: Path) -> None:
    study = experiment(
        corpus,
        tmp_path,
        search={"algorithm": "grid"},
        budget={"epochs": 2},
        model={"embedding_size": 8, "hidden_size": 8},
        regularizers={},
        training={"batch_size": 8, "sequence_length": 32, "precision": "fp32"},
        one_of={
            "sound": {"training": {"optimizer": "adam", "learning_rate": {"grid": [0.01, 0.02]}}},
            "wild": {"training": {"optimizer": "sgd", "learning_rate": 1e6}},
        },
    )
    result = tune_rnn.run(study)
    assert result.summary["trials"]["diverged"] == 1
    assert result.best_config["one_of"] == "sound"
    trials = Journal(RunDirectory(result.path).journal).trials.values()
    (wild,) = (trial for trial in trials if trial.outcome == "diverged")
    assert wild.config["training"]["optimizer"] == "sgd"
    assert wild.reports[-1].validation_loss is None


def test_a_failing_trial_leaves_its_traceback_and_the_study_goes_on(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = experiment(
        corpus,
        tmp_path,
        search={"algorithm": "grid"},
        budget={"epochs": 1},
        model={"embedding_size": 8, "hidden_size": {"grid": [8, 1_000_000]}},
        regularizers={},
        training={"batch_size": 8, "sequence_length": 32},
    )
    result = tune_rnn.run(study)
    assert result.summary["trials"]["failed"] == 1
    error = result.path / "trial_0001" / "error.txt"
    assert "tune_rnn/memory.py" in error.read_text()
    shown = capsys.readouterr().out
    assert str(error) in shown
    assert "trial_0001 failed: model: 4,0" in shown
    assert "parameters take" in shown


class Killer(Display):
    """Kills processes of trials that train, so many and until one has failed, as happens when memory runs out."""

    def __init__(self, processes: int) -> None:
        super().__init__()
        self.left = processes

    def update(self, progress: Progress) -> None:
        super().update(progress)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if self.left and not progress.failed and "".join(child.cmdline()[:1]).endswith("Trainable.train"):
                    child.kill()
                    self.left -= 1
                    return


@pytest.mark.slow
@pytest.mark.usefixtures("every_tick")
def test_a_killed_process_leaves_its_trial_where_it_was_saved(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = experiment(corpus, tmp_path, budget={"epochs": 12, "trials": 3}, scheduler={"algorithm": "none"})
    result = tune_rnn.run(study, display=Killer(1))
    assert (result.summary["trials"]["completed"], result.summary["trials"]["failed"]) == (3, 0)
    out, err = capfd.readouterr()
    assert re.search(r"trial_000\d (goes on|will go on) from .*: its process was killed", out)
    assert "raylet" not in out + err


@pytest.mark.slow
@pytest.mark.usefixtures("every_tick")
def test_a_process_killed_again_is_a_failed_trial_and_the_study_goes_on(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one_at_a_time = CPU | {"use": {"cpu": 1}}
    study = experiment(corpus, tmp_path, budget={"epochs": 12, "trials": 3}, resources=one_at_a_time)
    result = tune_rnn.run(study, display=Killer(10))
    assert result.summary["trials"]["failed"] == 1
    out, err = capfd.readouterr()
    assert " failed: its process was killed, perhaps because the machine had too little memory (traceback: " in out
    assert "raylet" not in out + err
    again = tune_rnn.resume(result.path)
    assert again.summary["trials"]["failed"] == 0


def test_a_reused_process_lets_go_of_the_last_model(corpus: Path, tmp_path: Path) -> None:
    study = experiment(corpus, tmp_path)
    data = load_corpus(study.task)
    arrays = {"train": shared_arrays(data.train), "validation": shared_arrays(data.validation)}
    shared = {"vocabulary_size": data.vocabulary.size, "documents": "separate", "budget": TrialBudget.of(study)}
    trial = study.trial_config(study.space.sample(np.random.default_rng(0))).to_dict()
    config = {"number": 0, "seed": 0, "trial": json.dumps(trial), "resume_from": None, "folder": str(tmp_path)}
    trainable = object.__new__(TrialTrainable)
    where = {"run": RunDirectory(tmp_path), "holder": ""}
    trainable.setup(config, **arrays, **shared, **where, final_budget=TrialBudget.of(study), threads=1, device="cpu")
    trainable.step()
    assert trainable.worker is not None
    assert trainable.worker.training is not None
    last = weakref.ref(trainable.worker.training)
    trainable.reset_config(config)
    assert last() is None


def test_a_private_ray_has_processes_at_hand_that_have_loaded_what_trains() -> None:
    class Slot:
        def loaded(self) -> tuple[bool, dict[str, Any]]:
            return "tune_rnn.study.worker" in sys.modules, dict(ray.get_runtime_context().runtime_env)

    slot = class_cache._ActorClassCache().get(Slot).remote()
    assert ray.get(slot.loaded.remote()) == (True, {})


@pytest.mark.slow
def test_a_study_whose_trials_all_fail_ends_and_says_why(corpus: Path, tmp_path: Path) -> None:
    hopeless = experiment(corpus, tmp_path, budget={"epochs": 1, "hours": 0.1}, resources={"device": "cuda"})
    with pytest.raises(StudyFailed, match=r"1\d failed, the first with: this trial was given GPU"):
        tune_rnn.run(hopeless)


def test_an_address_is_refused_where_the_process_has_a_ray(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^address: 'auto': this process already uses a Ray"):
        tune_rnn.run(experiment(corpus, tmp_path), address="auto")


def test_a_study_of_one_trial_has_one_slot(corpus: Path, tmp_path: Path) -> None:
    result = tune_rnn.run(experiment(corpus, tmp_path, budget={"epochs": 1, "trials": 1}))
    assert result.summary["time"]["slots"] == 1
    wall_s = result.summary["time"]["wall_s"]  # taken a moment before the text is written
    assert any(f"in {duration(seconds)}" in result.text.splitlines()[0] for seconds in (wall_s, wall_s + 1))


@pytest.mark.slow
def test_an_ablation_trains_every_branch_with_the_same_seeds(
    finished: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ablate", str(finished.path), "--seeds", "2", "budget.epochs=1", f"storage={finished.path.parent}/two"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "input_dropout " in table
    assert "clip_norm " in table
    run = RunDirectory(finished.path.parent / "two" / "study-ablation")
    trials = Journal(run.journal).trials.values()
    seeds = {branch: [t.seed for t in trials if t.config["one_of"] == branch] for branch in ("all_on", "all_off")}
    assert seeds["all_on"] == seeds["all_off"] == [trial_seed(1, 0), trial_seed(1, 1)]
    assert (run.path / "ablation.json").exists()
    assert main(["ablate", str(run.path)]) == 0
    assert table.splitlines()[-8:] == capsys.readouterr().out.splitlines()[-8:]
    assert main(["ablate", str(run.path), "--seeds", "4"]) == 2
    assert "keeps its seeds, learning rates and all other keys" in capsys.readouterr().err
    assert main(["resume", str(run.path)]) == 0
    assert table.splitlines()[-8:] == capsys.readouterr().out.splitlines()[-8:]


@pytest.mark.slow
def test_a_larger_budget_goes_on_and_leaves_finished_trials_alone(corpus: Path, tmp_path: Path) -> None:
    first = tune_rnn.run(experiment(corpus, tmp_path, search={"algorithm": "hyperopt"}))
    before = outcomes(first)
    result = tune_rnn.resume(first.path, ["budget.trials=6"])
    after = outcomes(result)
    assert len(after) == 6
    assert after[:4] == before
    assert Experiment.load(result.path / "experiment.yaml").budget.trials == 6


class Interrupter(Display):
    """Presses Ctrl-C when three trials have ended."""

    def update(self, progress: Progress) -> None:
        super().update(progress)
        if progress.ended == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("every_tick")
def test_an_interrupted_study_goes_on_with_its_start_its_constraints_and_what_it_learnt_from(
    finished: Result, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the uninterrupted one, loss by loss; every second model is above the cap."""
    started = [{"training": {"learning_rate": 0.02}, "model": {"hidden_size": 8}}, {"model": {"hidden_size": 16}}]
    study = experiment(
        corpus,
        tmp_path,
        search={"algorithm": "hyperopt", "seed": 7, "start": started, "warm_start": [str(finished.path)]},
        constraints={"parameters": 1500},
        budget={"epochs": 2, "trials": 7},
        resources={**CPU, "use": {"cpu": 1}},
    )
    straight = tune_rnn.run(study)
    said = capsys.readouterr().out
    assert f"search.warm_start: 4 of 4 trials of {finished.path} used\n" in said
    assert "search.start[1] is refused: its model has 2," in said
    with pytest.raises(StudyInterrupted):
        tune_rnn.run(study, display=Interrupter())
    interrupted = Journal(RunDirectory(tmp_path / "study-2").journal)
    assert 3 <= len(interrupted.trials) <= 4
    result = tune_rnn.resume(tmp_path / "study-2")
    assert outcomes(result) == outcomes(straight)
    refused = [Journal(RunDirectory(run.path).journal).refused for run in (straight, result)]
    assert refused[0] == refused[1] != []
    assert {config["model"]["hidden_size"] for config, _ in outcomes(result)} == {8}
    assert outcomes(result)[0][0]["training"]["learning_rate"] == 0.02
    assert result.summary["trials"]["refused"] == len(refused[0])
    assert result.summary["warm_start"][0]["used"] == 4
    assert re.search(rf"{len(refused[0])} proposals? (was|were) not trained, as models may have no more", result.text)


class FirstBest(Display):
    """Presses Ctrl-C when a trial has a loss and a checkpoint before the last one."""

    def update(self, progress: Progress) -> None:
        super().update(progress)
        if progress.best_loss is not None and progress.fraction > 0.1:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.usefixtures("every_tick")
def test_a_study_whose_best_trial_has_lost_its_checkpoint_goes_on_from_the_one_before(
    corpus: Path, tmp_path: Path
) -> None:
    study = experiment(corpus, tmp_path, budget={"epochs": 40, "trials": 1})
    with pytest.raises(StudyInterrupted):
        tune_rnn.run(study, display=FirstBest())
    run = RunDirectory(tmp_path / "study")
    (trial,) = Journal(run.journal).trials.values()
    assert trial.outcome == ""
    shutil.rmtree(run.path / trial.checkpoint)
    result = tune_rnn.resume(run.path)
    assert result.summary["trials"]["completed"] == 1
    events = [json.loads(line) for line in run.journal.read_text().splitlines()]
    (returned,) = [event["spent"] for event in events if event["event"] == "returned"]
    assert returned > 0


def population(corpus: Path, storage: Path, **changes: Any) -> Experiment:
    """Six trials, some of them in a branch that diverges at once."""
    branches = {
        "sound": {"training": {"learning_rate": {"log_uniform": [1e-3, 1e-1]}}},
        "wild": {"training": {"optimizer": "sgd", "learning_rate": {"log_uniform": [1e6, 1e7]}}},
    }
    sections: dict[str, Any] = {
        "training": {"batch_size": 8, "sequence_length": 32, "precision": "fp32", "report_every": 0.1},
        "one_of": branches,
        "budget": {"epochs": 1.5, "trials": 6},
        "scheduler": {"algorithm": "pbt", "first_rung": 0.5},
    }
    return experiment(corpus, storage, **sections | changes)


@pytest.mark.timeout(120)
def test_a_population_replaces_what_diverges_and_what_is_worst(corpus: Path, tmp_path: Path) -> None:
    result = tune_rnn.run(population(corpus, tmp_path))
    run = RunDirectory(result.path)
    trials = Journal(run.journal).trials
    wild = [one for one in trials.values() if one.reports[0].finished or "wild" in (one.assignment["one_of"], "")]
    assert wild == [], "nobody's weights come from there"
    assert result.summary["trials"]["completed"] == len(trials) == 6
    assert any(one.left and one.left[0].finished == "diverged" for one in trials.values())
    assert [one.seed for one in trials.values()] == [trial_seed(1, number) for number in range(6)]
    assert result.best_metrics["validation_loss"] == evaluate_run(result.path)["loss"]
    best = trials[result.summary["best"]["trial"]]
    assert result.best_config == best.best_stretch.config
    taken = next(one for one in trials.values() if one.taken_over)
    with pytest.raises(
        InputError, match=f"trial {taken.number} went on from another's weights: 2 configurations|3 con"
    ):
        Rerun.of(f"{result.path}:{taken.number}")
    folders = {str(file.parent.relative_to(run.path)) for file in run.ray.rglob("checkpoint.pt")}
    assert folders == {one.checkpoint for one in trials.values()}
    for override, message in (
        ("budget.trials=8", "is the size of a population"),
        ("final.top_k=1", "change while they"),
    ):
        with pytest.raises(InputError, match=message):
            tune_rnn.resume(result.path, [override])


class SoonInterrupter(Display):
    """Presses Ctrl-C once some weights have been taken over."""

    def update(self, progress: Progress) -> None:
        super().update(progress)
        if "taken over 2" in progress.message:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("every_tick")
def test_an_interrupted_population_goes_on_loss_by_loss(corpus: Path, tmp_path: Path) -> None:
    study = population(corpus, tmp_path, resources={**CPU, "use": {"cpu": 1}})
    straight = tune_rnn.run(study)
    with pytest.raises(StudyInterrupted):
        tune_rnn.run(study, display=SoonInterrupter())
    result = tune_rnn.resume(tmp_path / "study-2")
    assert outcomes(result) == outcomes(straight)
    assert result.summary["best"] == straight.summary["best"]


def test_a_cap_below_every_model_fails_the_study(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyFailed, match=r"^constraints\.parameters: 100: each of 1,000 configurations in a row has"):
        tune_rnn.run(experiment(corpus, tmp_path, constraints={"parameters": 100}))
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert (summary["status"], summary["trials"]["total"], summary["trials"]["refused"]) == ("failed", 0, 1000)


def test_resume_refuses_everything_but_a_larger_budget(finished: Result) -> None:
    with pytest.raises(InputError, match=r"training\.learning_rate.*only budget\.trials and budget\.hours"):
        tune_rnn.resume(finished.path, ["training.learning_rate=0.1"])
    with pytest.raises(InputError, match="can only grow"):
        tune_rnn.resume(finished.path, ["budget.trials=2"])
    with locked(RunDirectory(finished.path)), pytest.raises(InputError, match="in use by process"):
        tune_rnn.resume(finished.path)


def test_a_copy_without_checkpoints_is_not_gone_on_with(finished: Result, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.path, tmp_path / "copy", ignore=shutil.ignore_patterns("ray"))
    before = sorted(copy.rglob("*"))
    with pytest.raises(InputError, match=r"copy: has no checkpoints to go on from\. Go on where it was run"):
        tune_rnn.resume(copy, ["budget.trials=9"])
    assert sorted(copy.rglob("*")) == before


def test_resume_refuses_changed_data(corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "text.txt"
    copy.write_text(corpus.read_text())
    result = tune_rnn.run(experiment(copy, tmp_path / "runs", budget={"epochs": 1, "trials": 1}))
    copy.write_text(corpus.read_text() + "More.")
    with pytest.raises(InputError, match="data has changed"):
        tune_rnn.resume(result.path)
    with pytest.raises(InputError, match="not the data"):
        evaluate_run(result.path)


def test_a_gpu_that_torch_cannot_see_fails_the_trial_with_a_remedy(corpus: Path, tmp_path: Path) -> None:
    study = experiment(corpus, tmp_path, resources={"device": "auto"}, budget={"epochs": 1, "trials": 1})
    with pytest.raises(StudyFailed, match=r"was given GPU .* torch .* resources\.device: cpu"):
        tune_rnn.run(study)


@pytest.mark.parametrize("share", [1, 0.5])
def test_each_trial_has_its_own_gpu(share: float) -> None:
    @ray.remote(num_cpus=1, num_gpus=share)
    class Slot:
        def device(self) -> tuple[str, list[Any], str]:
            import os

            import torch

            torch.cuda.is_available = lambda: True
            return trial_device("auto"), ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]

        def without(self) -> str:
            return trial_device("cpu")

    slots = [Slot.remote() for _ in range(2)]  # type: ignore[attr-defined]
    devices = ray.get([slot.device.remote() for slot in slots])
    for device, ids, visible in devices:
        assert device == "cuda:0"
        assert [str(number) for number in ids] == visible.split(",")
        assert len(ids) == 1
    if share == 1:
        assert devices[0][1] != devices[1][1]
    assert ray.get(slots[0].without.remote()) == "cpu"


def test_more_gpus_than_there_are_is_refused_before_anything_starts(corpus: Path, tmp_path: Path) -> None:
    too_many = experiment(corpus, tmp_path, resources={"use": {"gpu": 3}})
    with pytest.raises(InputError, match=r"resources\.use\.gpu: 3.*the cluster has 2 GPUs"):
        tune_rnn.run(too_many)
    assert not list(tmp_path.iterdir())


def test_a_trial_without_a_gpu_of_torch_says_so() -> None:
    @ray.remote(num_cpus=1, num_gpus=1)
    def device() -> str:
        return trial_device("auto")

    with pytest.raises(TrialFailed, match=r"torch .* sees none"):
        ray.get(device.remote())
