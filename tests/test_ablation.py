"""What an ablation trains, and what it makes of the losses; no Ray here (see test_study)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from tune_rnn import ablation
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.report import Report
from tune_rnn.results.directory import RunDirectory, create, write_experiment
from tune_rnn.results.journal import Journal
from tune_rnn.search import Proposal

STRENGTHS = {"input_dropout": 0.2, "hidden_dropout": 0.3, "l2": 1e-5, "clip_norm": 0.0}


def a_report(loss: float) -> Report:
    return Report(1.0, 100, 10, loss, loss, loss, 1e-3, 1.0, 100.0, 1.0, improved=True, finished="budget")


def finished_run(tmp_path: Path, corpus: Path, **regularizers: Any) -> RunDirectory:
    """A run of one trial, as `run` records it."""
    experiment = Experiment(
        name="study",
        task={"corpus": str(corpus)},
        regularizers={**STRENGTHS, **regularizers},
        training={"learning_rate": {"log_uniform": [1e-3, 1e-1]}},
        budget={"epochs": 3, "trials": 5},
        search={"seed": 4},
        resources={"device": "cpu"},
        storage=str(tmp_path),
    )
    run = create(str(tmp_path), "study")
    write_experiment(run, experiment)
    journal = Journal(run.journal)
    journal.open_session("abc", 1, 0.0)
    assignment = {"training.learning_rate": 0.01}
    journal.propose(0, 1, Proposal(assignment, {}), experiment.trial_config(assignment).to_dict())
    journal.report(0, a_report(2.0))
    journal.checkpoint(0, "somewhere")
    journal.end(0, "completed", "")
    return run


def test_each_regulariser_is_left_out_once_and_all_of_them(tmp_path: Path, corpus: Path) -> None:
    planned = ablation.plan(finished_run(tmp_path, corpus).path, seeds=3)
    branches = ["all_on", "without_input_dropout", "without_l2", "all_off"]
    assert list(planned.space.branches) == branches, "neither what is off nor hidden dropout in one layer"
    configs = {name: planned.trial_config({"one_of": name}).regularizers for name in branches}
    assert (configs["all_on"].input_dropout, configs["all_on"].l2) == (0.2, 1e-5)
    assert (configs["without_l2"].input_dropout, configs["without_l2"].l2) == (0.2, 0)
    assert (configs["all_off"].input_dropout, configs["all_off"].l2) == (0, 0)
    assert {planned.trial_config({"one_of": name}).training.learning_rate for name in branches} == {0.01}
    assert (planned.name, planned.budget.epochs, planned.budget.trials) == ("study-ablation", 3, None)
    assert (planned.search.algorithm, planned.search.seed, planned.search.seeds) == ("grid", 4, 3)
    assert planned.scheduler.algorithm == "none"
    assert planned.resources.device == "cpu"


def test_learning_rates_around_the_best_one(tmp_path: Path, corpus: Path) -> None:
    planned = ablation.plan(finished_run(tmp_path, corpus).path, 2, retune=3, overrides=["budget.epochs=1"])
    for keys in planned.space.branches.values():
        assert keys["training.learning_rate"].values() == pytest.approx([0.0025, 0.01, 0.04])
    assert planned.budget.epochs == 1


def test_one_regulariser_alone_is_not_left_out_twice(tmp_path: Path, corpus: Path) -> None:
    run = finished_run(tmp_path, corpus, input_dropout=0, hidden_dropout=0)
    assert list(ablation.plan(run.path, 2).space.branches) == ["all_on", "without_l2"]


def test_without_a_regulariser_there_is_nothing_to_leave_out(tmp_path: Path, corpus: Path) -> None:
    run = finished_run(tmp_path, corpus, input_dropout=0, l2=0)
    with pytest.raises(InputError, match="its best configuration has no regulariser on"):
        ablation.plan(run.path, 2)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        ablation.plan(tmp_path / "nowhere", 2)


ON = [2.00, 2.10, 2.05]
LOSSES = {"all_on": ON, "without_input_dropout": [2.30, 2.35, 2.37], "without_l2": [1.99, 2.12, 2.05]}


@pytest.fixture
def measured(tmp_path: Path, corpus: Path) -> RunDirectory:
    """An ablation whose trials ended with `LOSSES`; those of all_off diverged, but for one."""
    planned = ablation.plan(finished_run(tmp_path, corpus).path, 3)
    run = create(str(tmp_path), planned.name)
    write_experiment(run, planned)
    journal = Journal(run.journal)
    journal.open_session("abc", 1, 0.0)
    number = 0
    results: dict[str, list[float | None]] = {**{k: [*v] for k, v in LOSSES.items()}, "all_off": [2.5, None, None]}
    for branch, losses in results.items():
        for seed, loss in enumerate(losses):
            assignment = {"one_of": branch}
            journal.propose(number, seed, Proposal(assignment, {}), planned.trial_config(assignment).to_dict())
            if loss is not None:
                journal.report(number, a_report(loss))
                journal.checkpoint(number, "somewhere")
            journal.end(number, "completed" if loss is not None else "diverged", "")
            number += 1
    return run


def test_intervals_are_students_over_paired_differences(measured: RunDirectory) -> None:
    found = {effect.branch: effect for effect in ablation.effects(measured)}
    for branch in ("without_input_dropout", "without_l2"):
        expected = stats.ttest_rel(LOSSES[branch], ON).confidence_interval(0.95)
        assert (found[branch].low, found[branch].high) == pytest.approx(tuple(expected))
        assert found[branch].change == pytest.approx((found[branch].low + found[branch].high) / 2)
    assert (found["all_on"].change, found["all_on"].loss) == pytest.approx((0, sum(ON) / 3))
    assert found["all_off"].seeds == 1
    assert found["all_off"].change == pytest.approx(0.5)
    assert math.isinf(found["all_off"].high)


def test_the_table_has_the_largest_effect_first_and_says_what_was_held_fixed(measured: RunDirectory) -> None:
    text = ablation.report(measured)
    assert "With all of them: 2.0500, mean of 3 seeds" in text
    rows = [line for line in text.splitlines() if line.startswith(("input_dropout", "l2", "all reg"))]
    assert rows[0] == "all regularisers  +0.5000                    needs two seeds     1"
    assert rows[1].startswith("input_dropout     +0.2900 ")
    assert rows[2].startswith("l2                +0.0033 ")
    assert "Other hyperparameters stayed as they were found" in text
    written = json.loads((measured.path / "ablation.json").read_text())
    assert [row["branch"] for row in written] == ["all_on", "without_input_dropout", "without_l2", "all_off"]


def test_an_ablation_is_known_as_one(measured: RunDirectory, tmp_path: Path) -> None:
    assert ablation.is_ablation(measured)
    assert ablation.is_finished(measured)
    Journal(measured.journal).end(0, "failed", "")
    assert not ablation.is_finished(measured)
    assert not ablation.is_ablation(RunDirectory(tmp_path / "study"))
