"""Schedulers: which trials go on."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler

from tune_rnn.rungs import rungs, rungs_of
from tune_rnn.schedulers import (
    Asha,
    ExpectantAsha,
    Hyperband,
    Median,
    RunAll,
    Scheduler,
    Yardstick,
    build_scheduler,
)
from tune_rnn.schema import Scheduler as Settings
from tune_rnn.search import Evidence

NAMES = ["asha", "hyperband", "median", "none"]


def scheduler_of(algorithm: str, first: float = 1.0, factor: float = 3.0, amount: float = 9.0) -> Scheduler:
    settings = Settings(algorithm=algorithm, first_rung=first, reduction_factor=factor)  # type: ignore[arg-type]
    evidence = Evidence()
    return Informed(build_scheduler(settings, amount, evidence), evidence)


class Informed:
    """A scheduler whose evidence is told each report before it is asked, as a study does."""

    def __init__(self, scheduler: Scheduler, evidence: Evidence) -> None:
        self.scheduler, self.evidence = scheduler, evidence

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        if number not in self.evidence.trials:
            self.evidence.begin(number, {})
        self.evidence.report(number, spent, score)
        return self.scheduler.goes_on(number, spent, score)


def play(scheduler: Scheduler, curves: np.ndarray[Any, Any], order: list[int]) -> list[tuple[int, int]]:
    """Trials report one unit each time they come up in `order`; returns the number and the unit of each stop."""
    spent = dict.fromkeys(range(len(curves)), 0)
    stopped: list[tuple[int, int]] = []
    for number in order:
        if spent[number] == curves.shape[1] or number in [one for one, _ in stopped]:
            continue
        spent[number] += 1
        lowest = float(curves[number, : spent[number]].min())
        if not scheduler.goes_on(number, float(spent[number]), lowest):
            stopped.append((number, spent[number]))
    return stopped


class Rays:
    """Ray's own ASHA, asked as ours is."""

    def __init__(self, factor: float, amount: int) -> None:
        self.scheduler = ASHAScheduler(
            time_attr="spent", metric="score", mode="min", grace_period=1, max_t=amount, reduction_factor=factor
        )
        self.added: set[int] = set()

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        trial: Any = SimpleNamespace(trial_id=number)
        controller: Any = None
        if number not in self.added:
            self.added.add(number)
            self.scheduler.on_trial_add(controller, trial)
        if spent >= 27:  # our trials end by themselves
            return True
        return self.scheduler.on_trial_result(controller, trial, {"spent": spent, "score": score}) == "CONTINUE"


@given(st.integers(0, 10_000), st.sampled_from([2.0, 3.0, 4.0]))
def test_asha_stops_whom_rays_asha_stops(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    curves = rng.random((20, 27)).cumsum(axis=1)[:, ::-1]
    order = rng.permutation(np.repeat(np.arange(20), 27)).tolist()
    ours = play(Asha(rungs(1.0, factor, 27.0), factor), curves, order)
    assert ours == play(Rays(factor, 27), curves, order)
    assert ours, "somebody is stopped"


def test_rungs_are_powers_below_the_whole_budget() -> None:
    assert rungs(1.0, 3.0, 27.0) == [1, 3, 9]
    assert rungs(1.0, 3.0, 28.0) == [1, 3, 9, 27]
    assert rungs(0.5, 2.0, 0.5) == []
    assert rungs(1000.0, 4.0, 20_000.0) == [1000, 4000, 16_000]


def test_a_populations_legs_end_at_every_interval_but_the_last() -> None:
    settings = Settings(algorithm="pbt", first_rung=0.1)
    budgets = rungs_of(settings, 0.3)
    assert budgets == pytest.approx([0.1, 0.2])
    legs = build_scheduler(settings, 0.3, Evidence())
    assert [legs.goes_on(0, spent, 1.0) for spent in (0.05, *budgets, 0.3)] == [True, False, False, True]


def test_a_worse_trial_is_stopped_at_its_rung_and_not_between() -> None:
    scheduler = scheduler_of("asha")
    for number, loss in enumerate([1.0, 1.1, 1.2]):
        scheduler.goes_on(number, 1.0, loss)
    assert not scheduler.goes_on(3, 1.0, 3.0)
    assert scheduler.goes_on(4, 1.0, 0.9)
    assert scheduler.goes_on(4, 2.0, 3.9)


def test_no_trial_enters_a_rung_twice() -> None:
    scheduler = Asha([1.0], 3.0)
    assert [scheduler.goes_on(0, spent, 1.0) for spent in (1.0, 1.0, 2.0)] == [True, True, True]
    assert scheduler.rungs[0][1].scores == [1.0]


def test_from_the_last_rung_on_a_trial_must_not_be_above_the_best_that_came_to_the_end() -> None:
    scheduler = Yardstick(RunAll(), first=3.0, amount=6.0)
    side_by_side = np.array([[5.0, 4.0, 3.0, 2.5, 2.0, 1.0], [5.0, 4.0, 2.0, 1.9, 1.8, 1.7]])
    assert not play(scheduler, side_by_side, [0, 1] * 6), "while they run there is nothing to measure by"
    assert all(scheduler.goes_on(2, spent, 9.0) for spent in (1.0, 2.0)), "before the last rung"
    assert scheduler.goes_on(2, 3.0, 3.0), "the best had no less here"
    assert scheduler.goes_on(2, 3.5, 9.0), "where the best did not report nobody is measured"
    assert not scheduler.goes_on(2, 4.0, 2.6)


def test_a_trial_that_was_above_the_best_when_told_again_may_have_become_the_best() -> None:
    """A resumed study tells of whole trials one after another, though the second had passed before the first ended."""
    whole = [5.0, 4.0, 2.0, 1.9], [5.0, 4.0, 2.5, 1.0]
    side_by_side, again = Yardstick(RunAll(), 1.0, 4.0), Yardstick(RunAll(), 1.0, 4.0)
    assert not play(side_by_side, np.array(whole), [0, 1] * 4)
    for number, losses in enumerate(whole):
        for spent, score in enumerate(losses, start=1):
            again.goes_on(number, float(spent), score)
    assert again.best == side_by_side.best == dict(zip((1.0, 2.0, 3.0, 4.0), whole[1], strict=True))


def test_asha_has_the_best_curve_as_its_yardstick() -> None:
    scheduler = scheduler_of("asha", factor=3.0, amount=9.0)
    whole = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert all(scheduler.goes_on(0, spent, score) for spent, score in enumerate(whole, start=1))
    better = [score - 1 for score in whole[:4]]
    assert all(scheduler.goes_on(1, spent, score) for spent, score in enumerate(better, start=1))
    assert not scheduler.goes_on(1, 5.0, 5.1)


def test_asha_lets_go_on_what_begins_slowly_where_such_trials_end_well() -> None:
    """A high x begins low and ends high; after enough of both, a trial of low x passes the first rung nevertheless."""
    evidence = Evidence(features=lambda assignment: (assignment["x"] - 0.5,))
    scheduler = ExpectantAsha([1.0], 3.0, evidence)
    for number in range(40):
        x = number / 39
        evidence.begin(number, {"x": x})
        for spent in (1.0, 9.0):
            evidence.report(number, spent, 5 - 2 * x if spent == 1 else 3 * x)
    for number, x in ((50, 0.05), (51, 0.95)):
        evidence.begin(number, {"x": x})
        evidence.report(number, 1.0, 5 - 2 * x)
    assert scheduler.goes_on(50, 1.0, 4.9)
    assert not scheduler.goes_on(51, 1.0, 3.1)
    assert scheduler.goes_on(51, 1.0, 3.1), "nobody enters a rung twice"


def test_hyperband_gives_every_bracket_its_share_and_the_last_one_no_rung() -> None:
    scheduler = Hyperband([1.0, 3.0, 9.0], 3.0)
    taken = [scheduler.brackets.index(scheduler.bracket(number)) for number in range(300)]
    counts = np.bincount(taken, minlength=4)
    assert counts / 300 == pytest.approx(scheduler.shares, abs=0.01)
    assert list(counts) == sorted(counts, reverse=True)
    whole = [number for number, bracket in enumerate(taken) if bracket == 3]
    assert all(scheduler.goes_on(number, spent, 1e9) for number in whole for spent in (1.0, 3.0, 9.0))


def test_the_median_rule_compares_with_means_up_to_the_same_budget() -> None:
    scheduler = Median(first=2.0, least=3)
    for number, losses in enumerate([(4.0, 2.0), (5.0, 3.0), (6.0, 4.0)]):
        for spent, loss in enumerate(losses, start=1):
            assert scheduler.goes_on(number, float(spent), loss)
    assert scheduler.goes_on(3, 1.0, 9.0), "before the first rung"
    assert not scheduler.goes_on(3, 2.0, 4.1), "the median of the means 3, 4 and 5 is 4"
    assert scheduler.goes_on(4, 1.0, 9.0)
    assert scheduler.goes_on(4, 2.0, 3.9)


@pytest.mark.parametrize("algorithm", NAMES)
class TestEveryScheduler:
    def test_the_best_of_all_is_never_stopped(self, algorithm: str) -> None:
        rng = np.random.default_rng(2)
        curves = 1 + rng.random((30, 9))
        curves[17] = 0.5
        stopped = play(scheduler_of(algorithm), curves, rng.permutation(np.repeat(np.arange(30), 9)).tolist())
        assert 17 not in [number for number, _ in stopped]
        assert bool(stopped) == (algorithm != "none")

    def test_huge_losses_are_only_bad_ones(self, algorithm: str) -> None:
        scheduler = scheduler_of(algorithm)
        for number in range(10):
            scheduler.goes_on(number, 1.0, 1e300 if number % 2 else 1.0)
        assert scheduler.goes_on(10, 1.0, 0.5)
        assert not math.isnan(float(scheduler.goes_on(11, 1.0, 1e300)))
