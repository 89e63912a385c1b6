"""`search.warm_start`: which trials of earlier runs count, how they are compared, what a search makes of them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune_rnn.checking import check
from tune_rnn.data import load_corpus
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.report import Report
from tune_rnn.results import directory
from tune_rnn.results.directory import RunDirectory, write_experiment
from tune_rnn.results.earlier import Earlier, read_earlier
from tune_rnn.results.journal import Journal
from tune_rnn.schema import flatten
from tune_rnn.search import build_searcher
from tune_rnn.search.comparison import expected_scores
from tune_rnn.study import resume, run

SGD, ADAM = (
    {"optimizer": "sgd", "learning_rate": 1.0},
    {"optimizer": "adam", "learning_rate": {"log_uniform": [1e-4, 1]}},
)


@pytest.fixture
def make(corpus: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """A study of two sizes and a dropout; `sections` replace its own."""

    def make(**sections: Any) -> Experiment:
        usual: dict[str, Any] = {
            "name": "study",
            "task": {"corpus": str(corpus)},
            "model": {"embedding_size": 8, "hidden_size": {"choice": [8, 16]}},
            "regularizers": {"input_dropout": {"uniform": [0, 0.5]}},
            "training": {"batch_size": 8, "sequence_length": 32, "precision": "fp32"},
            "budget": {"epochs": 2, "trials": 12},
            "resources": {"device": "cpu"},
            "storage": str(tmp_path / "results"),
        }
        return Experiment(**usual | sections)

    return make


def begun(
    experiment: Experiment, assignments: list[dict[str, Any]], losses: Sequence[float | None], sha: str = ""
) -> Path:
    """A run as a study leaves it; a loss of None: not reported, of NaN: diverged."""
    made = directory.create(experiment.storage, experiment.name)
    write_experiment(made, experiment)
    journal = Journal(made.journal)
    journal.open_session(sha or load_corpus(experiment.task).sha256, 1, 1000.0)
    for number, (assignment, loss) in enumerate(zip(assignments, losses, strict=True)):
        config = experiment.trial_config(assignment).to_dict()
        journal.propose(number, number, assignment, config)
        if loss is not None:
            _end(journal, number, loss)
    return made.path


def _end(journal: Journal, number: int, loss: float) -> None:
    sound = math.isfinite(loss)
    known, finished = (loss, "budget") if sound else (None, "diverged")
    report = Report(2.0, 100, 10, known, known, known, 1e-3, 0.5, 100.0, 1.0, improved=sound, finished=finished)
    journal.report(number, report)
    journal.end(number, "completed" if sound else "diverged", "")


def sizes(*dropouts: float, size: int = 8) -> list[dict[str, Any]]:
    return [{"model.hidden_size": size, "regularizers.input_dropout": dropout} for dropout in dropouts]


def read(experiment: Experiment) -> list[Earlier]:
    return read_earlier(experiment, load_corpus(experiment.task).sha256)


def test_what_an_earlier_final_stage_trained_again_does_not_count(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), sizes(0.1, 0.2), [1.5, 1.4])
    new = make(search={"warm_start": [str(old)]})
    before = read(new)
    journal = Journal(old / "trials.jsonl")
    for stage in ("final", "audit"):
        _end(journal, journal.propose_again(of=1, stage=stage, seed=7).number, 1.0)
    assert len(Journal(old / "trials.jsonl").trials) == 4
    assert read(new) == before
    assert before[0].trials == len(before[0].used) == 2


def test_a_trial_whose_configuration_changed_tells_nothing_of_one(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), sizes(0.1, 0.2), [1.5, 1.4])
    journal = Journal(old / "trials.jsonl")
    journal.checkpoint(1, "checkpoint")
    values = {"model.hidden_size": 8, "regularizers.input_dropout": 0.3}
    journal.take_over(0, 1, 2.0, values, make().trial_config(values).to_dict())
    (run,) = read(make(search={"warm_start": [str(old)]}))
    assert [one.assignment for one in run.used] == sizes(0.2)
    assert str(run).endswith("1 of 2 trials of " + str(old) + " used; 1 with a configuration that changed")


def test_trials_are_matched_by_name_and_those_outside_are_dropped(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), sizes(0.1, 0.2, 0.4, 0.3), [1.5, math.nan, 1.4, None])
    new = make(search={"warm_start": [str(old)]}, regularizers={"input_dropout": {"uniform": [0, 0.25, 0.1]}})
    (found,) = read(new)
    assert [one.assignment for one in found.used] == sizes(0.1, 0.2)
    assert [(one.scores, one.bad, one.running, one.group) for one in found.used] == [
        ([1.5], False, False, ""),
        ([], True, False, ""),
    ]
    key = "regularizers.input_dropout"
    expected = f"search.warm_start: 2 of 4 trials of {old} used; 1 outside the space ({key}), 1 without a result"
    assert str(found) == expected
    assert found.to_dict() == {"run": str(old), "trials": 4, "used": 2, "outside": 1, "comparable": True}


def test_the_keys_that_put_trials_outside_are_named(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), [*sizes(0.1, 0.4, size=8), *sizes(0.4, size=16)], [1.5, 1.4, 1.3])
    sections = {"model": {"hidden_size": {"int": [12, 20]}}, "regularizers": {"input_dropout": {"uniform": [0, 0.3]}}}
    (found,) = read(make(search={"warm_start": [str(old)]}, **sections))
    assert str(found).endswith("; 3 outside the space (model.hidden_size, regularizers.input_dropout)")
    far = {"optimizer": "sgd", "learning_rate": {"log_uniform": [1, 9]}}
    branches = {"a": {"training": far}, "b": {"training": ADAM}}
    half = {"regularizers": {"input_dropout": {"uniform": [0, 0.3]}}, "one_of": branches}
    (found,) = read(make(search={"warm_start": [str(old)]}, **half))
    assert str(found).endswith("; 2 outside the space (regularizers.input_dropout)"), "of the branch that comes nearest"


def test_what_the_old_study_had_fixed_counts_and_what_it_lacked_does_not(make: Callable[..., Experiment]) -> None:
    old = make(name="old", model={"embedding_size": 8, "hidden_size": 16})
    path = begun(old, [{"regularizers.input_dropout": 0.1}], [1.5])
    new = make(search={"warm_start": [str(path)]}, training={"learning_rate": {"log_uniform": [1e-3, 1]}})
    (found,) = read(new)
    rate = old.trial_config({"regularizers.input_dropout": 0.1}).training.learning_rate
    assert [one.assignment for one in found.used] == [{**sizes(0.1, size=16)[0], "training.learning_rate": rate}]
    assert str(found).endswith(f"1 of 1 trial of {path} used")
    config = flatten(old.trial_config({"regularizers.input_dropout": 0.1}).to_dict())
    assert new.assignment_of(config) == found.used[0].assignment
    assert new.assignment_of({key: value for key, value in config.items() if key != "model.hidden_size"}) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"training.optimizer": "sgd", "training.learning_rate": 1.0}, {"one_of": "plain"}),
        ({"training.optimizer": "sgd", "training.learning_rate": 2.0}, None),
        (
            {"training.optimizer": "adam", "training.learning_rate": 1, "one_of": "other"},
            {"one_of": "first", "training.learning_rate": 1.0},
        ),
        (
            {"training.optimizer": "adam", "training.learning_rate": 0.5, "one_of": "second"},
            {"one_of": "second", "training.learning_rate": 0.5},
        ),
        (
            {"training.optimizer": "adam", "training.learning_rate": 0.05, "one_of": "second"},
            {"one_of": "first", "training.learning_rate": 0.05},
        ),
        ({"training.optimizer": "rmsprop", "training.learning_rate": 0.5}, None),
        ({"training.learning_rate": 0.5}, None),
    ],
)
def test_a_trial_goes_to_a_branch_that_it_fits(
    make: Callable[..., Experiment], config: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    """Its own branch if it fits, or the first that does; a branch's fixed values count, those of the root do not."""
    second = {"optimizer": "adam", "learning_rate": {"log_uniform": [0.1, 1]}}
    branches = {"plain": {"training": SGD}, "first": {"training": ADAM}, "second": {"training": second}}
    new = make(model={"layers": 3}, regularizers={}, one_of=branches)
    found = new.assignment_of({"model.layers": 1, **config})
    assert found == expected
    assert found is None or all(type(value) in (str, float) for value in found.values())


def test_scores_are_comparable_where_data_task_and_unit_are_the_same(
    make: Callable[..., Experiment], corpus: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.txt"
    shutil.copy(corpus, copy)
    trial, loss = sizes(0.1), [1.5]
    runs = {
        "": begun(make(name="same", task={"corpus": str(copy)}, budget={"epochs": 9, "trials": 2}), trial, loss),
        "data": begun(make(name="data"), trial, loss, sha="another"),
        "task": begun(make(name="task", task={"corpus": str(corpus), "documents": "joined"}), trial, loss),
        "unit of the budget": begun(make(name="unit", budget={"tokens": 10_000, "trials": 2}), trial, loss),
        "data and task": begun(make(name="two", task={"corpus": str(corpus), "kind": "word_lm"}), trial, loss, "x"),
    }
    found = read(make(search={"warm_start": [str(path) for path in runs.values()]}))
    assert [one.differs for one in found] == list(runs)
    groups = [one.used[0].group for one in found]
    assert groups[0] == ""
    assert len(set(groups)) == 5
    assert str(found[1]).endswith(" used; compared among themselves, not having the same data")


def test_runs_of_equal_data_are_one_group(make: Callable[..., Experiment]) -> None:
    paths = [begun(make(name=name), sizes(0.1), [1.5], sha="another") for name in ("one", "two")]
    first, second = read(make(search={"warm_start": list(map(str, paths))}))
    assert first.used[0].group == second.used[0].group != ""


@pytest.mark.parametrize("sha", ["", "another"], ids=["comparable", "other data"])
def test_the_first_proposal_comes_from_what_was_learnt(make: Callable[..., Experiment], sha: str) -> None:
    """Dropout near 0.4 was best, and size 16: none of that is likely to be drawn twenty times."""
    dropouts = [(number + 0.5) / 48 for number in range(24)]
    assignments = [one for size in (8, 16) for one in sizes(*dropouts, size=size)]
    losses = [
        1.0 + abs(one["regularizers.input_dropout"] - 0.4) + (one["model.hidden_size"] == 8) for one in assignments
    ]
    old = begun(make(name="old"), assignments, losses, sha)
    taken = []
    for seed in range(20):
        new = make(search={"warm_start": [str(old)], "seed": seed})
        used = [trial for one in read(new) for trial in one.used]
        proposal = build_searcher(new.search, new.space, used).propose(0)
        assert proposal is not None
        taken.append(proposal.assignment)
    assert np.mean([one["model.hidden_size"] == 16 for one in taken]) > 0.75
    assert np.mean([abs(one["regularizers.input_dropout"] - 0.4) < 0.15 for one in taken]) > 0.75


def test_after_few_trials_the_start_up_design_goes_on_where_they_ended(make: Callable[..., Experiment]) -> None:
    """From its beginning, an equal seed would try what they have tried."""
    old = begun(make(name="old"), sizes(0.1), [1.5])
    new = make(search={"warm_start": [str(old)]})
    used = [trial for one in read(new) for trial in one.used]
    assert build_searcher(new.search, new.space, used).propose(0) == build_searcher(new.search, new.space).propose(1)


def test_reading_again_gives_the_same_knowledge(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), sizes(0.1, 0.2, 0.3), [1.5, math.nan, 1.2])
    new = make(search={"warm_start": [str(old)]})
    assert read(new) == read(new)
    assert expected_scores(list(read(new)[0].used)).tolist() == [1.5, math.inf, 1.2]


def test_paths_may_be_relative_and_are_written_absolute(
    make: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = begun(make(name="old"), sizes(0.1), [1.5])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for here, beside in ((old.parent, None), (elsewhere, old.parent)):
        monkeypatch.chdir(here)
        new = make(search={"warm_start": ["old"]}, beside=beside)
        (found,) = read(new)
        assert str(found) == "search.warm_start: 1 of 1 trial of old used"
        written = directory.create(new.storage, "new")
        write_experiment(written, new)
        monkeypatch.chdir(tmp_path)
        assert Experiment.load(written.experiment).search.warm_start == (str(old),)


def test_the_command_line_takes_a_path_as_it_is(make: Callable[..., Experiment]) -> None:
    assert make().with_overrides(["search.warm_start=results/my run"]).search.warm_start == ("results/my run",)
    assert make().with_overrides(["search.warm_start=[a, b]"]).search.warm_start == ("a", "b")
    new = make(search={"warm_start": [Path("a")]})
    assert new.search.warm_start == ("a",)
    assert Experiment.from_yaml_text(new.to_yaml()) == new
    assert new.with_overrides(["search.warm_start=[]", "search.algorithm=random"]).search.warm_start == ()


def _without_trials(old: Path) -> None:
    (old / "trials.jsonl").write_text("")


def _damaged(old: Path) -> None:
    (old / "experiment.yaml").write_text("name: x\nbudget: {epochs: 0}\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r": there is no such directory\. Relative paths start at the current directory or beside"),
        (_without_trials, r": the run has no trials to learn from\. Remove it\.$"),
        (_damaged, r": cannot be read \(budget\.epochs: must be greater than 0\)\. Name the directory of a run\.$"),
        (lambda old: (old / "experiment.yaml").unlink(), r": cannot be read \(.*: is not a run directory \(it has no"),
    ],
)
@pytest.mark.parametrize("entry", [run, check])
def test_what_is_no_run_is_refused_before_anything_starts(
    make: Callable[..., Experiment],
    entry: Callable[[Experiment], object],
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    good, bad = (begun(make(name=name), sizes(0.1), [1.5]) for name in ("good", "bad"))
    spoil(bad)
    new = make(search={"warm_start": [str(good), str(bad)]})
    with pytest.raises(InputError, match=rf"^search\.warm_start\[1\]: '{bad}'{message}"):
        entry(new)
    assert not (good.parent / "study").exists()


def test_a_resumed_study_misses_a_run_that_has_vanished(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), sizes(0.1), [1.5])
    new = begun(make(search={"warm_start": [str(old)]}), sizes(0.1), [None])
    before = RunDirectory(new).experiment.read_text()
    shutil.rmtree(old)
    with pytest.raises(InputError, match=r"^search\.warm_start\[0\]: .*there is no such directory"):
        resume(new)
    assert RunDirectory(new).experiment.read_text() == before


def test_check_says_what_would_be_used(make: Callable[..., Experiment]) -> None:
    old = begun(make(name="old"), sizes(0.1, 0.2), [1.5, 1.4])
    lines = check(make(search={"warm_start": [str(old)]})).splitlines()
    index = next(number for number, line in enumerate(lines) if line.startswith("  search "))
    assert lines[index + 1].strip() == f"search.warm_start: 2 of 2 trials of {old} used"


def test_a_study_that_searches_nothing_reads_nothing(make: Callable[..., Experiment]) -> None:
    fixed = make(model={"hidden_size": 8}, regularizers={}, search={"warm_start": ["nowhere"]})
    assert read_earlier(fixed, "any") == []


def test_the_summary_has_it(make: Callable[..., Experiment]) -> None:
    """As JSON: what a study writes into it is tested with Ray."""
    old = begun(make(name="old"), sizes(0.1), [1.5])
    (found,) = read(make(search={"warm_start": [str(old)]}))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
