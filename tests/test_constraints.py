"""`constraints.parameters`: what is counted, what is refused, and that a search goes on without it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tune_rnn.checking import check
from tune_rnn.constraints import REFUSALS, ParameterCap
from tune_rnn.data import Corpus, load_corpus
from tune_rnn.display import Display
from tune_rnn.errors import InputError, StudyFailed
from tune_rnn.experiment import Experiment
from tune_rnn.report import Report
from tune_rnn.results.conclusion import carry_out
from tune_rnn.results.directory import create
from tune_rnn.results.journal import Journal
from tune_rnn.results.recorder import Plan, Recorder
from tune_rnn.results.summary import closing_text, write_summary
from tune_rnn.schedulers import build_scheduler
from tune_rnn.search import build_searcher
from tune_rnn.single import train
from tune_rnn.study import run
from tune_rnn.study.adapters import replay
from tune_rnn.study.proposing import Proposer

SIZES = {"choice": [8, 16, 64, 128]}
CAP = 10_000  # the larger two sizes are over it


@pytest.fixture
def make(corpus: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """An experiment over four sizes; `sections` replace its own."""

    def make(**sections: Any) -> Experiment:
        usual: dict[str, Any] = {
            "name": "study",
            "task": {"corpus": str(corpus)},
            "model": {"embedding_size": 8, "hidden_size": SIZES},
            "regularizers": {"input_dropout": {"uniform": [0, 0.5]}},
            "training": {"batch_size": 8, "sequence_length": 32, "precision": "fp32"},
            "budget": {"epochs": 2, "trials": 12},
            "search": {"algorithm": "random", "seed": 1},
            "constraints": {"parameters": CAP},
            "storage": str(tmp_path),
        }
        return Experiment(**usual | sections)

    return make


def proposer_of(experiment: Experiment, journal: Path, display: Display | None = None) -> Proposer:
    """What a session has, new or resumed, without Ray."""
    data = load_corpus(experiment.task)
    opened = Journal(journal)
    opened.open_session(data.sha256, 1, 1000.0)
    run = create(experiment.storage, experiment.name)
    plan = Plan(1, 1, "cpu", experiment.planned_trials, 2.0, experiment.grid_points)
    recorder = Recorder(run, opened, experiment, data, plan, display or Display(io.StringIO()))
    searcher = build_searcher(experiment.search, experiment.space)
    replay(searcher, build_scheduler(experiment.scheduler, 2.0, searcher.evidence), opened)
    return Proposer(searcher, recorder, experiment, ParameterCap.of(experiment, data))


def play(proposer: Proposer, count: int) -> list[dict[str, Any]]:
    """Propose and train one trial after another; a larger model has the lower loss."""
    assignments = []
    for _ in range(count):
        trial = proposer.next_trial()
        if trial is None:
            break
        assignments.append(trial.assignment)
        loss = 1 / trial.assignment["model.hidden_size"]
        report = Report(2.0, 100, 10, loss, loss, loss, 1e-3, 0.5, 100.0, 1.0, improved=True, finished="budget")
        proposer.recorder.journal.report(trial.number, report)
        proposer.recorder.journal.checkpoint(trial.number, "somewhere")
        proposer.recorder.journal.end(trial.number, "completed", "")
        proposer.searcher.reported(trial.number, 2.0, loss)
        proposer.searcher.ended(trial.number)
    return assignments


def events(proposer: Proposer, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in proposer.recorder.journal.path.read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.mark.parametrize("algorithm", ["random", "sobol", "hyperopt", "optuna", "forest"])
def test_a_refused_configuration_is_journalled_and_another_one_trained(
    make: Callable[..., Experiment], tmp_path: Path, algorithm: str
) -> None:
    proposer = proposer_of(make(search={"algorithm": algorithm}), tmp_path / "trials.jsonl")
    taken = play(proposer, 12)
    assert len(taken) == 12
    assert {one["model.hidden_size"] for one in taken} == {8, 16}
    refused = events(proposer, "refused")
    assert {event["assignment"]["model.hidden_size"] for event in refused} == {64, 128}
    assert refused[-1]["trial"] <= 11
    assert len(refused) == len(proposer.recorder.journal.refused) == len(proposer.searcher.evidence.refused)
    proposer.check()  # nothing to complain of
    assert proposer.next_trial() is None, "budget.trials counts those that are trained"
    proposer.check()


@pytest.mark.parametrize("seed", range(3))
def test_a_tight_cap_does_not_lead_a_search_that_learns_astray(
    make: Callable[..., Experiment], tmp_path: Path, seed: int
) -> None:
    """A tenth of the range is below it: the first proposals are all above, and must not be taken for the best."""
    model = {"embedding_size": 8, "hidden_size": {"int": [8, 512]}}
    cap = {"parameters": 20_000}  # up to about 60
    proposer = proposer_of(
        make(model=model, constraints=cap, search={"algorithm": "hyperopt", "seed": seed}), tmp_path / "trials.jsonl"
    )
    assert len(play(proposer, 12)) == 12
    refused = [event["trial"] for event in events(proposer, "refused")]
    assert len(refused) < 150
    assert refused.count(11) + refused.count(10) < 20, "it has learnt where they are"


STUDIES = [("random", 1), ("random", 5), ("sobol", 1), ("sobol", 5), ("hyperopt", 1), ("hyperopt", 5), ("optuna", 5)]


@pytest.mark.parametrize(("algorithm", "done"), STUDIES)
def test_a_resumed_study_proposes_the_same(
    make: Callable[..., Experiment], tmp_path: Path, algorithm: str, done: int
) -> None:
    start = [{"model": {"hidden_size": 128}}, {"regularizers": {"input_dropout": 0.25}}]
    experiment = make(search={"algorithm": algorithm, "start": start})
    whole = play(proposer_of(experiment, tmp_path / "whole.jsonl"), 12)
    interrupted = play(proposer_of(experiment, tmp_path / "parts.jsonl"), done)
    resumed = play(proposer_of(experiment, tmp_path / "parts.jsonl"), 12)
    assert interrupted + resumed == whole
    read = (Journal(tmp_path / name).refused for name in ("whole.jsonl", "parts.jsonl"))
    first, second = read
    assert first == second


def test_a_grid_is_tried_without_its_larger_models(make: Callable[..., Experiment], tmp_path: Path) -> None:
    experiment = make(regularizers={}, search={"algorithm": "grid", "seeds": 2}, budget={"epochs": 2})
    proposer = proposer_of(experiment, tmp_path / "trials.jsonl")
    assert proposer.recorder.progress().planned == 8
    taken = play(proposer, 9)
    assert [one["model.hidden_size"] for one in taken] == [8, 16, 8, 16]
    assert len(proposer.recorder.journal.refused) == proposer.recorder.progress().planned == 4
    proposer.check()


@pytest.mark.parametrize("seed", range(4))
def test_what_a_starting_point_lacks_is_sampled_below_the_cap(
    make: Callable[..., Experiment], tmp_path: Path, seed: int
) -> None:
    search = {"algorithm": "random", "seed": seed, "start": [{"regularizers.input_dropout": 0.1}]}
    proposer = proposer_of(make(search=search), tmp_path / "trials.jsonl")
    (taken,) = play(proposer, 1)
    assert taken["regularizers.input_dropout"] == 0.1
    assert taken["model.hidden_size"] in (8, 16)
    assert proposer.recorder.journal.refused == []


def test_starting_points_above_the_cap_are_named(make: Callable[..., Experiment], tmp_path: Path) -> None:
    said = io.StringIO()
    search = {"algorithm": "random", "start": [{"model.hidden_size": 8}, {"model.hidden_size": 128}]}
    proposer = proposer_of(make(search=search), tmp_path / "trials.jsonl", Display(said))
    taken = play(proposer, 3)
    assert taken[0]["model.hidden_size"] == 8
    parameters = proposer.cap.count(proposer.experiment.trial_config({**taken[0], "model.hidden_size": 128}))
    expected = f"search.start[1] is refused: its model has {parameters:,} parameters, more than constraints.parameters"
    assert said.getvalue() == f"{expected}, 10,000\n"


def test_check_names_starting_points_above_the_cap_as_the_study_does(
    make: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_rnn.checking.TIMED_S", 0.02)
    said = io.StringIO()
    dropout = {"regularizers.input_dropout": 0.1}  # the size is free: there are models below the cap
    start = [{"model.hidden_size": 8}, {"model.hidden_size": 128}, dropout, {**dropout, "model.hidden_size": 64}]
    experiment = make(search={"algorithm": "random", "start": start})
    play(proposer_of(experiment, tmp_path / "trials.jsonl", Display(said)), 4)
    lines = [line.strip() for line in check(experiment).splitlines()]
    place = lines.index("search      random, after 2 starting points")
    told = lines[place + 1 : place + 4]
    assert told[:2] == said.getvalue().splitlines()
    assert [line.split()[0] for line in told] == ["search.start[1]", "search.start[3]", "stopping"]
    alone = make(search={"algorithm": "random", "start": start[1:2]})
    assert "  search      random\n              search.start[0] is refused: its model has" in check(alone)


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_a_cap_below_every_model_ends_the_study(
    make: Callable[..., Experiment], tmp_path: Path, algorithm: str
) -> None:
    sections: dict[str, Any] = {"search": {"algorithm": algorithm}, "constraints": {"parameters": 1000}}
    experiment = make(**sections, regularizers={})
    proposer = proposer_of(experiment, tmp_path / "trials.jsonl")
    assert play(proposer, 1) == []
    count = REFUSALS if algorithm == "random" else 4
    assert len(proposer.recorder.journal.refused) == count
    with pytest.raises(StudyFailed) as caught:
        proposer.check()
    smallest = proposer.cap.count(experiment.trial_config({"model.hidden_size": 8}))
    rule = f"each of {count:,} configurations in a row has more parameters, the smallest {smallest:,}"
    assert str(caught.value) == f"constraints.parameters: 1000: {rule}. Raise it, or let models be smaller."


def test_what_was_trained_before_the_search_was_given_up_is_kept(
    make: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer = proposer_of(make(), tmp_path / "trials.jsonl")
    monkeypatch.setattr(proposer.recorder, "finish", lambda: None)  # there is no checkpoint to export
    play(proposer, 2)
    proposer.cap = ParameterCap(100, proposer.cap.vocabulary_size)
    assert proposer.next_trial() is None

    def work() -> str:
        proposer.check()
        return "completed"

    recorder = proposer.recorder
    with pytest.raises(StudyFailed, match=f"What was trained until then is in {recorder.run.path}"):
        carry_out(work, recorder, load_corpus(proposer.experiment.task), "begins")
    summary = json.loads(recorder.run.summary.read_text())
    assert (summary["status"], summary["trials"]["total"]) == ("failed", 2)
    assert summary["trials"]["refused"] >= REFUSALS


def test_the_summary_and_the_closing_text_count_them(make: Callable[..., Experiment], tmp_path: Path) -> None:
    proposer = proposer_of(make(), tmp_path / "trials.jsonl")
    play(proposer, 12)
    recorder, data = proposer.recorder, load_corpus(proposer.experiment.task)
    refused = len(recorder.journal.refused)
    assert write_summary(recorder, data, "completed")["trials"]["refused"] == refused > 1
    best = recorder.journal.best_trial
    assert best is not None
    text = closing_text(recorder, best, _Sample())  # type: ignore[arg-type]
    assert f"  {refused} proposals were not trained, as models may have no more parameters than" in text


class _Sample:
    text = "a sample"


ENTRIES: Sequence[Callable[[Experiment], object]] = (run, train, check)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_a_fixed_model_above_the_cap_is_refused_before_anything_starts(
    make: Callable[..., Experiment], tmp_path: Path, entry: Callable[[Experiment], object]
) -> None:
    fixed = make(model={"embedding_size": 8, "hidden_size": 64}, regularizers={})
    parameters = ParameterCap.of(fixed, load_corpus(fixed.task)).count(fixed.trial_config({}))
    rule = rf"^constraints\.parameters: 10000: the model has more parameters, {parameters:,}\. Raise it, or"
    with pytest.raises(InputError, match=rule):
        entry(fixed)
    assert not list(tmp_path.iterdir())


def test_check_says_how_much_is_refused(make: Callable[..., Experiment]) -> None:
    text = check(make())
    (line,) = [line for line in text.splitlines() if line.startswith("  parameters")]
    assert line.endswith(" % of sampled configurations are over constraints.parameters, 10,000")
    share = int(line.split("; ")[1].split()[0])
    assert 40 <= share <= 60
    for constraints in ({"parameters": 1e6}, {}):
        assert "over constraints" not in check(make(constraints=constraints, budget={"epochs": 2, "hours": 1}))


@pytest.mark.parametrize("budget", [{"epochs": 2, "trials": 4}, {"epochs": 2, "hours": 1}])
def test_check_refuses_a_cap_below_every_model(make: Callable[..., Experiment], budget: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"^constraints\.parameters: 1000: each of 1,000 configurations in a row"):
        check(make(constraints={"parameters": 1000}, budget=budget))


def test_the_count_is_that_of_the_model(make: Callable[..., Experiment]) -> None:
    import torch

    from tune_rnn.model import initialise
    from tune_rnn.training import sizes_of

    experiment = make()
    data: Corpus = load_corpus(experiment.task)
    config = experiment.trial_config({"model.hidden_size": 16, "regularizers.input_dropout": 0.1})
    built = initialise(sizes_of(config, data.vocabulary.size), torch.Generator())
    assert ParameterCap.of(experiment, data).count(config) == sum(tensor.numel() for tensor in built.values())
