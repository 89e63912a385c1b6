"""Population based training: who takes over from whom, what mutates, and a population at work without Ray."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn import space
from tune_rnn.checking import _full_trials, _stopping
from tune_rnn.constraints import ParameterCap
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.population import FACTORS, mutable, mutate, perturb, source
from tune_rnn.report import Report
from tune_rnn.results.journal import Journal, TrialRecord, outcome_of
from tune_rnn.search import build_searcher
from tune_rnn.simulation import Synthetic, simulate
from tune_rnn.single import Rerun
from tune_rnn.space import Space
from tune_rnn.study.population import Population
from tune_rnn.study.proposing import Proposer

NUMERIC = {
    "uniform": space.uniform(0, 0.5),
    "uniform with steps": space.uniform(0, 0.5, 0.05),
    "log_uniform": space.log_uniform(1e-8, 1e-1),
    "int": space.int(0, 6),
    "int with steps": space.int(1, 9, 3),
    "log_int": space.log_int(1, 1000),
    "normal": space.normal(0.2, 0.1, 0, 0.9),
}
RATE, DECAY, SIZE = "training.learning_rate", "regularizers.weight_decay", "model.hidden_size"


class TestMutation:
    @pytest.mark.parametrize("name", NUMERIC)
    @given(u=st.floats(0, 1), factor=st.sampled_from(FACTORS))
    def test_a_value_stays_within_its_distribution_and_of_its_type(self, name: str, u: float, factor: float) -> None:
        distribution = NUMERIC[name]
        before: Any = distribution.from_unit(u)
        after: Any = perturb(distribution, before, factor)
        assert type(after) is type(before)
        distribution.to_unit(after)  # raises ValueError for what is none of its values
        assert after >= before if factor > 1 else after <= before
        if (values := distribution.values()) is not None:
            end = values[-1] if factor > 1 else values[0]
            assert (after == before) == (before == end), "at least one step, unless it stands at the end"

    @pytest.mark.parametrize(
        ("name", "value", "factor", "expected"),
        [
            ("uniform", 0.2, 1.2, 0.24),
            ("uniform", 0.45, 1.2, 0.5),
            ("uniform", 0.0, 1.2, 0.0),
            ("uniform with steps", 0.4, 1.2, 0.5),
            ("uniform with steps", 0.1, 0.8, 0.05),
            ("uniform with steps", 0.0, 0.8, 0.0),
            ("log_uniform", 1e-3, 0.8, 8e-4),
            ("log_uniform", 9e-2, 1.2, 1e-1),
            ("int", 1, 1.2, 2),
            ("int", 1, 0.8, 0),
            ("int with steps", 4, 1.2, 7),
            ("log_int", 100, 1.2, 120),
        ],
    )
    def test_examples(self, name: str, value: float, factor: float, expected: float) -> None:
        assert perturb(NUMERIC[name], value, factor) == pytest.approx(expected, rel=1e-12)

    @given(seed=st.integers(0, 10_000))
    def test_a_branch_mutates_in_its_own_distribution_and_the_rest_stays(self, seed: int) -> None:
        searched = Space(
            {SIZE: space.int(8, 64), DECAY: space.log_uniform(1e-3, 1), "regularizers.clip_norm": space.choice(0, 1)},
            {"sgd": {RATE: space.log_uniform(1, 100)}, "adam": {RATE: space.log_uniform(1e-4, 1e-2)}},
        )
        generator = np.random.default_rng(seed)
        before = searched.sample(generator)
        after = mutate(before, searched, generator)
        assert searched.allows(after, before["one_of"])
        assert {key for key in after if after[key] != before[key]} <= {RATE, DECAY}

    def test_a_quarter_of_the_values_is_drawn_anew(self) -> None:
        searched = Space({RATE: space.log_uniform(1e-6, 1)}, {})
        generator = np.random.default_rng(0)
        ratios = [mutate({RATE: 1e-3}, searched, generator)[RATE] / 1e-3 for _ in range(2000)]
        shares = [np.mean([math.isclose(ratio, factor) for ratio in ratios]) for factor in FACTORS]
        assert shares == pytest.approx([0.375, 0.375], abs=0.03)

    def test_averages_and_choices_are_not_mutated(self) -> None:
        keys = {
            RATE: space.log_uniform(1e-3, 1),
            "regularizers.swa": space.uniform(0, 0.5),
            "regularizers.l2": space.choice(0, 0.1),
            "regularizers.input_dropout": space.uniform(0, 0.5),
            "training.batch_size": space.int(8, 64),
        }
        assert list(mutable(Space(keys, {}), None)) == [RATE, "regularizers.input_dropout"]


class TestSource:
    @given(losses=st.lists(st.floats(0, 10) | st.just(math.inf), min_size=1, max_size=20), seed=st.integers(0, 99))
    def test_the_worst_quarter_takes_over_from_the_best(self, losses: list[float], seed: int) -> None:
        known = dict(enumerate(losses))
        ranked = sorted(known, key=lambda one: (known[one], one))
        quarter = len(ranked) // 4
        for place, number in enumerate(ranked):
            found = source(number, known, list(known), np.random.default_rng(seed))
            is_replaced = place >= len(ranked) - quarter or math.isinf(known[number])
            if is_replaced and math.isfinite(min(losses)):
                assert found in ranked[: max(1, quarter)]
                assert math.isfinite(known[found or 0])
            else:
                assert found is None

    def test_weights_that_are_gone_are_not_taken_over(self) -> None:
        losses = {number: float(number) for number in range(8)}
        assert {source(7, losses, [1], np.random.default_rng(seed)) for seed in range(20)} == {1}
        assert source(7, losses, [2, 3], np.random.default_rng(0)) is None


def experiment() -> Experiment:
    return Experiment(
        name="study",
        model={"hidden_size": space.int(8, 64)},
        regularizers={"weight_decay": space.log_uniform(1e-3, 1)},
        training={"learning_rate": space.log_uniform(1e-4, 1)},
        budget={"epochs": 4, "trials": 8},
        search={"algorithm": "random", "seed": 3},
        scheduler={"algorithm": "pbt", "first_rung": 1},
    )


class Recorded:
    """What a population asks of a recorder."""

    def __init__(self, path: Path, study: Experiment) -> None:
        self.run, self.journal, self.study = SimpleNamespace(path=path), Journal(path / "trials.jsonl"), study
        self.journal.open_session("sha", 2, 0.0)
        self.proposed, self.took_over = self.journal.propose, self.journal.take_over

    def ended(self, number: int) -> None:
        self.journal.end(number, *outcome_of(self.journal.trials[number].reports[-1], "epochs"))


class Played:
    """A population whose trials train at once: a leg is a report and a checkpoint.

    A trial's loss falls towards the distance of its learning rate from 0.01, unless `losses` says another one for its
    number and what it has spent; `diverges` says who does at once, `impatient` whose patience ends with its first leg.
    """

    def __init__(
        self,
        path: Path,
        diverges: tuple[int, ...] = (),
        losses: dict[tuple[int, float], float] | None = None,
        impatient: tuple[int, ...] = (),
    ) -> None:
        self.path, self.diverges, self.losses, self.impatient = path, diverges, losses or {}, impatient
        study = experiment()
        self.recorder = Recorded(path, study)
        self.journal: Journal = self.recorder.journal
        proposer = Proposer(build_searcher(study.search, study.space), self.recorder, study, ParameterCap(None, 50))  # type: ignore[arg-type]
        self.population = Population(proposer)
        self.begun: list[tuple[int, float]] = []

    def begin(self, running: list[int]) -> bool:
        trial = self.population.next(running)
        if trial is not None:
            running.append(trial.number)
            self.begun.append((trial.number, trial.spent))
        return trial is not None

    def finish(self, number: int) -> None:
        trial = self.journal.trials[number]
        spent = math.floor(trial.spent) + 1.0
        diverged = number in self.diverges and not trial.taken_over
        usual = abs(math.log10(trial.config["training"]["learning_rate"] / 0.01)) + 1 / spent
        loss = self.losses.get((number, spent), usual)
        ending = "diverged" if diverged else "budget" if spent == 4 else "patience" if number in self.impatient else ""
        best = min([loss, *([trial.best_loss] if trial.best_loss else [])])
        self.journal.report(number, a_report(spent, loss, best, ending))
        folder = self.path / f"trial_{number}_{spent}"
        folder.mkdir()
        self.journal.checkpoint(number, folder.name)
        if not self.population.waits(number):
            self.recorder.ended(number)

    def play(self, slots: int, legs: int = 1000) -> Played:
        running: list[int] = []
        for _ in range(legs):
            while len(running) < slots and self.begin(running):
                pass
            if not running:
                break
            self.finish(running.pop(0))
        return self

    def story(self) -> list[tuple[Any, ...]]:
        return [(one.config, one.reports, one.earlier, one.outcome) for one in self.journal.trials.values()]


def a_report(spent: float, loss: float, best: float, finished: str = "") -> Report:
    diverged = finished == "diverged"
    shown = None if diverged else loss
    numbers = (0.1, 1.0, 1.0, 1.0)
    return Report(spent, int(1000 * spent), int(10 * spent), shown, shown, best, *numbers, loss <= best, finished)


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_a_population_trains_together_and_gets_better(tmp_path: Path, slots: int) -> None:
    played = Played(tmp_path).play(slots)
    trials = played.journal.trials.values()
    assert [one.outcome for one in trials] == ["completed"] * 8
    assert sum(one.taken_over for one in trials) >= 3
    legs = [spent for _, spent in played.begun]
    assert sorted(legs) == [leg for leg in (0.0, 1.0, 2.0, 3.0) for _ in range(8)], "each trial has each leg once"
    if slots < 8:
        assert legs == sorted(legs)
    first = [one.own_reports[0].validation_loss for one in trials]
    last = [one.reports[-1].validation_loss for one in trials]
    assert max(one or 9.0 for one in last) < np.median([one or 9.0 for one in first])
    best = played.journal.best_trial
    assert best is not None
    assert best.best_loss == min(one.best_loss or 9.0 for one in trials)


def test_what_is_taken_over_is_the_whole_configuration_and_the_way_to_it(tmp_path: Path) -> None:
    played = Played(tmp_path).play(2)
    for one in played.journal.trials.values():
        assert one.number == 0 or one.seed != played.journal.trials[0].seed
        spent = [report.spent for report in one.reports]
        assert spent == [1.0, 2.0, 3.0, 4.0], "of its weights, whoever trained them"
        assert len(one.own_reports) == 4
        assert one.tokens == 4000, "what it has processed itself"
        for stretch in one.earlier:
            assert stretch.config["model"] == one.config["model"], "weights fit this architecture alone"
            assert 0 < stretch.until < 4
    assert any(one.earlier for one in played.journal.trials.values())


def test_no_checkpoints_are_left_but_the_last_ones(tmp_path: Path) -> None:
    played = Played(tmp_path).play(2)
    left = {file.name for file in tmp_path.iterdir() if file.is_dir()}
    assert left == {one.checkpoint for one in played.journal.trials.values()}


@pytest.mark.parametrize("legs", range(1, 31, 3))
def test_an_interrupted_population_goes_on_as_if_it_had_not_been(tmp_path: Path, legs: int) -> None:
    (tmp_path / "straight").mkdir()
    straight = Played(tmp_path / "straight").play(1)
    (tmp_path / "twice").mkdir()
    Played(tmp_path / "twice").play(1, legs)
    again = Played(tmp_path / "twice").play(1)
    assert [one[0] for one in again.story()] == [one[0] for one in straight.story()]
    assert again.story() == straight.story()
    assert Played(tmp_path / "twice").play(1).begun == [], "nothing is left to do"


def test_a_trial_that_took_over_and_was_interrupted_goes_on_with_its_new_values(tmp_path: Path) -> None:
    played = Played(tmp_path)
    running: list[int] = []
    while not any(one.taken_over for one in played.journal.trials.values()):
        for number in running:
            played.finish(number)
        running = []
        played.begin(running)
    (number,) = running  # begun, and nothing reported since
    config = played.journal.trials[number].config
    again = Played(tmp_path)
    trial = again.journal.trials[number]
    assert (trial.config, trial.taken_over, trial.outcome) == (config, 1, "")
    again.play(1)
    assert again.journal.trials[number].earlier
    assert next(spent for one, spent in again.begun if one == number) == 1.0


def test_a_diverged_trial_is_replaced(tmp_path: Path) -> None:
    played = Played(tmp_path, diverges=(0, 1, 2)).play(2)
    trials = played.journal.trials
    assert [one.outcome for one in trials.values()] == ["completed"] * 8
    assert all(trials[number].taken_over for number in (0, 1, 2))
    assert Journal(played.journal.path).trials.keys() == trials.keys()


def test_a_diverged_trial_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    Played(tmp_path, diverges=(0,)).play(1, legs=3)
    again = Played(tmp_path)
    assert again.journal.trials[0].outcome == "diverged", "as the journal's readers know it"
    again.play(1)
    assert again.journal.trials[0].outcome == "completed"


def test_a_trial_that_patience_ended_has_ended_and_nobody_takes_over_its_end(tmp_path: Path) -> None:
    losses = {(number, 1.0): 1e-3 * (number + 1) for number in (0, 1)}
    played = Played(tmp_path, losses=losses, impatient=(0,)).play(1)
    trials = list(played.journal.trials.values())
    assert [one.outcome for one in trials] == ["stopped_early"] + ["completed"] * 7
    assert 0 not in [stretch.trial for one in trials for stretch in one.earlier]
    assert 1 in [stretch.trial for one in trials for stretch in one.earlier]


def test_where_all_diverge_nobody_is_replaced(tmp_path: Path) -> None:
    played = Played(tmp_path, diverges=tuple(range(8))).play(2)
    assert [one.outcome for one in played.journal.trials.values()] == ["diverged"] * 8
    assert played.journal.best_trial is None


def test_a_population_goes_on_without_a_trial_that_failed_and_a_new_session_tries_it_again(tmp_path: Path) -> None:
    played = Played(tmp_path).play(2, legs=12)
    number, _ = played.begun[-1]
    played.journal.end(number, "failed", "its process was killed")
    played.play(2)
    outcomes = [one.outcome for one in played.journal.trials.values()]
    assert (outcomes.count("completed"), outcomes.count("failed")) == (7, 1)
    again = Played(tmp_path).play(2)
    assert {number for number, _ in again.begun} == {number}
    assert [one.outcome for one in again.journal.trials.values()] == ["completed"] * 8


def test_the_holder_of_the_lowest_loss_is_never_replaced(tmp_path: Path) -> None:
    losses = {(5, 1.0): 1e-3, (5, 2.0): 99.0, (6, 1.0): 98.0}
    played = Played(tmp_path, losses=losses).play(2)
    assert played.journal.best_trial is played.journal.trials[5]
    assert played.journal.trials[5].taken_over == 0
    assert played.journal.trials[6].taken_over > 0


def test_the_best_model_names_the_configuration_that_trained_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("sha", 1, 0.0)
    for number in (0, 1):
        journal.propose(number, number, {RATE: 0.1 + number}, {"rate": number})
        journal.report(number, a_report(1.0, 3.0 - number, 3.0 - number))
        journal.checkpoint(number, f"checkpoint_{number}")
    journal.take_over(0, 1, 1.0, {RATE: 0.5}, {"rate": "new"})
    taken: TrialRecord = journal.trials[0]
    assert taken.best_loss == 2.0
    assert taken.best_stretch.config == {"rate": 1}
    assert journal.best_trial is journal.trials[1], "which trained to it"
    journal.report(0, a_report(2.0, 1.0, 1.0))
    journal.checkpoint(0, "checkpoint_2")
    assert journal.best_trial is taken
    assert taken.best_stretch.config == {"rate": "new"}
    assert journal.training_s == 3.0


def test_check_counts_whole_trials_and_says_how_often() -> None:
    assert _full_trials(experiment(), 8) == 8.0
    assert _stopping(experiment()) == "none; pbt: the worst quarter takes over from the best quarter every 1 epoch"


def test_a_simulation_refuses_it() -> None:
    with pytest.raises(InputError, match=r"^scheduler.algorithm: 'pbt': changes configurations while they train"):
        simulate("random", "pbt", Synthetic("noisy"), workers=2, budget=4)


def test_with_nothing_to_search_there_is_no_population() -> None:
    alone = Experiment(name="x", budget={"epochs": 2}, scheduler={"algorithm": "pbt"})
    assert not alone.has_population


@pytest.mark.parametrize("which", ["", ":0"])
def test_a_trial_that_took_over_cannot_be_run_again(tmp_path: Path, which: str) -> None:
    study = experiment()
    (tmp_path / "experiment.yaml").write_text(study.to_yaml())
    journal = Journal(tmp_path / "trials.jsonl")
    journal.open_session("sha", 1, 0.0)
    generator = np.random.default_rng(0)
    for number in (0, 1):
        drawn = study.space.sample(generator)
        journal.propose(number, number, drawn, study.trial_config(drawn).to_dict())
        journal.report(number, a_report(1.0, 3.0 - number, 3.0 - number))
        journal.checkpoint(number, f"checkpoint_{number}")
    drawn = study.space.sample(generator)
    journal.take_over(0, 1, 1.0, drawn, study.trial_config(drawn).to_dict())
    journal.report(0, a_report(2.0, 1.0, 1.0))
    journal.checkpoint(0, "checkpoint_2")
    with pytest.raises(InputError, match=r"trial 0 went on from another's weights: 2 configurations") as caught:
        Rerun.of(f"{tmp_path}{which}")
    command = str(caught.value).split("`")[1].split()
    assert command[:2] == ["tune-rnn", "train"]
    again = Experiment.load(command[2], command[3:])
    assert again.unfixed == []
    assert again.trial_config({}) == study.trial_config(drawn)
