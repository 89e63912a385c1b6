"""Searchers: what they propose depends on the seed, the trial's number and the results, and on nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from tune_rnn import space
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.search import (
    Assignment,
    GridSearcher,
    HyperOptSearcher,
    Proposal,
    RandomSearcher,
    Searcher,
    build_searcher,
    planned_trials,
    trial_seed,
)
from tune_rnn.space import Distribution, Space

SHARED: dict[str, Distribution] = {
    "model.cell": space.choice("lstm", "gru"),
    "model.tied": space.choice(True, False),
    "model.hidden_size": space.int(64, 512, 64),
    "model.embedding_size": space.log_int(8, 128),
    "regularizers.input_dropout": space.uniform(0, 0.5, 0.05),
    "regularizers.clip_norm": space.normal(1, 2, 0.1, 5),
}
BRANCHES: dict[str, dict[str, Distribution]] = {
    "sgd": {"training.learning_rate": space.log_uniform(1, 100)},
    "adamw": {
        "training.learning_rate": space.log_uniform(1e-4, 1e-2),
        "regularizers.weight_decay": space.log_uniform(1e-3, 1),
    },
    "plain": {},
}
FLAT, BRANCHED = Space(SHARED, {}), Space(SHARED, BRANCHES)
SMALL = Space({"model.layers": space.int(1, 2), "model.cell": space.choice("lstm", "gru", "rnn")}, {})
LINE = Space({"x": space.uniform(-1, 1)}, {})


def loss_of(assignment: Mapping[str, Any]) -> float:
    """Any deterministic score that tells assignments apart."""
    return sum(len(str(value)) + float(value) for value in assignment.values() if not isinstance(value, str))


def play(searcher: Searcher, trials: int, first: int = 0) -> list[Proposal]:
    """Propose and observe one trial after another."""
    proposals = []
    for number in range(first, first + trials):
        proposal = searcher.propose(number)
        assert proposal is not None
        searcher.observe(proposal, number, loss_of(proposal.assignment))
        proposals.append(proposal)
    return proposals


def tell(searcher: Searcher, proposals: list[Proposal], numbers: Iterable[int]) -> None:
    for number in numbers:
        searcher.observe(proposals[number], number, loss_of(proposals[number].assignment))


def recorded(proposal: Proposal) -> Proposal:
    """A proposal as the journal gives it back."""
    written = json.loads(json.dumps({"assignment": proposal.assignment, "point": proposal.point}, allow_nan=False))
    return Proposal(written["assignment"], written["point"])


def type_and_value(assignment: Assignment) -> dict[str, tuple[type, Any]]:
    """`True == 1 == 1.0`: a comparison that sees the difference."""
    return {key: (type(value), value) for key, value in assignment.items()}


@pytest.mark.parametrize("algorithm", ["hyperopt", "random"])
@pytest.mark.parametrize("searched", [FLAT, BRANCHED], ids=["flat", "branched"])
class TestSearchersThatDraw:
    def test_the_same_seed_proposes_the_same(self, algorithm: str, searched: Space) -> None:
        first, again, other = (play(build_searcher(algorithm, searched, seed, 20), 8) for seed in (3, 3, 4))
        assert [type_and_value(p.assignment) for p in first] == [type_and_value(p.assignment) for p in again]
        assert first != other
        assert len({json.dumps(p.assignment) for p in first}) == 8, "each trial is another draw"

    def test_every_value_is_one_of_its_distribution(self, algorithm: str, searched: Space) -> None:
        types = {key: {type(value) for value in one.corners()} for key, one in SHARED.items()}
        taken = set()
        for proposal in play(build_searcher(algorithm, searched, 0, 40), 40):
            assignment = dict(proposal.assignment)
            branch = assignment.pop("one_of", None)
            taken.add(branch)
            expected = searched.distributions(branch)
            assert assignment.keys() == expected.keys(), "its branch's keys and no other's"
            for key, distribution in expected.items():
                assert 0 <= distribution.to_unit(assignment[key]) <= 1  # ValueError for a value outside
                assert type(assignment[key]) in types.get(key, {float})
        assert taken == (set(BRANCHES) if searched.branches else {None})

    def test_assignments_fill_an_experiment(self, algorithm: str, searched: Space) -> None:
        branches: Any = {name: {} for name in searched.branches} or None  # empty: the assignment brings the values
        experiment = Experiment(name="x", budget={"epochs": 1, "trials": 4}, one_of=branches)
        for proposal in play(build_searcher(algorithm, searched, 1, 6), 6):
            config = experiment.trial_config(proposal.assignment)
            assert config.flat() | proposal.assignment == config.flat()


def test_random_knows_neither_results_nor_their_order() -> None:
    played = play(RandomSearcher(BRANCHED, seed=0), 6)
    untold = RandomSearcher(BRANCHED, seed=0)
    assert [untold.propose(number) for number in reversed(range(6))] == played[::-1]


def test_grid_is_the_whole_grid_in_order_with_the_last_key_fastest() -> None:
    assignments = [proposal.assignment for proposal in play(GridSearcher(SMALL), 6)]
    expected = [(layers, cell) for layers in (1, 2) for cell in ("lstm", "gru", "rnn")]
    assert [(one["model.layers"], one["model.cell"]) for one in assignments] == expected
    assert GridSearcher(SMALL).propose(6) is None


def test_a_grid_with_seeds_repeats_all_points_with_each() -> None:
    searcher = GridSearcher(SMALL, seed=5, seeds=2)
    proposals = [searcher.propose(number) for number in range(13)]
    assert proposals[12] is None
    found = [(proposal.assignment, proposal.seed) for proposal in proposals[:12] if proposal]
    points = SMALL.grid()
    assert found == [(point, trial_seed(5, repeat)) for repeat in range(2) for point in points]


def test_grid_knows_neither_results_nor_their_order() -> None:
    played, untold = play(GridSearcher(SMALL), 6), GridSearcher(SMALL)
    assert [untold.propose(number) for number in reversed(range(6))] == played[::-1]


def test_grid_goes_branch_by_branch() -> None:
    branches = {"a": {"x": space.grid(1, 2)}, "b": {"y": space.choice("u", "v")}, "c": {}}
    searcher = GridSearcher(Space({"z": space.int(0, 1)}, branches))
    assignments = [proposal.assignment for proposal in play(searcher, 10)]
    assert [one["one_of"] for one in assignments] == ["a"] * 4 + ["b"] * 4 + ["c"] * 2
    assert assignments[1] == {"one_of": "a", "z": 0, "x": 2}
    assert assignments[-1] == {"one_of": "c", "z": 1}
    assert searcher.propose(10) is None


def test_a_grid_must_be_finite() -> None:
    with pytest.raises(InputError, match="continuous"):
        build_searcher("grid", LINE, 0, None)


@pytest.mark.parametrize("algorithm", ["hyperopt", "random", "grid"])
def test_nothing_to_search_is_one_trial(algorithm: str) -> None:
    searcher = build_searcher(algorithm, Space({}, {}), 0, None)
    assert searcher.propose(0) == Proposal({}, {})
    assert searcher.propose(1) is None


@pytest.mark.parametrize("searched", [FLAT, BRANCHED], ids=["flat", "branched"])
@pytest.mark.parametrize("done", [3, 9], ids=["among the random ones", "among the modelled ones"])
def test_a_replayed_search_goes_on_as_the_uninterrupted_one(searched: Space, done: int) -> None:
    """From the journal's records, told in any order."""
    whole = play(HyperOptSearcher(searched, seed=5, trials=20), done + 6)
    resumed = HyperOptSearcher(searched, seed=5, trials=20)
    tell(resumed, [recorded(proposal) for proposal in whole], reversed(range(done)))
    assert play(resumed, 6, first=done) == whole[done:]


def test_a_trial_without_a_score_may_be_missing() -> None:
    """Failed trials have none, and running ones not yet."""
    first, second = (HyperOptSearcher(FLAT, seed=0, trials=20) for _ in range(2))
    played = play(first, 8)
    tell(second, played, (number for number in range(8) if number not in (2, 5)))
    proposal = second.propose(8)
    assert type_and_value(proposal.assignment).keys() == SHARED.keys()
    assert proposal != first.propose(8), "results are used"


def test_a_point_has_numbers_in_the_unit_interval_and_indices_of_choices() -> None:
    """Many choices: n / 49 * 49 is not always n."""
    searched = Space({"x": space.uniform(-1, 1), "y": space.choice([f"y{n}" for n in range(49)])}, BRANCHES)
    taken = set()
    for proposal in play(HyperOptSearcher(searched, seed=0, trials=1000), 40):
        point, assignment = proposal.point, proposal.assignment
        assert 0 <= point["x"] <= 1
        assert assignment["x"] == pytest.approx(2 * point["x"] - 1)
        assert assignment["y"] == f"y{point['y']}"
        assert assignment["one_of"] == list(BRANCHES)[int(point["one_of"])]
        taken.add(point["y"])
    assert len(taken) > 15


def test_asking_twice_changes_nothing() -> None:
    searcher = HyperOptSearcher(BRANCHED, seed=0, trials=20)
    play(searcher, 7)
    assert searcher.propose(7) == searcher.propose(7)
    assert searcher.propose(7) != searcher.propose(8)


@pytest.mark.parametrize(("trials", "startup"), [(None, 20), (1, 5), (20, 5), (21, 6), (80, 20), (1000, 20)])
def test_how_many_trials_are_random_first(trials: int | None, startup: int) -> None:
    searcher = HyperOptSearcher(LINE, seed=0, trials=trials)
    assert searcher.startup == startup


def lowest_of(searcher: Searcher, trials: int) -> float:
    lowest = math.inf
    for number in range(trials):
        proposal = searcher.propose(number)
        assert proposal is not None
        value = sum((x - 0.3) ** 2 for x in proposal.assignment.values())
        searcher.observe(proposal, number, value)
        lowest = min(lowest, value)
    return lowest


@pytest.mark.parametrize("dimensions", [1, 2])
def test_tpe_finds_a_minimum_better_than_random(dimensions: int) -> None:
    cube = Space({f"x{axis}": space.uniform(-1, 1) for axis in range(dimensions)}, {})
    seeds = range(6)
    tpe = np.mean([lowest_of(HyperOptSearcher(cube, seed, 40), 40) for seed in seeds])
    random = np.mean([lowest_of(RandomSearcher(cube, seed), 40) for seed in seeds])
    assert tpe < 0.7 * random


def test_tpe_learns_the_branch_and_the_choice() -> None:
    """One of 3 branches and one of 2 cells is better: later trials take each more often than by chance."""
    searcher = HyperOptSearcher(BRANCHED, seed=1, trials=40)
    taken = []
    for number in range(40):
        proposal = searcher.propose(number)
        right = proposal.assignment["one_of"] == "adamw", proposal.assignment["model.cell"] == "gru"
        searcher.observe(proposal, number, 3.0 - sum(right))
        taken.append(right)
    assert np.mean(taken[20:], axis=0).min() >= 0.6


def test_seeds_of_trials_follow_from_study_and_number() -> None:
    seeds = [trial_seed(study, number) for study in range(20) for number in range(50)]
    assert seeds == [trial_seed(study, number) for study in range(20) for number in range(50)]
    assert len(set(seeds)) == 1000
    assert trial_seed(0, 0) == 2968811710, "a change would give every recorded study other trials"


@pytest.mark.parametrize(
    ("overrides", "planned"),
    [
        ([], 1),
        (["model.layers={int: [1, 3]}", "budget.trials=7"], 7),
        (["model.layers={int: [1, 3]}", "budget.hours=1"], None),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid"], 3),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid", "budget.trials=2"], 2),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid", "budget.trials=9"], 3),
    ],
)
def test_planned_trials(overrides: list[str], planned: int | None) -> None:
    experiment = Experiment.from_yaml_text("name: x\nbudget: {epochs: 1}\n", overrides)
    assert planned_trials(experiment) == planned
