"""The final stage on a real Ray: the whole path, an interruption in it, and what one does with its trials then."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tune_rnn
from tune_rnn.display import Display, Progress
from tune_rnn.errors import InputError, StudyInterrupted
from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import final_seed
from tune_rnn.results.directory import RunDirectory
from tune_rnn.results.evaluate import evaluate_run
from tune_rnn.results.journal import AUDIT, FINAL, SEARCH, Journal, TrialRecord
from tune_rnn.results.summary import Result
from tune_rnn.schema import Resources
from tune_rnn.single import Rerun, train
from tune_rnn.study.ahead import load_libraries
from tune_rnn.study.cluster import ray_session

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def _two_slots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        import ray

        init = ray.init
        patch.setattr("ray.init", lambda **arguments: init(**arguments, num_cpus=2, num_gpus=0))
        with ray_session(None, Resources(), load_libraries):
            yield


def experiment(corpus: Path, storage: Path, **changes: Any) -> Experiment:
    """Six small LSTMs, of which the best two are trained again and one that was stopped goes on to its end."""
    sections: dict[str, Any] = {
        "name": "study",
        "task": {"corpus": str(corpus)},
        "model": {"embedding_size": 8, "hidden_size": {"choice": [8, 16]}},
        "training": {
            "learning_rate": {"log_uniform": [1e-3, 1e-1]},
            "batch_size": 8,
            "sequence_length": 32,
            "precision": "fp32",
        },
        "budget": {"epochs": 3, "trials": 6},
        "search": {"algorithm": "random", "seed": 1},
        "final": {"top_k": 2, "seeds": 2, "epochs": 4, "audit": 1},
        "resources": {"device": "cpu"},
        "storage": str(storage),
    }
    return Experiment(**sections | changes)


def journal_of(result: Result) -> Journal:
    return Journal(RunDirectory(result.path).journal)


def losses(trial: TrialRecord) -> list[float | None]:
    return [report.validation_loss for report in trial.reports]


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tune_rnn.run(experiment(corpus, tmp_path_factory.mktemp("storage")))


def test_the_best_two_are_trained_again_with_the_same_new_seeds_for_longer(finished: Result) -> None:
    journal, summary = journal_of(finished), finished.summary
    search, again = journal.in_stage(SEARCH), journal.in_stage(FINAL)
    assert (len(search), len(again), len(journal.in_stage(AUDIT))) == (6, 4, 1)
    best_two = sorted(search, key=lambda trial: trial.best_loss or 9)[:2]
    assert [trial.of for trial in again] == 2 * [trial.number for trial in best_two]
    assert [trial.seed for trial in again] == [final_seed(1, index) for index in (0, 0, 1, 1)]
    assert all(trial.outcome == "completed" and trial.spent == 4 for trial in again), "nobody stops them"
    assert all(trial.config == journal.trials[trial.of or 0].config for trial in again)
    assert summary == json.loads((finished.path / "summary.json").read_text())
    assert (summary["trials"]["total"], summary["final"]["trainings"]["completed"]) == (6, 4)
    assert finished.text.startswith("study: 6 of 6 trials done, ")
    assert ", 5 of 5 final trainings, in " in finished.text.splitlines()[0]
    assert summary["final"]["seeds"] == 2
    assert summary["final"]["winner"] == summary["final"]["candidates"][0]["trial"]


def test_the_best_model_is_the_best_seed_of_the_winner(finished: Result) -> None:
    final, best = finished.summary["final"], finished.summary["best"]
    first = final["candidates"][0]
    assert best["metrics"]["validation_loss"] == min(first["losses"])
    assert best["trial"] == first["trials"][first["losses"].index(min(first["losses"]))]
    assert evaluate_run(finished.path)["loss"] == best["metrics"]["validation_loss"]
    assert f"Best configuration (trial {best['trial']}: that of trial " in finished.text
    assert "Final stage" in finished.text
    assert list((finished.path / f"trial_{best['trial']:04d}").glob("events.out.tfevents.*"))


def test_an_audited_trial_ends_as_it_would_have(finished: Result) -> None:
    journal = journal_of(finished)
    (audited,) = journal.in_stage(AUDIT)
    stopped = journal.trials[audited.of or 0]
    assert stopped.outcome == "stopped_early"
    assert (audited.outcome, audited.spent, audited.inherited) == ("completed", 3, len(stopped.reports))
    assert losses(audited)[: audited.inherited] == losses(stopped)
    rerun = Rerun.of(f"{finished.path}:{stopped.number}")
    straight = train(rerun.experiment, rerun.seed)
    assert losses(journal_of(straight).trials[0]) == losses(audited)
    assert finished.summary["final"]["audit"]["finished"] == 1


def test_a_final_trial_is_trained_again_bit_for_bit(finished: Result) -> None:
    best = finished.summary["best"]["trial"]
    rerun = Rerun.of(f"{finished.path}:{best}")
    assert (rerun.experiment.budget.epochs, rerun.experiment.final) == (4, None)
    again = train(rerun.experiment, rerun.seed)
    assert losses(journal_of(again).trials[0]) == losses(journal_of(finished).trials[best])
    assert "final" not in again.summary


class InterruptInFinal(Display):
    """Presses Ctrl-C when some trainings of the final stage have ended."""

    pressed = False

    def update(self, progress: Progress) -> None:
        super().update(progress)
        if progress.final_ended == 2 and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.usefixtures("every_tick")
def test_an_interrupted_final_stage_goes_on_and_repeats_nothing(finished: Result, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyInterrupted):
        tune_rnn.run(experiment(corpus, tmp_path), display=InterruptInFinal())
    path = tmp_path / "study"
    before = Journal(RunDirectory(path).journal)
    done = {n: losses(trial) for n, trial in before.trials.items() if trial.outcome}
    assert 8 <= len(done) < 11
    assert json.loads((path / "summary.json").read_text())["status"] == "interrupted"
    result = tune_rnn.resume(path)
    after = journal_of(result)
    assert result.summary["status"] == "completed"
    assert len(after.trials) == 11
    assert {n: losses(after.trials[n]) for n in done} == done
    lines = [json.loads(line) for line in RunDirectory(path).journal.read_text().splitlines()]
    ended = [line["trial"] for line in lines if line["event"] == "ended"]
    assert len(ended) == len(set(ended)) == 11
    # Which trials were stopped early depends on which of two slots reported first, so one candidate may be another.
    means, straight = (
        {one["trial"]: one["mean"] for one in of.summary["final"]["candidates"]} for of in (result, finished)
    )
    assert means.keys() & straight.keys()
    assert all(means[trial] == straight[trial] for trial in means.keys() & straight.keys()), "as without it"


@pytest.mark.slow
def test_a_final_stage_can_be_added_to_a_finished_study_and_grow(corpus: Path, tmp_path: Path) -> None:
    plain = {"final": {"top_k": 0}, "budget": {"epochs": 2, "trials": 3}}
    first = tune_rnn.run(experiment(corpus, tmp_path, **plain))
    assert "final" not in first.summary
    assert f"tune-rnn resume {first.path} final.top_k=1` trains the best again (3 trainings, about" in first.text
    second = tune_rnn.resume(first.path, ["final.top_k=2", "final.seeds=1"])
    assert second.summary["final"]["seeds"] == 1
    assert second.summary["final"]["told_apart"] is False
    third = tune_rnn.resume(first.path, ["final.seeds=2"])
    trials = journal_of(third).trials
    assert [trial.stage for trial in trials.values()] == [SEARCH] * 3 + [FINAL] * 4
    fourth = tune_rnn.resume(first.path, ["budget.trials=4", "final.top_k=1"])
    trials = journal_of(fourth).trials
    assert trials[7].stage == SEARCH
    same = tune_rnn.run(experiment(corpus, tmp_path, **plain | {"budget": {"epochs": 2, "trials": 4}}))
    assert (journal_of(same).trials[3].config, journal_of(same).trials[3].seed) == (trials[7].config, trials[7].seed)
    with pytest.raises(InputError, match=r"^final\.epochs: 9\.0: was 2, and the final stage has begun"):
        tune_rnn.resume(first.path, ["final.epochs=9"])
