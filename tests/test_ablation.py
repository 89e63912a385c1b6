"""What an ablation trains, and what it makes of the losses; no Ray here (see test_study)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tune_rnn import ablation
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.report import Report
from tune_rnn.results.directory import RunDirectory, create, write_experiment
from tune_rnn.results.journal import Journal
from tune_rnn.results.mirror import working_directory
from tune_rnn.search import build_searcher

STRENGTHS = {"input_dropout": 0.2, "hidden_dropout": 0.3, "l2": 1e-5, "clip_norm": 0.0}


def a_report(loss: float) -> Report:
    return Report(1.0, 100, 10, loss, loss, loss, 1e-3, 1.0, 100.0, 1.0, improved=True, finished="budget")


def finished_run(
    tmp_path: Path, corpus: Path, model: dict[str, Any] | None = None, **regularizers: Any
) -> RunDirectory:
    """A run of one trial, as `run` records it."""
    experiment = Experiment(
        name="study",
        task={"corpus": str(corpus)},
        model=model or {},
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
    journal.propose(0, 1, assignment, experiment.trial_config(assignment).to_dict())
    journal.report(0, a_report(2.0))
    journal.checkpoint(0, "somewhere")
    journal.end(0, "completed", "")
    return run


def test_each_regulariser_is_left_out_once_and_all_of_them(tmp_path: Path, corpus: Path) -> None:
    planned = ablation.plan(finished_run(tmp_path, corpus).path, seeds=3)
    assert planned.final is None, "each has its seeds already"
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


def test_with_clipping_all_the_others_are_left_out_too(tmp_path: Path, corpus: Path) -> None:
    planned = ablation.plan(finished_run(tmp_path, corpus, clip_norm=0.25, clip_value=1.0).path, seeds=2)
    assert list(planned.space.branches)[-2:] == ["all_off", "clipping_alone"]
    configs = {name: planned.trial_config({"one_of": name}).regularizers for name in planned.space.branches}
    alone = configs["clipping_alone"]
    assert (alone.input_dropout, alone.l2, alone.clip_norm, alone.clip_value) == (0, 0, 0.25, 1)
    assert (configs["all_off"].clip_norm, configs["all_off"].clip_value) == (0, 0)


def test_clipping_and_one_other_take_no_row_twice(tmp_path: Path, corpus: Path) -> None:
    planned = ablation.plan(finished_run(tmp_path, corpus, input_dropout=0, clip_norm=0.25).path, seeds=2)
    assert list(planned.space.branches) == ["all_on", "without_l2", "without_clip_norm", "all_off"]


def test_layer_norm_is_left_out_too_and_fraternal_dropout_goes_with_the_last_dropout(
    tmp_path: Path, corpus: Path
) -> None:
    on = {"input_dropout": 0.2, "hidden_dropout": 0, "l2": 0, "fraternal_dropout": 0.1}
    planned = ablation.plan(finished_run(tmp_path, corpus, {"layer_norm": "cell"}, **on).path, seeds=2)
    assert list(planned.space.branches) == [
        "all_on", "without_input_dropout_and_fraternal_dropout", "without_fraternal_dropout", "without_layer_norm",
        "all_off",
    ]  # fmt: skip
    configs = {name: planned.trial_config({"one_of": name}) for name in planned.space.branches}
    assert configs["without_layer_norm"].model.layer_norm == "none"
    assert configs["without_layer_norm"].regularizers == configs["all_on"].regularizers
    assert configs["without_input_dropout_and_fraternal_dropout"].regularizers.fraternal_dropout == 0
    assert configs["all_off"].model.layer_norm == "none"


def test_the_name_is_one_whatever_the_directory_is_called(tmp_path: Path, corpus: Path) -> None:
    renamed = finished_run(tmp_path, corpus).path.rename(tmp_path / ("my study " + "x" * 90))
    name = ablation.plan(renamed, 2).name
    assert name.startswith("my-study-x")
    assert name.endswith("x-ablation")


def test_overrides_come_before_anything_is_left_out(tmp_path: Path, corpus: Path) -> None:
    path = finished_run(tmp_path, corpus).path
    off = ablation.plan(path, 2, overrides=["regularizers.l2=0"])
    assert list(off.space.branches) == ["all_on", "without_input_dropout"]
    on = ablation.plan(path, 2, overrides=["regularizers.weight_drop=0.5", "name=other", "budget.hours=1"])
    assert list(on.space.branches)[1:] == ["without_input_dropout", "without_weight_drop", "without_l2", "all_off"]
    assert on.trial_config({"one_of": "all_off"}).regularizers.weight_drop == 0
    assert (on.name, on.budget.hours) == ("other", 1)


@pytest.mark.parametrize(
    "override", ["search.seeds=1", "scheduler.algorithm=asha", "final.top_k=2", "budget.trials=2", "one_of=all_on"]
)
def test_what_would_undo_the_comparison_is_refused(override: str, tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match="cannot be changed in an ablation"):
        ablation.plan(finished_run(tmp_path, corpus).path, 2, overrides=[override])


def test_nothing_is_searched_in_an_ablation(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match=r"^regularizers.l1: must have a single value in an ablation"):
        ablation.plan(finished_run(tmp_path, corpus).path, 2, overrides=["regularizers.l1={uniform: [0, 1]}"])


def test_its_size_in_a_sentence(tmp_path: Path, corpus: Path) -> None:
    path = finished_run(tmp_path, corpus).path
    assert ablation.size(ablation.plan(path, 2)) == "4 configurations × 2 seeds: 8 trainings"
    assert ablation.size(ablation.plan(path, 2, 3)) == "4 configurations × 3 learning rates × 2 seeds: 24 trainings"


def test_the_same_ablation_is_not_begun_twice(tmp_path: Path, corpus: Path) -> None:
    planned = ablation.plan(finished_run(tmp_path, corpus).path, 3)
    ablation.refuse_a_second(planned)
    begun = create(str(tmp_path), planned.name)
    write_experiment(begun, planned.replace("training.precision", "fp32"))
    with pytest.raises(InputError, match=r"is the same ablation, begun and not finished.*`tune-rnn ablate "):
        ablation.refuse_a_second(planned)
    ablation.refuse_a_second(ablation.plan(tmp_path / "study", 4))
    ablation.refuse_a_second(planned.with_overrides(["name=again"]))


def test_the_ablation_of_a_run_on_object_storage_is_there_too(tmp_path: Path, corpus: Path) -> None:
    run, storage = finished_run(tmp_path, corpus), "s3://bucket/results?region=eu-central-1"
    write_experiment(run, Experiment.of_run(run.experiment).replace("storage", storage))
    planned = ablation.plan(run.path, 2)
    assert planned.storage == storage
    begun = RunDirectory(working_directory(storage) / planned.name)
    begun.path.mkdir(parents=True)
    write_experiment(begun, planned)
    place = r"s3://bucket/results/study-ablation\?region=eu-central-1"
    with pytest.raises(InputError, match=rf"^{place}: is the same ablation, .* `tune-rnn ablate {place}` goes on"):
        ablation.refuse_a_second(planned)


@pytest.mark.parametrize(("seeds", "retune", "rule"), [(1, 0, "at least 2, as differ"), (2, 1, "2 learning rates")])
def test_what_compares_nothing_is_refused(seeds: int, retune: int, rule: str, tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match=rule):
        ablation.plan(finished_run(tmp_path, corpus).path, seeds, retune)


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
    return recorded(tmp_path, corpus, {**LOSSES, "all_off": [2.5, None, None]})


def recorded(
    tmp_path: Path, corpus: Path, results: Mapping[str, Sequence[float | None]], retune: int = 0
) -> RunDirectory:
    """An ablation of three seeds whose trials ended with these losses, a list for each branch; None diverged.

    Branches without results and, with `retune`, all learning rates but the first have not been trained.
    """
    planned = ablation.plan(finished_run(tmp_path, corpus).path, 3, retune)
    searcher = build_searcher(planned.search, planned.space)
    run = create(str(tmp_path), planned.name)
    write_experiment(run, planned)
    journal = Journal(run.journal)
    journal.open_session("abc", 1, 0.0)
    points = planned.space.grid_size()
    for number in range(3 * points):
        proposal = searcher.propose(number)
        assert proposal is not None
        assert proposal.seed is not None
        losses = results.get(proposal.assignment["one_of"])
        if losses is None or proposal.assignment.get("training.learning_rate", 0.0025) != 0.0025:
            continue
        loss = losses[number // points]
        journal.propose(number, proposal.seed, proposal.assignment, planned.trial_config(proposal.assignment).to_dict())
        if loss is not None:
            journal.report(number, a_report(loss))
            journal.checkpoint(number, "somewhere")
        journal.end(number, "completed" if loss is not None else "diverged", "")
    return run


def test_intervals_are_students_over_paired_differences(measured: RunDirectory) -> None:
    found = {effect.branch: effect for effect in ablation.effects(measured)}
    for branch in ("without_input_dropout", "without_l2"):
        expected = stats.ttest_rel(LOSSES[branch], ON).confidence_interval(0.95)
        assert (found[branch].low, found[branch].high) == pytest.approx(tuple(expected))
        assert found[branch].change == pytest.approx(np.mean(LOSSES[branch]) - np.mean(ON))
    assert (found["all_on"].change, found["all_on"].loss) == pytest.approx((0, sum(ON) / 3))
    assert (found["all_off"].seeds, found["all_off"].diverged) == (1, 2)
    assert found["all_off"].change == pytest.approx(0.5)
    assert found["all_off"].high is None


def test_what_diverges_without_a_regulariser_is_shown_first_and_as_such(tmp_path: Path, corpus: Path) -> None:
    run = recorded(tmp_path, corpus, {**LOSSES, "without_l2": [None] * 3, "all_off": [None, 2.2, 2.3]})
    rows = [line for line in ablation.report(run).splitlines() if line.startswith(("input_dropout", "l2", "all reg"))]
    assert rows[0].split() == ["l2", "3", "diverged", "0"]
    assert rows[2].endswith("2, 1 diverged")
    written = {row["branch"]: row for row in json.loads((run.path / "ablation.json").read_text())}
    assert (written["without_l2"]["change"], written["without_l2"]["diverged"]) == (None, 3)


def test_what_is_missing_is_said(tmp_path: Path, corpus: Path) -> None:
    run = recorded(tmp_path, corpus, LOSSES, retune=2)
    text = ablation.report(run)
    assert "all regularisers  not trained" in text
    assert "nan" not in text.lower()
    assert "NaN" not in (run.path / "ablation.json").read_text()
    assert "learning rate" in text
    assert "at the learning rate 0.0025*" in text
    assert "* lies at an end of the rates tried" in text
    assert f"15 trainings missing: `tune-rnn ablate {run.path}` goes on with it." in text


def test_nothing_can_be_compared_with_a_configuration_that_diverged(tmp_path: Path, corpus: Path) -> None:
    run = recorded(tmp_path, corpus, {**LOSSES, "all_on": [None] * 3, "all_off": ON})
    with pytest.raises(InputError, match="no trial of the whole configuration was completed"):
        ablation.report(run)


def test_the_table_has_the_largest_effect_first_and_says_what_was_held_fixed(measured: RunDirectory) -> None:
    text = ablation.report(measured)
    assert "With all of them: 2.0500, mean of 3 seeds" in text
    rows = [line for line in text.splitlines() if line.startswith(("input_dropout", "l2", "all reg"))]
    assert rows[0] == "all regularisers  +0.5000                    needs two seeds     1, 2 diverged"
    assert rows[1].startswith("input_dropout     +0.2900 ")
    assert rows[2].startswith("l2                +0.0033 ")
    assert "Other hyperparameters stayed as they were found" in text
    written = json.loads((measured.path / "ablation.json").read_text())
    assert [row["branch"] for row in written] == ["all_on", "without_input_dropout", "without_l2", "all_off"]


def test_an_ablation_is_known_as_one(measured: RunDirectory, tmp_path: Path) -> None:
    assert ablation.is_ablation(Experiment.load(measured.experiment))
    assert ablation.is_finished(measured)
    Journal(measured.journal).end(0, "failed", "")
    assert not ablation.is_finished(measured)
    assert not ablation.is_ablation(Experiment.load(tmp_path / "study" / "experiment.yaml"))
