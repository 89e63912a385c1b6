"""The final stage without Ray: who is trained again, with what time, which is the best, and what an audit shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tune_rnn.checking import check
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment, Final
from tune_rnn.final import telling
from tune_rnn.final.audit import audit
from tune_rnn.final.findings import findings, section
from tune_rnn.final.planning import (
    amount_of,
    audited,
    candidates,
    final_experiment,
    final_seed,
    planned_trainings,
    trainings,
)
from tune_rnn.final.ranking import Candidate, difference, ranked, winner
from tune_rnn.final.stage import FinalStage
from tune_rnn.final.timing import final_seconds, makespan, seconds_left
from tune_rnn.report import Report, TrialBudget
from tune_rnn.results.journal import AUDIT, FINAL, SEARCH, Journal, TrialRecord
from tune_rnn.search import trial_seed
from tune_rnn.study.study import _check_final, _with_larger_budget, resume, run

NOW = 1_000_000.0


def experiment(**sections: Any) -> Experiment:
    whole: dict[str, Any] = {
        "name": "study",
        "model": {"hidden_size": {"int": [1, 100]}},
        "budget": {"epochs": 9, "trials": 9},
        "final": {"top_k": 2, "seeds": 3},
    }
    return Experiment(**whole | sections)


def a_report(spent: float, loss: float, best: float, finished: str = "") -> Report:
    return Report(spent, int(100 * spent), 1, loss, loss, best, 1e-3, 1.0, 1.0, 10.0, loss <= best, finished)


def add(journal: Journal, number: int, losses: Sequence[float], outcome: str = "") -> None:
    """A trial's reports after 1, 2, 3 … epochs, each of 10 seconds and with its checkpoint, and its end."""
    trial = journal.trials[number]
    best = trial.reports[-1].best_loss if trial.reports else None
    end = len(trial.reports) + len(losses) if outcome == "completed" else None
    for spent, loss in enumerate(losses, start=len(trial.reports) + 1):
        best = loss if best is None else min(best, loss)
        journal.report(number, a_report(spent, loss, best, "budget" if spent == end else ""))
        journal.checkpoint(number, f"ray/1/{number}")
    if outcome:
        journal.end(number, outcome, "")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A search of six trials, of which two were completed and three stopped after 1, 3 and 1 epochs; one diverged."""
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("sha", 2, NOW)
    searched: dict[int, tuple[list[float], str]] = {
        0: ([3.0, 2.5, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.45], "completed"),
        1: ([3.5], "stopped_early"),
        2: ([2.8, 2.4, 1.9, 1.8, 1.7, 1.6, 1.5, 1.45, 1.4], "completed"),
        3: ([2.9, 2.6, 2.2], "stopped_early"),
        4: ([3.2], "stopped_early"),
        5: ([0.1], "diverged"),
    }
    for number, (losses, outcome) in searched.items():
        (tmp_path / f"ray/1/{number}").mkdir(parents=True)
        journal.propose(number, trial_seed(0, number), {"model.hidden_size": number + 1}, {"number": number})
        add(journal, number, losses, outcome)
    return journal


def hand_out(stage: FinalStage, running: Sequence[int] = ()) -> list[TrialRecord]:
    """All that a stage hands out while the same trials run."""
    found = []
    while trial := stage.next(running):
        found.append(trial)
    return found


# Which is the best


def test_the_best_mean_wins_over_the_seeds_that_all_have() -> None:
    losses = {4: {1: 2.0, 2: 2.2, 3: 0.1}, 7: {1: 2.1, 2: 1.9}}
    order = ranked(losses)
    assert [(one.trial, one.mean) for one in order] == [(7, 2.0), (4, 2.1)]
    assert winner(losses) == 7
    assert order[0].std == pytest.approx(math.sqrt(0.02))


def test_nothing_wins_before_all_candidates_share_a_seed() -> None:
    assert winner({}) is None
    assert winner({4: {1: 2.0}, 7: {}}) is None
    assert winner({4: {1: 2.0}, 7: {2: 1.0}}) is None


def test_a_candidate_that_diverged_comes_after_those_that_did_not() -> None:
    order = ranked({1: {0: 1.0, 1: math.inf}, 2: {0: 5.0, 1: 5.0}, 3: {0: math.inf, 1: math.inf}})
    assert [one.trial for one in order] == [2, 1, 3]
    assert [one.diverged for one in order] == [0, 1, 2]
    assert order[2].mean is None
    assert winner({3: {0: math.inf}}) is None
    assert difference(order[0], order[1], 0) is None


def test_the_first_two_are_told_apart_where_all_seeds_agree_by_far() -> None:
    first = Candidate(0, {1: 1.00, 2: 1.10, 3: 1.20})
    apart = difference(first, Candidate(1, {1: 1.31, 2: 1.40, 3: 1.49}), 0)
    assert apart is not None
    assert apart.mean == pytest.approx(0.3)
    assert apart.told_apart
    mixed = difference(first, Candidate(1, {1: 0.99, 2: 1.20, 3: 1.30}), 0)
    assert mixed is not None
    assert not mixed.told_apart


def test_that_few_seeds_agree_on_the_sign_is_not_enough() -> None:
    """With three seeds that comes about in a quarter of cases where nothing differs, and the bootstrap believes it."""
    found = difference(Candidate(0, dict.fromkeys(range(3), 1.0)), Candidate(1, {0: 1.01, 1: 1.02, 2: 1.09}), 0)
    assert found is not None
    assert found.interval is not None
    assert found.interval[0] > 0
    assert not found.told_apart


# Who is trained again


def test_candidates_are_the_best_configurations_and_never_one_that_diverged(journal: Journal) -> None:
    assert [trial.number for trial in candidates(journal, 3)] == [2, 0, 3]
    assert len(candidates(journal, 99)) == 5


def test_a_configuration_of_several_trials_counts_once_with_their_mean(journal: Journal) -> None:
    journal.propose(6, 0, {"model.hidden_size": 1}, {})  # as trial 0, and its luck does not hold
    add(journal, 6, [3.0], "completed")
    assert [trial.number for trial in candidates(journal, 3)] == [2, 3, 0]


def test_every_candidate_is_trained_with_one_seed_before_any_is_with_the_next(journal: Journal) -> None:
    found = trainings(journal, experiment())
    assert [training.of for training in found] == [2, 0, 2, 0, 2, 0]
    seeds = [final_seed(0, index) for index in range(3)]
    assert [training.seed for training in found] == [seed for seed in seeds for _ in range(2)]
    assert {training.stage for training in found} == {FINAL}
    assert trainings(journal, experiment(final={"top_k": 0})) == []


def test_the_seeds_are_new_ones_and_follow_from_the_study_s() -> None:
    seeds = [final_seed(0, index) for index in range(100)]
    assert len(set(seeds)) == 100
    assert not set(seeds) & {trial_seed(0, number) for number in range(2000)}
    assert final_seed(1, 0) != final_seed(0, 0)


def test_audited_trials_are_drawn_from_those_that_the_scheduler_stopped(journal: Journal) -> None:
    journal.propose(6, 0, {"model.hidden_size": 50}, {})
    journal.report(6, a_report(2.0, 3.0, 3.0, "patience"))
    journal.checkpoint(6, "ray/1/6")
    journal.end(6, "stopped_early", "")
    drawn = [audited(journal, 2, seed) for seed in range(20)]
    assert {number for pair in drawn for number in pair} == {1, 3, 4}, "what patience ended was not stopped"
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert audited(journal, 2, 3) == audited(journal, 2, 3)
    assert sorted(audited(journal, 9, 0)) == [1, 3, 4]


def test_an_audited_trial_goes_on_from_its_checkpoint_with_its_own_seed(journal: Journal, tmp_path: Path) -> None:
    found = [one for one in trainings(journal, experiment(final={"audit": 3})) if one.stage == AUDIT]
    assert {one.of: (one.seed, one.inherits) for one in found} == {
        number: (trial_seed(0, number), reports) for number, reports in ((1, 1), (3, 3), (4, 1))
    }
    (tmp_path / "ray/1/3").rmdir()
    again = {one.of: one.inherits for one in trainings(journal, experiment(final={"audit": 3})) if one.stage == AUDIT}
    assert again == {1: 1, 3: 0, 4: 1}, "without a checkpoint it begins anew"


def test_how_many_trainings_there_may_be() -> None:
    assert planned_trainings(experiment()) == (6, 0)
    assert planned_trainings(experiment(final={"top_k": 3, "seeds": 5, "audit": 4})) == (15, 4)
    assert planned_trainings(experiment(budget={"epochs": 9, "trials": 2}, final={"top_k": 3, "audit": 4})) == (6, 1)
    assert planned_trainings(experiment(budget={"epochs": 9, "hours": 1}, final={"audit": 4})) == (9, 4)
    assert planned_trainings(experiment(model={}, final={"seeds": 5})) == (5, 0), "one configuration"
    assert planned_trainings(experiment(final={"top_k": 0, "audit": 4})) == (0, 0)
    grid: dict[str, Any] = {"model": {"hidden_size": {"grid": [8, 16]}}, "search": {"algorithm": "grid", "seeds": 3}}
    assert planned_trainings(experiment(**grid, final={"top_k": 5, "seeds": 2})) == (4, 0)
    grid["search"] |= {"start": [{"model": {"hidden_size": 16}}] * 3}
    assert planned_trainings(experiment(**grid, final={"top_k": 5, "seeds": 2})) == (4, 0), "they are of the grid"


@pytest.mark.parametrize(
    ("budget", "search", "top_k"),
    [
        ({}, {}, 1),
        ({"trials": 100}, {}, 1),
        ({"hours": 1}, {"start": [{"model": {"hidden_size": 8}}] * 4}, 2),
        ({"trials": 7}, {"start": [{"model": {"hidden_size": 8}}] * 4}, 1),
    ],
)
def test_a_small_grid_has_a_small_final_stage(budget: dict[str, Any], search: dict[str, Any], top_k: int) -> None:
    """Of four points, which end the search without `budget.trials`."""
    grid = {"budget": {"epochs": 9} | budget, "search": {"algorithm": "grid"} | search, "final": {}}
    found = experiment(model={"hidden_size": {"grid": [8, 16, 32, 64]}}, **grid)
    assert found.final == Final(top_k=top_k)
    assert planned_trainings(found) == (3 * top_k, 0)


def test_the_candidates_may_be_trained_for_longer() -> None:
    longer = experiment(final={"epochs": 20})
    assert TrialBudget.of(final_experiment(longer)).report_at[-1] == 20
    assert TrialBudget.of(final_experiment(experiment())) == TrialBudget.of(experiment())
    assert final_experiment(longer).final is None
    tokens = experiment(budget={"tokens": 1_000_000, "trials": 2}, final={"tokens": 3_000_000})
    assert final_experiment(tokens).budget.tokens == 3_000_000
    of_search, again = TrialRecord(0, 0, {}, {}), TrialRecord(1, 0, {}, {}, stage=FINAL, of=0)
    assert (amount_of(of_search, longer), amount_of(again, longer)) == (9, 20)


TOKENS = {"budget": {"tokens": 200_000, "trials": 9}, "final": {"tokens": 2_000_000}}
EPOCHS = {"budget": {"epochs": 0.5, "trials": 9}, "final": {"epochs": 2}}


@pytest.mark.parametrize(
    ("written", "first", "count"),
    [
        (TOKENS, 100_000, 20),
        (TOKENS | {"training": {"report_every": 30_000}}, 30_000, 67),
        (TOKENS | {"training": {"report_every": 40_000}, "scheduler": {"first_rung": 20_000}}, 20_000, 55),
        (EPOCHS, 1, 2),
        (EPOCHS | {"training": {"report_every": 0.25}}, 0.25, 8),
        (EPOCHS | {"training": {"report_every": 0.25}, "scheduler": {"first_rung": 0.1}}, 0.1, 11),
    ],
)
def test_a_longer_final_training_reports_at_the_same_amounts_in_every_session(
    written: dict[str, Any], first: float, count: int
) -> None:
    """Also where it is read from the run's own file, in which what was derived for the search is written."""
    study = experiment(**written)
    found = TrialBudget.of(final_experiment(study))
    assert (found.report_at[0], len(found.report_at)) == (first, count)
    assert TrialBudget.of(final_experiment(Experiment.from_yaml_text(study.to_yaml()))) == found


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ({"training": {"report_every": 1000}}, r"training\.report_every"),
        ({"scheduler": {"first_rung": 1000}}, r"scheduler\.first_rung"),
    ],
)
def test_reports_too_frequent_for_a_longer_final_training_are_refused_before_anything_begins(
    written: dict[str, Any], key: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = {
        "budget": {"tokens": 1_000_000, "trials": 9},
        "final": {"tokens": 20_000_000},
        "storage": tmp_path / "runs",
    }
    study = experiment(task={"corpus": str(corpus)}, **longer, **written)
    refused = rf"^final\.tokens: 20000000: {key} must be at least 1/10,000 of it\. Lower it, or raise {key}\.$"
    monkeypatch.setattr("tune_rnn.study.study.ray_session", lambda *_: pytest.fail("Ray is started"))
    for begin in (check, run):
        with pytest.raises(InputError, match=refused):
            begin(study)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "experiment.yaml").write_text(study.to_yaml())
    with pytest.raises(InputError, match=refused):
        resume(tmp_path)


# The stage at work


def test_the_stage_writes_down_all_and_hands_it_out_in_order(journal: Journal) -> None:
    stage = FinalStage(journal, experiment(final={"top_k": 2, "seeds": 2, "audit": 1}), 2, None)
    assert not stage.is_due()
    stage.begin()
    found = hand_out(stage)
    assert [(trial.number, trial.stage) for trial in found] == [*((n, FINAL) for n in (6, 7, 8, 9)), (10, AUDIT)]
    assert [trial.of for trial in found[:4]] == [2, 0, 2, 0]
    assert found[0].config == journal.trials[2].config
    assert Journal(journal.path).trials == journal.trials


def test_a_later_session_goes_on_and_runs_nothing_twice(journal: Journal) -> None:
    first = FinalStage(journal, experiment(), 2, None)
    first.begin()
    for loss, trial in enumerate(hand_out(first)[:3], start=1):
        add(journal, trial.number, [loss] * 9, "completed")
    add(journal, 9, [2.0, 1.9])
    again = Journal(journal.path)
    again.open_session("sha", 2, NOW)
    second = FinalStage(again, experiment(), 2, None)
    second.begin()
    found = hand_out(second)
    assert [(trial.number, trial.spent) for trial in found] == [(9, 2.0), (10, 0.0), (11, 0.0)]
    assert len(again.trials) == 12


def test_more_seeds_and_other_candidates_join_those_of_an_earlier_session(journal: Journal) -> None:
    FinalStage(journal, experiment(final={"top_k": 1, "seeds": 1}), 2, None).begin()
    add(journal, 6, [1.0] * 9, "completed")
    journal.propose(7, 0, {"model.hidden_size": 90}, {})
    add(journal, 7, [1.2] * 9, "completed")
    stage = FinalStage(journal, experiment(final={"top_k": 1, "seeds": 2}), 2, None)
    stage.begin()
    assert [(trial.of, trial.seed) for trial in hand_out(stage)] == [
        (7, final_seed(0, 0)),
        (2, final_seed(0, 1)),
        (7, final_seed(0, 1)),
    ]


def test_a_configuration_stays_one_candidate_where_another_of_its_trials_becomes_the_best(journal: Journal) -> None:
    FinalStage(journal, experiment(final={"top_k": 1, "seeds": 1}), 2, None).begin()
    add(journal, 6, [1.0] * 9, "completed")
    journal.propose(7, 0, {"model.hidden_size": 3}, {})  # as trial 2, and better
    add(journal, 7, [1.3] * 9, "completed")
    found = trainings(journal, experiment(final={"top_k": 2, "seeds": 1}))
    assert [training.of for training in found] == [2, 0]


def test_without_a_final_section_nothing_follows(journal: Journal) -> None:
    stage = FinalStage(journal, experiment(final={"top_k": 0}), 2, NOW)
    stage.begin()
    assert not stage.is_due()
    assert hand_out(stage) == []
    assert len(journal.trials) == 6


# Time


@pytest.mark.parametrize(
    ("busy", "jobs", "slots", "end"),
    [([], [], 2, 0), ([], [3, 3, 3], 2, 6), ([5], [3, 3], 2, 6), ([5, 1], [4], 2, 5), ([2, 9], [], 2, 0)],
)
def test_when_the_last_training_ends(busy: list[float], jobs: list[float], slots: int, end: float) -> None:
    assert makespan(busy, jobs, slots) == end


def test_the_stage_takes_as_long_as_full_trials_did(journal: Journal) -> None:
    """Reports of 10 seconds each: 9 epochs in 90 seconds, and what is around them."""
    one = 2 + 1.25 * 90
    assert seconds_left(journal.trials[0], journal, experiment()) == 2
    assert seconds_left(journal.trials[3], journal, experiment()) == 2 + 1.25 * 60
    assert final_seconds(journal, experiment(), slots=2) == pytest.approx(3 * one)
    longer = experiment(final={"top_k": 2, "seeds": 3, "epochs": 18})
    assert final_seconds(journal, longer, slots=6) == pytest.approx(2 + 1.25 * 180)
    assert final_seconds(journal, experiment(final={"top_k": 0}), slots=2) == 0


HOURS = {"epochs": 9, "trials": 9, "hours": 1}


@pytest.mark.parametrize(("left_s", "due"), [(3600, False), (400, False), (340, True), (10, True)])
def test_the_search_ends_early_enough(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, left_s: float, due: bool
) -> None:
    """Three rounds of 114.5 seconds, and a last report of 12.5."""
    monkeypatch.setattr("tune_rnn.final.stage.time.time", lambda: NOW)
    assert FinalStage(journal, experiment(budget=HOURS), 2, NOW + left_s).is_due() is due


@pytest.mark.parametrize(("final", "most_s"), [({}, 1812.5), ({"share": 0.7}, 2532.5)])
def test_the_stage_takes_at_most_its_share_of_the_hours(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, final: dict[str, Any], most_s: float
) -> None:
    """A last report of 12.5 seconds is waited for before the stage begins."""
    monkeypatch.setattr("tune_rnn.final.stage.time.time", lambda: NOW)
    many = experiment(budget=HOURS, final={"top_k": 5, "seeds": 99} | final)
    assert not FinalStage(journal, many, 2, NOW + most_s + 1).is_due()
    assert FinalStage(journal, many, 2, NOW + most_s - 1).is_due()


def test_thousands_of_reports_look_at_all_trials_only_now_and_then(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look of 20 ms at most every second, which is a fiftieth of the time, and the clock at every report."""
    clock, looks = [NOW], []

    def look(*_: object) -> float:
        clock[0] += 0.02
        looks.append(clock[0])
        return 100.0

    monkeypatch.setattr("tune_rnn.final.stage.final_seconds", look)
    monkeypatch.setattr("tune_rnn.final.stage.time.time", lambda: clock[0])
    monkeypatch.setattr("tune_rnn.final.stage.time.monotonic", lambda: clock[0])
    stage = FinalStage(journal, experiment(budget=HOURS), 2, NOW + 130)
    while not stage.is_due():
        clock[0] += 0.01
    assert NOW + 17.5 < clock[0] < NOW + 17.6, "100 seconds and a last report of 12.5"
    assert len(looks) == 18


def test_nothing_is_kept_before_anything_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.final.stage.time.time", lambda: NOW)
    assert not FinalStage(Journal(tmp_path / "new.jsonl"), experiment(budget=HOURS), 2, NOW + 1).is_due()


@pytest.mark.parametrize(("left_s", "rounds"), [(10, 1), (200, 1), (240, 2), (340, 2), (350, 3)])
def test_only_seeds_are_begun_that_can_be_completed_for_all(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, left_s: float, rounds: int
) -> None:
    clock = [NOW]
    monkeypatch.setattr("tune_rnn.final.stage.time.time", lambda: clock[0])
    stage = FinalStage(journal, experiment(budget=HOURS), 2, NOW + left_s)
    stage.begin()
    found = []
    while trial := stage.next(()):
        found.append(trial)
        clock[0] = NOW + len(found) // 2 * 114.5
    assert [trial.seed for trial in found] == [final_seed(0, index) for index in range(rounds) for _ in range(2)]


def test_what_runs_is_waited_for_and_an_audit_may_still_fit(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rnn.final.stage.time.time", lambda: NOW)
    audits = experiment(budget=HOURS, final={"top_k": 2, "seeds": 3, "audit": 3})
    stage = FinalStage(journal, audits, 2, NOW + 200)
    stage.begin()
    first, second = stage.next(()), stage.next([6])
    assert first is not None
    assert second is not None
    third = stage.next([first.number, second.number])
    assert third is not None
    assert (third.stage, third.of) == (AUDIT, 3), "60 seconds after 114.5; a whole round takes as long again"
    assert stage.next([first.number, second.number]) is None


# What was found


def trained(journal: Journal, losses: Mapping[int, Sequence[float]], study: Experiment) -> Journal:
    """A final stage whose trainings ended with these losses, in the order of seeds; inf: diverged, nan: failed."""
    stage = FinalStage(journal, study, 2, None)
    stage.begin()
    left = {of: list(values) for of, values in losses.items()}
    for trial in hand_out(stage):
        assert trial.of is not None
        if trial.stage != FINAL or not left[trial.of]:
            continue
        loss = left[trial.of].pop(0)
        if math.isfinite(loss):
            add(journal, trial.number, [loss] * 9, "completed")
        else:
            journal.report(trial.number, replace(a_report(1.0, 9.0, 9.0), validation_loss=None, best_loss=None))
            journal.end(trial.number, "failed" if math.isnan(loss) else "diverged", "why")
    return journal


def test_the_answer_is_the_best_seed_of_the_best_mean(journal: Journal) -> None:
    best = journal.best_trial
    assert best is not None
    assert best.number == 2, "the search's, whose luck does not hold"
    trained(journal, {2: [1.50, 1.52, 1.54], 0: [1.46, 1.44, 1.45]}, experiment())
    answer = journal.best_trial
    assert answer is not None
    assert (answer.number, answer.of, answer.stage, answer.best_loss) == (9, 0, FINAL, 1.44)


def test_before_a_seed_is_complete_the_answer_is_the_lowest_loss_also_of_what_was_cut_off(journal: Journal) -> None:
    trained(journal, {2: [1.3], 0: []}, experiment())
    assert journal.best_trial is journal.trials[6]
    add(journal, 7, [1.25] * 5)
    assert journal.best_trial is journal.trials[7]
    add(journal, 7, [1.35] * 4, "completed")
    assert journal.trials[7].best_loss == 1.25
    assert journal.best_trial is journal.trials[7]


def joined(journal: Journal, study: Experiment) -> list[TrialRecord]:
    """A later session's search finds one more configuration, trial 12, and the final stage begins again."""
    number = len(journal.trials)
    journal.propose(number, 0, {"model.hidden_size": 90}, {})
    add(journal, number, [1.3] * 9, "completed")
    stage = FinalStage(journal, study, 2, None)
    stage.begin()
    return hand_out(stage)


def test_a_candidate_that_joins_later_does_not_count_before_it_has_caught_up(journal: Journal) -> None:
    study = experiment()
    trained(journal, {2: [1.50, 1.52, 1.54], 0: [1.46, 1.44, 1.45]}, study)
    new = joined(journal, study)
    assert [trial.of for trial in new] == [12, 12, 12]
    for seeds, loss in enumerate([1.30, 1.31, 1.32]):
        found = findings(journal, study)
        assert found is not None
        assert journal.best_trial is journal.trials[9], "still the best seed of trial 0"
        assert ([one.trial for one in found.candidates], found.seeds, found.told_apart) == ([0, 2], 3, True)
        summary = section(found, journal, study)
        assert summary["winner"] == 0
        assert [(row["trial"], len(row["losses"])) for row in summary["incomplete"]] == [(12, seeds)]
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary
        told = telling.lines(found, journal, study, Path("run"))
        has = f"it has {seeds} of 3 seeds."
        assert f"Trial 12 joined later and is not compared before it has caught up; {has}" in told
        assert any("missing, 3 of 3 seeds complete for those compared: " in line for line in told)
        add(journal, new[seeds].number, [loss] * 9, "completed")
    found = findings(journal, study)
    assert found is not None
    assert ([one.trial for one in found.candidates], found.seeds, found.incomplete) == ([12, 0, 2], 3, [])
    assert journal.best_trial is new[0]


def test_seeds_that_all_are_asked_for_later_leave_out_nobody(journal: Journal) -> None:
    trained(journal, {2: [1.50, 1.52], 0: [1.46, 1.44]}, experiment(final={"top_k": 2, "seeds": 2}))
    more = experiment(final={"top_k": 2, "seeds": 3})
    new = joined(journal, more)
    assert [trial.of for trial in new] == [10, 10, 2, 0, 10]
    for trial in new[:4]:
        add(journal, trial.number, [1.3 if trial.of == 10 else 1.5] * 9, "completed")
    found = findings(journal, more)
    assert found is not None
    assert ([one.trial for one in found.candidates], found.seeds) == ([10, 0, 2], 2)


def test_one_seed_of_all_stays_the_answer_where_another_candidate_joins(journal: Journal) -> None:
    study = experiment(final={"top_k": 2, "seeds": 1})
    trained(journal, {2: [1.50], 0: [1.46]}, study)
    joined(journal, study)
    assert journal.best_trial is journal.trials[7], "and not the search's lowest loss"


def test_one_more_candidate_of_the_same_search_has_to_catch_up_as_well(journal: Journal) -> None:
    trained(journal, {2: [1.50, 1.52, 1.54], 0: [1.46, 1.44, 1.45]}, experiment())
    stage = FinalStage(journal, experiment(final={"top_k": 3, "seeds": 3}), 2, None)
    stage.begin()
    assert [trial.of for trial in hand_out(stage)] == [3, 3, 3]
    assert journal.best_trial is journal.trials[9]


def test_one_more_candidate_of_the_same_search_with_the_only_seed_has_to_catch_up_as_well(journal: Journal) -> None:
    trained(journal, {2: [1.50], 0: [1.46]}, experiment(final={"top_k": 2, "seeds": 1}))
    stage = FinalStage(journal, experiment(final={"top_k": 3, "seeds": 1}), 2, None)
    stage.begin()
    assert [trial.of for trial in hand_out(stage)] == [3]
    for known in (journal, Journal(journal.path)):
        best = known.best_trial
        assert best is not None
        assert best.number == 7


def test_an_audited_trial_is_never_the_answer(journal: Journal) -> None:
    number = journal.propose_again(of=3, stage=AUDIT, seed=journal.trials[3].seed, inherits=3).number
    add(journal, number, [0.5] * 6, "completed")
    assert journal.best_trial is journal.trials[2]


def test_the_findings_have_means_and_intervals_over_the_same_seeds(journal: Journal) -> None:
    study = experiment(search={"seed": 0})
    trained(journal, {2: [1.50, 1.52, 1.54], 0: [1.46, 1.44, 1.45]}, study)
    found = findings(journal, study)
    assert found is not None
    summary = section(found, journal, study)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["winner"], summary["seeds"], summary["asked"], summary["missing"]) == (0, 3, 3, 0)
    assert summary["epochs"] == 9
    first, second = summary["candidates"]
    assert (first["trial"], first["trials"], first["losses"]) == (0, [7, 9, 11], [1.46, 1.44, 1.45])
    assert first["seeds"] == second["seeds"] == [final_seed(0, index) for index in range(3)]
    assert first["mean"] == pytest.approx(1.45)
    assert first["std"] == pytest.approx(0.01)
    assert first["interval"] == pytest.approx([1.44, 1.46])
    assert first["search_loss"] == 1.45
    assert first["bits_per_character"] == pytest.approx(1.45 / math.log(2))
    assert summary["difference"]["mean"] == pytest.approx(0.07)
    assert summary["interval_holds"] == 0.75
    assert summary["told_apart"] is True
    assert summary["verdict"].startswith("Trial 0 is better than trial 2 by 0.0700 nats, 95 % interval +0.04")


@pytest.mark.parametrize(
    ("losses", "seeds", "missing", "told_apart", "verdict"),
    [
        ({2: [1.50, 1.52, 1.54], 0: [1.46, 1.58, 1.50]}, 3, 0, False, "With 3 seeds trials 0 and 2 cannot be told"),
        ({2: [1.0], 0: [2.0]}, 1, 4, False, "With 1 seed trials 2 and 0 cannot be told apart: that takes"),
        ({2: [1.0, math.inf], 0: [2.0, 2.0]}, 2, 2, None, "Trials 0 and 2 are not compared, as the latter diverged"),
        ({2: [1.0, math.nan, 1.0], 0: [2.0, 2.1, 2.2]}, 2, 1, None, ""),
        ({2: [1.0], 0: []}, 0, 5, None, "No seed is complete for all candidates"),
        ({2: [math.nan] * 3, 0: [2.0, 2.1, 2.2]}, 3, 3, None, ""),
    ],
)
def test_what_is_said_of_less(
    journal: Journal,
    losses: dict[int, list[float]],
    seeds: int,
    missing: int,
    told_apart: bool | None,
    verdict: str,
) -> None:
    trained(journal, losses, experiment())
    found = findings(journal, experiment())
    assert found is not None
    assert (found.seeds, found.missing) == (seeds, missing)
    assert found.verdict.startswith(verdict)
    if verdict:
        assert found.told_apart is told_apart
    assert json.dumps(section(found, journal, experiment()), allow_nan=False)
    assert telling.lines(found, journal, experiment(), Path("results/study"))


def test_a_single_configuration_has_a_mean_and_nothing_to_be_compared_with(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("sha", 1, NOW)
    journal.propose(0, 0, {}, {})
    add(journal, 0, [2.0] * 9, "completed")
    study = experiment(model={}, final={"seeds": 2})
    trained(journal, {0: [2.1, 2.3]}, study)
    found = findings(journal, study)
    assert found is not None
    assert (found.told_apart, found.verdict) == (None, "")
    assert found.candidates[0].mean == pytest.approx(2.2)


def test_the_closing_text_has_a_table_and_the_sentence(journal: Journal) -> None:
    trained(journal, {2: [1.50, 1.52, 1.54], 0: [1.46, 1.44, 1.45]}, experiment())
    found = findings(journal, experiment())
    assert found is not None
    assert telling.lines(found, journal, experiment(), Path("results/study")) == [
        "lowest validation loss of 3 new seeds each, 9 epochs, the best mean first",
        "configuration  mean    std     95 % interval     in the search",
        "of trial 0     1.4500  0.0100  1.4400 to 1.4600  1.4500",
        "of trial 2     1.5200  0.0200  1.5000 to 1.5400  1.4000",
        "Trial 0 is better than trial 2 by 0.0700 nats, 95 % interval +0.0400 to +0.0900.",
        "The best model is that of trial 9: trial 0 with the seed that went best.",
        "Over 3 seeds a bootstrap interval is narrow: it holds the true mean in 75 % of cases.",
    ]


def test_where_nothing_was_told_apart_the_text_says_what_may_help(journal: Journal) -> None:
    trained(journal, {2: [1.50, 1.52, 1.54], 0: [1.46, 1.58, 1.50]}, experiment())
    found = findings(journal, experiment())
    assert found is not None
    assert "More seeds may tell: `tune-rnn resume run final.seeds=6`." in telling.lines(
        found, journal, experiment(), Path("run")
    )


def test_without_a_final_stage_there_are_no_findings(journal: Journal) -> None:
    assert findings(journal, experiment(final={"top_k": 0})) is None


# The audit


def test_the_audit_counts_false_stops_and_correlates_rungs_with_the_end(journal: Journal) -> None:
    study = experiment(final={"top_k": 1, "seeds": 1, "audit": 3})
    FinalStage(journal, study, 2, None).begin()
    ends = {1: 2.5, 3: 1.35, 4: 1.42}
    for trial in journal.in_stage(AUDIT):
        assert trial.of is not None
        add(journal, trial.number, [2.0] * (8 - len(trial.reports)) + [ends[trial.of]], "completed")
    found = audit(journal, study)
    assert found is not None
    assert (found.asked, len(found.stopped), len(found.finished), found.kept) == (3, 3, 2, 1)
    assert found.threshold == 1.4, "of two that the search finished the better one is the best third, but at least one"
    assert [trial.of for trial in found.false_stops] == [3]
    assert found.share == pytest.approx(1 / 3)
    assert [trial.of for trial in found.would_have_won] == [3]
    # Trials 0 to 4: ranks 3, 5, 1, 2, 4 after 1 epoch, 3, 3, 1, 5, 3 after 3 and 4, 5, 2, 1, 3 at the end.
    (first, rho, trials), (third, later, _) = found.correlations
    assert (first, third, trials) == (1, 3, 5)
    assert rho == pytest.approx(0.8)
    assert later == pytest.approx(-2 / math.sqrt(8 * 10))
    told = found.to_dict("epochs")
    assert json.loads(json.dumps(told)) == told
    assert told["rank_correlation"][0] == {"epochs": 1, "spearman": pytest.approx(0.8), "trials": 5}
    assert {row["of"]: row["false_stop"] for row in told["trials"]} == {1: False, 3: True, 4: False}


def test_an_audit_says_what_is_missing(journal: Journal) -> None:
    study = experiment(final={"top_k": 1, "seeds": 1, "audit": 2})
    FinalStage(journal, study, 2, None).begin()
    found = audit(journal, study)
    assert found is not None
    assert (found.asked, len(found.stopped), found.share, found.interval) == (2, 0, None, None)
    told = findings(journal, study)
    assert told is not None
    assert "Audit: 0 of 2 trials asked for were trained to the end." in telling.lines(told, journal, study, Path("r"))


def test_what_an_audit_goes_on_from_counts_once(journal: Journal) -> None:
    before_s, before = journal.training_s, sum(trial.tokens for trial in journal.trials.values())
    trial = journal.propose_again(of=3, stage=AUDIT, seed=journal.trials[3].seed, inherits=3)
    assert (trial.spent, trial.spent_before, trial.checkpoint, trial.best_loss) == (3.0, 3.0, "ray/1/3", 2.2)
    assert (journal.training_s, trial.tokens) == (before_s, 0)
    add(journal, trial.number, [2.3, 2.1])
    assert trial.best_loss == 2.1
    assert journal.training_s == before_s + 20
    assert sum(one.tokens for one in journal.trials.values()) == before + 200
    again = Journal(journal.path)
    assert again.trials == journal.trials
    again.open_session("sha", 1, NOW)
    assert again.trials[trial.number].reports[:3] == journal.trials[3].reports


def test_trials_of_later_stages_are_marked_in_the_journal(journal: Journal) -> None:
    FinalStage(journal, experiment(final={"top_k": 1, "seeds": 1, "audit": 1}), 2, None).begin()
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    proposed = [line for line in lines if line["event"] == "proposed"]
    assert [line.get("stage", SEARCH) for line in proposed] == [SEARCH] * 6 + [FINAL, AUDIT]
    assert [line.get("of") for line in proposed[:7]] == [None] * 6 + [2]


def test_a_final_stage_that_is_off_cannot_be_changed_but_switched_on() -> None:
    off = experiment(final={"top_k": 0, "seeds": 5})
    with pytest.raises(InputError, match=r"^final\.seeds: there is no final stage, as final\.top_k is 0\. Add final"):
        _with_larger_budget(off, ["final.seeds=2"])
    assert _with_larger_budget(off, ["final.top_k=0", "final.seeds=2"]).final is None
    assert planned_trainings(_with_larger_budget(off, ["final.seeds=2", "final.top_k=3"])) == (6, 0)


def test_a_final_stage_that_has_begun_keeps_its_length(journal: Journal) -> None:
    before, longer = experiment(), experiment(final={"top_k": 2, "seeds": 3, "epochs": 12})
    _check_final(before, longer, journal)
    trained(journal, {2: [1.5], 0: [1.5]}, before)
    _check_final(before, experiment(final={"seeds": 9}), journal)
    _check_final(before, experiment(final={"top_k": 0}), journal)
    with pytest.raises(InputError, match=r"^final\.seeds: 1: was \d, and the final stage has begun with so many"):
        _check_final(before, experiment(final={"seeds": 1}), journal)
    for off in (before, experiment(final={"top_k": 0})):
        with pytest.raises(InputError, match=r"^final\.epochs: 12\.0: was 9, and the final stage has begun with that"):
            _check_final(off, longer, journal)
