"""Searchers: what they propose depends on the seed, the trial's number and the results, and on nothing else."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from tune_rnn import space
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.schema import Search
from tune_rnn.search import (
    Assignment,
    Evidence,
    Observed,
    Proposal,
    Searcher,
    build_searcher,
    trial_seed,
)
from tune_rnn.search.learning import Learner, Told
from tune_rnn.search.parzen import PRIOR_WEIGHT, Choices, Numbers
from tune_rnn.search.surrogates import GaussianProcess
from tune_rnn.search.tpe import GAMMA, REMEMBERED, HyperOpt
from tune_rnn.space import Distribution, Space

ROOT = Path(__file__).resolve().parents[1]

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


def searcher_of(algorithm: str, searched: Space, seed: int = 0, **keys: Any) -> Searcher:
    return build_searcher(Search(algorithm=algorithm, seed=seed, **keys), searched)  # type: ignore[arg-type]


def play(searcher: Searcher, trials: int, first: int = 0) -> list[Proposal]:
    """Propose and train one trial after another."""
    proposals = []
    for number in range(first, first + trials):
        proposal = searcher.propose(number)
        assert proposal is not None
        train(searcher, number, proposal.assignment, loss_of(proposal.assignment))
        proposals.append(proposal)
    return proposals


def train(searcher: Searcher, number: int, assignment: Assignment, loss: float) -> None:
    """A trial of one report."""
    searcher.began(number, assignment)
    searcher.reported(number, 1.0, loss)
    searcher.ended(number)


def type_and_value(assignment: Assignment) -> dict[str, tuple[type, Any]]:
    """`True == 1 == 1.0`: a comparison that sees the difference."""
    return {key: (type(value), value) for key, value in assignment.items()}


LEARNING = ["hyperopt", "optuna", "gp", "forest"]
DRAWING = ["random", "sobol", *LEARNING]
SPACES = {"flat": FLAT, "branched": BRANCHED}
PAIRS = [
    *((algorithm, name) for name in SPACES for algorithm in ("random", "sobol", "hyperopt")),
    *(("optuna", "branched"), ("gp", "flat"), ("forest", "branched")),
]
ALL = [pytest.param(algorithm, SPACES[name], id=f"{name}-{algorithm}") for algorithm, name in PAIRS]
FEWER = {"optuna": 18, "gp": 15, "forest": 18}
FEW = {"gp": 4, "forest": 16}  # proposals that do not differ much, or not at all


def enough(algorithm: str, trials: int = 24) -> int:
    """So many trials that some are learnt; few of those whose proposals take long."""
    return FEWER.get(algorithm, trials)


@pytest.mark.parametrize(("algorithm", "searched"), ALL)
class TestSearchersThatDraw:
    def test_the_same_seed_proposes_the_same(self, algorithm: str, searched: Space) -> None:
        trials = enough(algorithm)
        first, again, other = (play(searcher_of(algorithm, searched, seed), trials) for seed in (3, 3, 4))
        assert [type_and_value(p.assignment) for p in first] == [type_and_value(p.assignment) for p in again]
        assert first != other
        assert len({json.dumps(p.assignment) for p in first}) == trials, "each trial is another draw"

    def test_every_value_is_one_of_its_distribution(self, algorithm: str, searched: Space) -> None:
        types = {key: {type(value) for value in one.corners()} for key, one in SHARED.items()}
        taken = set()
        for proposal in play(searcher_of(algorithm, searched), enough(algorithm, 40)):
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
        for proposal in play(searcher_of(algorithm, searched, 1), enough(algorithm)):
            config = experiment.trial_config(proposal.assignment)
            assert config.flat() | proposal.assignment == config.flat()

    def test_asking_twice_changes_nothing(self, algorithm: str, searched: Space) -> None:
        searcher = searcher_of(algorithm, searched)
        for first, count in ((0, 3), (3, enough(algorithm, 20) - 3)):
            play(searcher, count, first)
            done = first + count
            assert searcher.propose(done) == searcher.propose(done)
            if algorithm != "gp":  # whose best point is one and the same, until it is told that it has been taken
                assert searcher.propose(done) != searcher.propose(done + 1)

    def test_what_is_refused_is_replaced_by_another_draw(self, algorithm: str, searched: Space) -> None:
        searcher, trials = searcher_of(algorithm, searched), enough(algorithm, 20)
        play(searcher, trials)
        seen = []
        for _ in range(3):
            proposal = searcher.propose(trials)
            assert proposal is not None
            seen.append(json.dumps(proposal.assignment))
            searcher.refused(proposal.assignment)
        assert len(set(seen)) == 3

    def test_starting_points_come_first_and_are_completed(self, algorithm: str, searched: Space) -> None:
        start: list[Assignment] = [
            {"model.cell": "gru", "model.hidden_size": 128},
            {"regularizers.input_dropout": 0.15},
        ]
        searcher = searcher_of(algorithm, searched, start=start)
        whole = play(searcher, enough(algorithm))
        for given, proposal in zip(start, whole, strict=False):
            assert given.items() <= proposal.assignment.items()
            branch = proposal.assignment.get("one_of")
            assert proposal.assignment.keys() - {"one_of"} == searched.distributions(branch).keys()
        without = play(searcher_of(algorithm, searched), 1)
        assert whole[2].assignment == without[0].assignment, "the design begins after them"

    def test_starting_points_depend_on_the_trial_s_number_alone(self, algorithm: str, searched: Space) -> None:
        start = ({"model.cell": "gru"}, {"model.layers": 1.0, "model.cell": "lstm"}, {"model.tied": True})
        several = Space({**searched.shared, "model.layers": space.int(1, 3)}, searched.branches)
        whole = play(searcher_of(algorithm, several, 2, start=start), 4)
        resumed = searcher_of(algorithm, several, 2, start=start)
        train(resumed, 0, whole[0].assignment, 1.0)
        assert play(resumed, 2, first=1) == whole[1:3]
        assert [proposal.start for proposal in whole] == [0, 1, 2, None]
        assert type_and_value(whole[1].assignment)["model.layers"] == (int, 1), "in the distribution's type"

    def test_a_starting_point_that_is_refused_is_followed_by_the_next(self, algorithm: str, searched: Space) -> None:
        searcher = searcher_of(algorithm, searched, start=({"model.cell": "gru"}, {"model.cell": "lstm"}))
        first, untold = searcher.propose(0), searcher.propose(1)
        assert first is not None
        searcher.refused(first.assignment)
        assert searcher.propose(0) == untold


@pytest.mark.parametrize("algorithm", ["random", "sobol", "grid"])
def test_some_know_neither_results_nor_their_order(algorithm: str) -> None:
    played, untold = play(searcher_of(algorithm, SMALL), 6), searcher_of(algorithm, SMALL)
    assert [untold.propose(number) for number in reversed(range(6))] == played[::-1]


def test_sobol_leaves_no_large_holes() -> None:
    """16 points: every sixteenth of each axis has one of them."""
    cube = Space({axis: space.uniform(0, 1) for axis in "xyz"}, {})
    points = [proposal.assignment for proposal in play(searcher_of("sobol", cube, 7), 16)]
    for axis in "xyz":
        assert sorted(int(16 * point[axis]) for point in points) == list(range(16))


def test_grid_is_the_whole_grid_in_order_with_the_last_key_fastest() -> None:
    searcher = searcher_of("grid", SMALL)
    assignments = [proposal.assignment for proposal in play(searcher, 6)]
    expected = [(layers, cell) for layers in (1, 2) for cell in ("lstm", "gru", "rnn")]
    assert [(one["model.layers"], one["model.cell"]) for one in assignments] == expected
    assert searcher.propose(6) is None


def test_a_grid_with_seeds_repeats_all_points_with_each() -> None:
    searcher = searcher_of("grid", SMALL, 5, seeds=2)
    proposals = [searcher.propose(number) for number in range(13)]
    assert proposals[12] is None
    found = [(proposal.assignment, proposal.seed) for proposal in proposals[:12] if proposal]
    points = SMALL.grid()
    assert found == [(point, trial_seed(5, repeat)) for repeat in range(2) for point in points]


def test_grid_goes_branch_by_branch() -> None:
    branches = {"a": {"x": space.grid(1, 2)}, "b": {"y": space.choice("u", "v")}, "c": {}}
    searcher = searcher_of("grid", Space({"z": space.int(0, 1)}, branches))
    assignments = [proposal.assignment for proposal in play(searcher, 10)]
    assert [one["one_of"] for one in assignments] == ["a"] * 4 + ["b"] * 4 + ["c"] * 2
    assert assignments[1] == {"one_of": "a", "z": 0, "x": 2}
    assert assignments[-1] == {"one_of": "c", "z": 1}
    assert searcher.propose(10) is None


def test_a_grid_comes_after_the_starting_points() -> None:
    searcher = searcher_of("grid", SMALL, start=({"model.cell": "gru"}, {"model.cell": "rnn", "model.layers": 2}))
    proposals = play(searcher, 8)
    assert proposals[0].assignment["model.cell"] == "gru"
    assert proposals[1].assignment == {"model.layers": 2, "model.cell": "rnn"}
    assert [proposal.assignment for proposal in proposals[2:]] == SMALL.grid()
    assert searcher.propose(8) is None


@pytest.mark.parametrize(
    ("point", "branches"),
    [
        ({"training.learning_rate": 0.001}, {"adamw"}),  # both branches search it, and one has this value
        ({"model.tied": True}, set(BRANCHES)),
        ({"one_of": "plain"}, {"plain"}),
    ],
)
def test_a_starting_point_takes_a_branch_that_has_its_values(point: Assignment, branches: set[str]) -> None:
    searchers = [searcher_of("random", BRANCHED, seed, start=(point,)) for seed in range(20)]
    assert {play(searcher, 1)[0].assignment["one_of"] for searcher in searchers} == branches


def test_a_grid_must_be_finite() -> None:
    with pytest.raises(InputError, match="continuous"):
        searcher_of("grid", LINE)


def suggested_by_hyperopt(told: Told, seed: int) -> dict[str, float]:
    """What HyperOpt's own `suggest` proposes on an axis `x` and a choice `c` of three."""
    from hyperopt import base, hp, tpe

    domain = base.Domain(lambda point: 0.0, {"x": hp.uniform("x", 0, 1), "c": hp.randint("c", 3)})
    losses = [*told.ranks(), *(float(len(told.points)) for _ in told.pending)]
    documents = []
    for number, (point, loss) in enumerate(zip([*told.points, *told.pending], losses, strict=True)):
        values, idxs = {label: [point[label]] for label in point}, {label: [number] for label in point}
        misc = {"tid": number, "cmd": domain.cmd, "workdir": None, "idxs": idxs, "vals": values}
        result = {"status": "ok", "loss": float(loss)}
        others = dict.fromkeys(("spec", "exp_key", "owner", "book_time", "refresh_time"))
        documents.append({"state": 2, "tid": number, "result": result, "misc": misc, "version": 0, **others})
    trials = base.trials_from_docs(documents, validate=False)
    asked = tpe.suggest([len(documents)], domain, trials, seed, n_startup_jobs=0, gamma=GAMMA, verbose=False)
    return {label: drawn[0] for label, drawn in asked[0]["misc"]["vals"].items()}


@pytest.mark.parametrize("trials", [5, 60])
def test_hyperopt_proposes_as_its_own_suggest_does(trials: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it makes one proposal, the best of 24, as that does."""
    monkeypatch.setattr("tune_rnn.search.tpe.PROPOSALS", 1)
    monkeypatch.setattr("tune_rnn.search.tpe.ANYWHERE", 0)
    monkeypatch.setattr("tune_rnn.search.tpe.CANDIDATES", 24)
    generator = np.random.default_rng(trials)
    points = [{"x": generator.random(), "c": float(generator.integers(3))} for _ in range(trials)]
    scores = np.array([(one["x"] - 0.3) ** 2 + 0.1 * one["c"] for one in points])
    ours = HyperOpt(Space({"x": space.uniform(0, 1), "c": space.choice("a", "b", "c")}, {}), 0)
    features = np.array([ours.cube.features_of(point) for point in points])
    told = Told(points[:-2], scores[:-2], points[-2:], features)
    proposals = [ours.ask(told, seed) for seed in range(300)]
    suggestions = [suggested_by_hyperopt(told, seed) for seed in range(300)]
    x, y = ([one["x"] for one in drawn] for drawn in (proposals, suggestions))
    assert ks_2samp(x, y).pvalue > 0.01
    counts = [np.bincount([int(one["c"]) for one in drawn], minlength=3) for drawn in (proposals, suggestions)]
    assert np.abs(counts[0] - counts[1]).max() < 50


@pytest.mark.parametrize("trials", [0, 1, 2, 5, 25, 26, 60, 300])
def test_densities_of_numbers_are_hyperopt_s(trials: int) -> None:
    """Its functions work on one axis; ours leave out what a density has outside, a factor that says nothing."""
    from hyperopt import tpe

    generator = np.random.default_rng(trials)
    values_AN, weights_N = generator.random((3, trials)), tpe.linear_forgetting_weights(trials, REMEMBERED)
    values_AN[0, 1:3] = 0.5
    numbers = Numbers(values_AN, weights_N)
    places_AC, drawn_AC = generator.random((3, 50)), numbers.draw(2000, generator)
    densities_AC = numbers.density(places_AC)
    for axis, values_N in enumerate(values_AN):
        mixture = tpe.adaptive_parzen_normal(values_N, PRIOR_WEIGHT, 0.5, 1.0, REMEMBERED)
        expected = np.exp(tpe.GMM1_lpdf(places_AC[axis], *mixture, low=0, high=1))
        ratios = densities_AC[axis] / expected
        assert ratios == pytest.approx(ratios[0], rel=1e-9 if trials < REMEMBERED or axis else 0.02), "but for ties"
        drawn = tpe.GMM1(*mixture, low=0, high=1, rng=generator, size=(2000,))
        assert ks_2samp(drawn_AC[axis], drawn).pvalue > 0.001
    assert drawn_AC.min() >= 0
    assert drawn_AC.max() <= 1


def test_a_choice_that_no_good_trial_has_is_among_what_is_picked_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """TPE's own proposals nearly all have the choice of the good trials."""
    searched, asked = Space({"x": space.uniform(0, 1), "c": space.choice("a", "b", "c")}, {}), list[list[float]]()

    def first(_: HyperOpt, told: Told, proposals: list[dict[str, float]]) -> int:
        asked.append([proposal["c"] for proposal in proposals])
        return 0

    monkeypatch.setattr(HyperOpt, "_picked", first)
    searcher = searcher_of("hyperopt", searched)
    for number in range(30):
        train(searcher, number, {"x": 0.5, "c": "abc"[number % 3]}, float(number % 3))
    for number in range(30, 60):
        searcher.propose(number)
    assert len(asked) == 30
    assert all(len(choices) == 16 for choices in asked)
    assert 2 < np.mean([len(choices) - choices.count(0.0) for choices in asked]) < 5


def test_densities_of_choices_count_each_category_and_the_prior() -> None:
    choices = Choices(np.array([[0.0, 2.0, 2.0], [1.0, 0.0, 1.0]]), np.array([0.5, 1.0, 1.0]), [3, 2])
    assert choices.shares_AK[0] == pytest.approx(np.array([1.5, 1, 3]) / 5.5)
    assert choices.shares_AK[1] == pytest.approx(np.array([2, 2.5, 0]) / 4.5)
    drawn_AC = choices.draw(4000, np.random.default_rng(0))
    for axis, shares_K in enumerate(choices.shares_AK):
        assert np.bincount(drawn_AC[axis].astype(int), minlength=3) / 4000 == pytest.approx(shares_K, abs=0.03)
    assert choices.density(drawn_AC)[1, :5] == pytest.approx(choices.shares_AK[1, drawn_AC[1, :5].astype(int)])


@pytest.mark.parametrize("algorithm", LEARNING)
class TestSearchersThatLearn:
    @pytest.mark.parametrize("dimensions", [1, 2])
    def test_they_find_a_minimum_better_than_random(self, algorithm: str, dimensions: int) -> None:
        cube = Space({f"x{axis}": space.uniform(-1, 1) for axis in range(dimensions)}, {})
        trials, seeds = {"optuna": (30, 2), "gp": (12, 2), "forest": (30, 2)}.get(algorithm, (40, 6))
        learnt = np.mean([lowest_of(searcher_of(algorithm, cube, seed), trials) for seed in range(seeds)])
        random = np.mean([lowest_of(searcher_of("random", cube, seed), trials) for seed in range(6)])
        assert learnt < 0.7 * random

    def test_they_learn_the_branch_and_the_choice(self, algorithm: str) -> None:
        """One of 3 branches and one of 2 cells is better: later trials take each more often than by chance."""
        taken = []
        searched = FLAT if algorithm == "gp" else BRANCHED
        trials, seeds = {"optuna": (40, 1), "gp": (20, 1), "forest": (30, 1)}.get(algorithm, (60, 3))
        for seed in range(seeds):
            searcher = searcher_of(algorithm, searched, seed)
            for number in range(trials):
                proposal = searcher.propose(number)
                assert proposal is not None
                values = proposal.assignment
                right = values.get("one_of") in ("adamw", None), values["model.cell"] == "gru"
                others = (values["regularizers.input_dropout"] - 0.2) ** 2 + (
                    values["model.hidden_size"] / 512 - 0.7
                ) ** 2
                train(searcher, number, values, 2 - 0.3 * right[0] - 0.2 * right[1] + 0.5 * others)
                taken += [right] * (number >= trials / 2)
        branch, cell = np.mean(taken, axis=0)
        assert branch > 0.5
        assert cell > 0.65

    def test_they_learn_from_running_trials_and_know_that_budgets_differ(self, algorithm: str) -> None:
        """Low x is better at every budget; those of low x had little of it, so that their last scores are worse."""
        searcher = searcher_of(algorithm, LINE)
        for number, x in enumerate(np.linspace(-1, 1, 20)):
            searcher.began(number, {"x": float(x)})
            for spent in range(1, 3 if x < 0 else 9):
                searcher.reported(number, float(spent), 5.0 + x - spent / 2)
        proposed = [searcher.propose(number) for number in range(20, 20 + FEW.get(algorithm, 20))]
        assert np.mean([proposal.assignment["x"] < 0 for proposal in proposed if proposal]) > 0.7

    def test_they_avoid_where_trials_diverge(self, algorithm: str) -> None:
        searcher = searcher_of(algorithm, LINE)
        for number in range(30):
            x = 2 * (number + 0.5) / 30 - 1
            train(searcher, number, {"x": x}, math.nan if x > 0 else 1.0 + 0.01 * (number % 7))
        proposed = [searcher.propose(number) for number in range(30, 30 + FEW.get(algorithm, 30))]
        assert np.mean([proposal.assignment["x"] > 0 for proposal in proposed if proposal]) < 0.25

    def test_what_is_refused_does_not_end_the_start_up_design(self, algorithm: str) -> None:
        """There is no trial yet: a search that learnt from refusals alone would take the first of them for the best."""
        searcher, design = searcher_of(algorithm, LINE), searcher_of("sobol", LINE)
        for place in range(20):
            proposal = searcher.propose(0)
            assert proposal == design.propose(place)
            assert proposal is not None
            searcher.refused(proposal.assignment)

    def test_proposals_do_not_pile_up_while_trials_begin(self, algorithm: str) -> None:
        """One after another without any result in between, they go apart."""
        searcher = searcher_of(algorithm, LINE)
        for number in range(20):
            x = 2 * (number + 0.5) / 20 - 1
            train(searcher, number, {"x": x}, abs(x - 0.3))
        places = []
        for number in range(20, 28 if algorithm == "gp" else 36):
            proposal = searcher.propose(number)
            assert proposal is not None
            searcher.began(number, proposal.assignment)
            places.append(proposal.assignment["x"])
        assert np.std(places) > 0.1

    def test_earlier_trials_are_learnt_from_before_the_first(self, algorithm: str) -> None:
        """Those of another group are compared among themselves, and a refused one is none of the good."""
        earlier = [
            Observed({"x": x}, [1.0], [scale * (2 + abs(x + 0.5))], running=False, group=group)
            for x in np.linspace(-1, 1, 12).tolist()
            for group, scale in (("", 1.0), ("elsewhere", 100.0))
        ]
        searcher = build_searcher(Search(algorithm=algorithm), LINE, earlier)  # type: ignore[arg-type]
        searcher.refused({"x": 0.9})
        proposal = searcher.propose(0)
        assert proposal is not None
        assert proposal.assignment["x"] < 0.3
        assert searcher.propose(0) == pickle.loads(pickle.dumps(searcher)).propose(0)


def learnt_in_all(salt: str) -> str:
    """The last proposals of all that learn, by a process of its own that orders its sets by `salt`."""
    code = "import test_search; print(test_search.learnt())"
    environment = os.environ | {"PYTHONHASHSEED": salt, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout


def learnt() -> str:
    searchers = {name: searcher_of(name, FLAT if name == "gp" else BRANCHED) for name in LEARNING}
    return json.dumps({name: play(one, enough(name, 20))[-1].assignment for name, one in searchers.items()}, indent=1)


@pytest.mark.slow
def test_another_process_proposes_the_same() -> None:
    assert learnt_in_all("1") == learnt_in_all("2") == learnt() + "\n"


def test_what_a_model_is_told_is_bounded_and_finite() -> None:
    """The best and the latest; what diverged is as bad as the worst that did not, what has only begun is ordinary."""
    evidence = Evidence()
    for number in range(400):
        evidence.begin(number, {"x": number / 400})
        if number < 398:
            evidence.report(number, 1.0, math.nan if number == 390 else float(number % 397))
    told = GaussianProcess(LINE, 0).told(evidence)
    assert len(told.points) == 50 + 148 + 1, "the last 150 have one that is among the best, too"
    assert len(told.pending) == 2
    points, scores = told.believed()
    assert len(points) == len(scores) == len(told.points) + 2
    assert np.isfinite(scores).all()
    assert scores[np.isinf(np.append(told.scores, [0, 0]))] == [scores.max()]
    assert scores.min() < scores[-1] < scores.max()


@pytest.mark.parametrize(("algorithm", "recent"), [(HyperOpt, 250), (GaussianProcess, 150)])
def test_what_is_refused_does_not_crowd_out_the_trials(algorithm: type[Learner], recent: int) -> None:
    evidence = Evidence()
    for number in range(300):
        evidence.begin(number, {"x": number / 300})
        evidence.report(number, 1.0, float(number))
        evidence.refuse({"x": -number / 300})
        evidence.refuse({"x": -number / 300})
    told = algorithm(LINE, 0).told(evidence)
    of_trials = np.isfinite(told.scores)
    assert np.sum(of_trials) == 50 + math.ceil(recent / 3)
    assert np.sum(of_trials[-REMEMBERED:]) == math.ceil(REMEMBERED / 3), "a third of what counts in full, as of all"


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_a_model_is_told_where_nothing_is_good(bad: float) -> None:
    points = [{"x": 0.1}, {"x": 0.2}]
    assert Told(points, np.array([bad, bad]), points[:1], np.empty((3, 0))).believed()[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("algorithm", "package"), [("optuna", "optuna"), ("gp", "optuna"), ("forest", "smac")])
def test_a_package_that_is_missing(algorithm: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = f"search.algorithm: '{algorithm}': needs {package}, which is not installed. Install it: pip install"
    with pytest.raises(InputError, match=message + r' "tune_rnn\[bayes\]"$'):
        searcher_of(algorithm, FLAT)
    searcher_of(algorithm, Space({}, {}))  # a single trial needs no search


def test_a_gaussian_process_has_no_branches() -> None:
    with pytest.raises(
        InputError, match=r"^search.algorithm: 'gp': cannot search the branches of one_of. Write search"
    ):
        searcher_of("gp", BRANCHED)


def lowest_of(searcher: Searcher, trials: int) -> float:
    lowest = math.inf
    for number in range(trials):
        proposal = searcher.propose(number)
        assert proposal is not None
        value = sum((x - 0.3) ** 2 for x in proposal.assignment.values())
        train(searcher, number, proposal.assignment, value)
        lowest = min(lowest, value)
    return lowest


def test_seeds_of_trials_follow_from_study_and_number() -> None:
    seeds = [trial_seed(study, number) for study in range(20) for number in range(50)]
    assert seeds == [trial_seed(study, number) for study in range(20) for number in range(50)]
    assert len(set(seeds)) == 1000
    assert trial_seed(0, 0) == 2968811710, "a change would give every recorded study other trials"


@pytest.mark.parametrize(
    ("overrides", "planned"),
    [
        ([], 1),
        (["budget.trials=7"], 1),
        (["search.algorithm=grid", "search.seeds=3"], 3),
        (["search.algorithm=grid", "search.seeds=3", "budget.trials=2"], 2),
        (["model.layers={int: [1, 3]}", "budget.trials=7"], 7),
        (["model.layers={int: [1, 3]}", "budget.hours=1"], None),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid"], 3),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid", "budget.trials=2"], 2),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid", "budget.trials=9"], 3),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid", "search.seeds=2"], 6),
        (["model.layers={int: [1, 3]}", "search.algorithm=grid", "search.start=[{model: {layers: 3}}]"], 4),
    ],
)
def test_planned_trials(overrides: list[str], planned: int | None) -> None:
    experiment = Experiment.from_yaml_text("name: x\nbudget: {epochs: 1}\n", overrides)
    assert experiment.planned_trials == planned
    limit = experiment.budget.trials or 20
    if limit != planned and planned is not None:
        searcher = build_searcher(experiment.search, experiment.space)
        assert [searcher.propose(number) is not None for number in range(limit)].count(True) == planned
