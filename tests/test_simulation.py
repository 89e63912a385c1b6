"""Simulated studies: time, events, and the objects of a study behind them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tune_rnn import space
from tune_rnn.cli import main
from tune_rnn.errors import InputError
from tune_rnn.simulation import History, Synthetic, TaskSet, simulate
from tune_rnn.simulation.table import Outcome, _lines, compare, outcome
from tune_rnn.space import Space

SCHEDULERS = ["asha", "hyperband", "median", "none"]
PAIRS = [*(("random", scheduler) for scheduler in SCHEDULERS), ("hyperopt", "asha")]  # all of them: test_pairs.py


class Lines:
    """Straight lines from 2 to x, over 9 units; x above 0.9 diverges after 2."""

    def __init__(self, maximum: int = 9) -> None:
        self.space = {"x": space.uniform(0, 1)}
        self.max_resource = maximum
        self.asked: list[float] = []

    def curve(self, config: Mapping[str, Any]) -> list[float]:
        x = config["x"]
        self.asked.append(x)
        losses = np.linspace(2, x, self.max_resource).tolist()
        return [*losses[:2], math.nan] if x > 0.9 else losses


@pytest.mark.parametrize(("searcher", "scheduler"), PAIRS)
def test_a_pair_plays_and_plays_the_same_again(searcher: str, scheduler: str) -> None:
    box, budget = Lines(), 12
    history = simulate(searcher, scheduler, box, workers=4, budget=budget, seed=3)
    again = simulate(searcher, scheduler, Lines(), workers=4, budget=budget, seed=3)
    assert history.to_json() == again.to_json()
    assert history.to_json() != simulate(searcher, scheduler, Lines(), workers=4, budget=budget, seed=4).to_json()
    assert [trial["x"] for trial in history.trials] == box.asked, "every configuration is asked for once"
    _check_events(history, budget)


def _check_events(history: History, budget: float) -> None:
    """Each worker does a unit of a trial in a unit of time, and none is idle."""
    times = [event.time for event in history.events]
    assert times == sorted(times)
    assert times[-1] == int(budget * history.max_resource / history.workers)
    assert len(times) == history.workers * times[-1]
    for number in range(len(history.trials)):
        events = [event for event in history.events if event.trial == number]
        assert [event.resource for event in events] == list(range(1, len(events) + 1))
        assert np.diff([event.time for event in events]) == pytest.approx(1)
        assert all(math.isfinite(event.loss) for event in events[:-1]), "nothing follows a divergence"


def test_incumbents() -> None:
    history = simulate("random", "asha", Lines(), workers=2, budget=12, seed=1)
    losses = [event.loss if math.isfinite(event.loss) else math.inf for event in history.events]
    assert history.incumbent == list(np.minimum.accumulate(losses))
    whole = [event for event in history.events if event.resource == 9]
    assert history.count_finished() == len(whole) > 0
    assert history.finished_incumbent[-1] == min(event.loss for event in whole)
    assert history.finished_incumbent[0] == math.inf
    first = [event.loss for event in whole if event.time == whole[0].time]
    assert history.finished_loss_at(whole[0].time) == min(first)
    assert history.finished_loss_at(whole[0].time - 0.5) == math.inf
    assert history.best is not None
    assert history.best.loss == history.incumbent[-1]
    assert len(json.loads(history.to_json())["events"]) == len(history.events)


@pytest.mark.slow
def test_early_stopping_tries_more_and_learning_finds_better() -> None:
    found = {
        pair: [simulate(*pair, Synthetic("noisy", seed), workers=8, budget=40, seed=seed) for seed in range(3)]
        for pair in (("random", "none"), ("random", "asha"), ("hyperopt", "asha"))
    }
    trials = {pair: np.mean([len(history.trials) for history in played]) for pair, played in found.items()}
    losses = {pair: np.mean([played.finished_incumbent[-1] for played in many]) for pair, many in found.items()}
    assert trials["random", "asha"] > 2 * trials["random", "none"]
    assert losses["hyperopt", "asha"] < losses["random", "asha"] < losses["random", "none"]


def test_settings_are_those_of_the_experiment_file() -> None:
    early = simulate("random", {"algorithm": "asha"}, Lines(27), 2, 12)
    late = simulate("random", {"algorithm": "asha", "first_rung": 9}, Lines(27), 2, 12)
    assert len(early.trials) > len(late.trials)
    stopped = {max(e.resource for e in late.events if e.trial == trial.trial) for trial in late.events[:-60]}
    assert stopped <= {3, *range(9, 28)}, "3 units: those that diverge"


def test_starting_points_come_first() -> None:
    history = simulate({"algorithm": "hyperopt", "start": [{"x": 0.25}, {"x": 1}]}, "asha", Lines(), 2, 12)
    assert [trial["x"] for trial in history.trials[:2]] == [0.25, 1.0]


def test_a_space_with_branches() -> None:
    class Branched(Lines):
        def __init__(self) -> None:
            super().__init__()
            branches = {"a": {"x": space.uniform(0, 0.5)}, "b": {"x": space.uniform(0.5, 1)}}
            self.space = Space({}, branches)  # type: ignore[assignment]

    history = simulate("hyperopt", "asha", Branched(), 2, 10)
    assert {trial["one_of"] for trial in history.trials} == {"a", "b"}
    with pytest.raises(InputError, match=r"^search.algorithm: 'gp': cannot search the branches of one_of\."):
        simulate("gp", "asha", Branched(), 2, 10)


def test_trials_may_end_it_and_a_grid_ends_itself() -> None:
    assert len(simulate("random", "asha", Lines(), 2, 100, trials=7).trials) == 7
    box = Lines()
    box.space = {"x": space.choice(0.1, 0.2, 0.3)}
    history = simulate("grid", "none", box, 2, 100)
    assert [trial["x"] for trial in history.trials] == [0.1, 0.2, 0.3]
    assert history.count_finished() == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": "bayes"}, "search.algorithm"),
        ({"search": {"algorithm": "random", "seedling": 1}}, "search.seedling"),
        ({"search": {"algorithm": "random", "start": [{"y": 1}]}}, r"search.start\[0\].y: 1: is not searched"),
        ({"search": {"algorithm": "random", "start": [{"x": 2}]}}, r"search.start\[0\].x: 2: is no value of uniform"),
        ({"search": {"algorithm": "random", "start": 2}}, "search.start: 2: must be a list of starting points"),
        ({"search": {"algorithm": "hyperopt", "warm_start": ["run"]}}, "search.warm_start: names runs, and"),
        ({"search": 3}, r"^search: 3: must be a name, a section of an experiment file, or an object with propose"),
        ({"scheduler": "asha2"}, "scheduler.algorithm"),
        ({"scheduler": 4}, "^scheduler: 4: must be a name, .* goes_on"),
        ({"blackbox": Lines}, "^blackbox: .*Lines.*: is a class. Give an object of it"),
        ({"workers": 0}, "workers: 0: must be a whole number of at least 1"),
        ({"workers": 2.5}, "workers: 2.5: must be a whole number of at least 1"),
        ({"workers": "2"}, "workers: '2': must be a whole number"),
        ({"budget": -1}, "budget: -1: must be a number of whole trainings, at least 1. Write 40, for example."),
        ({"budget": 0.5}, "budget: 0.5: must be a number of whole trainings, at least 1"),
        ({"budget": "many"}, "budget: 'many': must be a number of whole trainings"),
        ({"budget": math.inf}, "budget: inf: must be a number"),
        ({"budget": True}, "budget: True: must be a number"),
        ({"seed": -1}, "seed: -1: must be a whole number of at least 0"),
        ({"trials": 0}, "trials: 0: must be a whole number of at least 1"),
        (
            {"blackbox": "noisy"},
            r"blackbox: 'noisy': must have space, .*, and has no space. Take .*Synthetic\(\"noisy\"\)",
        ),
    ],
)
def test_wrong_input_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"search": "random", "scheduler": "asha", "blackbox": Lines(), "workers": 2, "budget": 4}
    with pytest.raises(InputError, match=message):
        simulate(**given | change)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"curve": 3}, r"^blackbox\.curve: 3: must be a function"),
        ({"max_resource": 9.5}, r"^blackbox\.max_resource: 9\.5: must be a whole number of at least 1\. Write 50"),
        ({"max_resource": 0}, r"^blackbox\.max_resource: 0: must be"),
        (
            {"space": {"x": 0.5}},
            r"^blackbox\.space\['x'\]: 0\.5: must be a distribution of tune_rnn\.space\. Write tune",
        ),
        (
            {"space": {"x": {"log_uniform": [1e-3, 1]}}},
            r"^blackbox\.space\['x'\]: {'log_uniform': \[0\.001, 1\]}: must be",
        ),
        ({"space": Space({}, {"a": {"x": 1}})}, r"^blackbox\.space\['x'\]: 1: must be"),  # type: ignore[dict-item]
        ({"space": {1: space.uniform(0, 1)}}, r"^blackbox\.space\[1\]: 1: a key must be a text\. Write '1'\."),
        ({"space": ["x"]}, r"^blackbox\.space: \['x'\]: must have a distribution for each key\. Write {"),
    ],
)
def test_what_is_no_black_box_is_refused(changed: dict[str, Any], message: str) -> None:
    box = Lines()
    vars(box).update(changed)
    with pytest.raises(InputError, match=message):
        simulate("random", "asha", box, 2, 4)


def test_a_black_box_without_curves_is_refused() -> None:
    class Spaced:
        space, max_resource = Lines().space, 9

    with pytest.raises(InputError, match=r"^blackbox: .* and has no curve\. Take "):
        simulate("random", "asha", Spaced(), 2, 4)  # type: ignore[arg-type]


def test_numbers_of_numpy_will_do() -> None:
    history = simulate("random", "asha", Lines(np.int64(9)), np.int64(2), np.float64(4.5), np.int64(0))  # type: ignore[arg-type]
    assert history.to_json() == simulate("random", "asha", Lines(), 2, 4.5).to_json()


def test_a_curve_that_ends_too_soon_is_refused() -> None:
    class Short(Lines):
        def curve(self, config: Mapping[str, Any]) -> list[float]:
            return [1.0, 0.9]

    with pytest.raises(InputError, match=r"curve.*ended after 2 of 9 losses"):
        simulate("random", "none", Short(), 1, 2)


def test_a_single_loss_is_refused() -> None:
    class One(Lines):
        def curve(self, config: Mapping[str, Any]) -> Any:
            return 1.0

    with pytest.raises(InputError, match=r"^curve: 1\.0: must return losses, one for each unit"):
        simulate("random", "none", One(), 1, 2)


def test_losses_that_are_no_numbers_are_refused() -> None:
    class Words(Lines):
        def curve(self, config: Mapping[str, Any]) -> Any:
            return "falling"

    with pytest.raises(InputError, match=r"^curve: 'f': must return losses, which are numbers"):
        simulate("random", "none", Words(), 1, 2)


@pytest.mark.parametrize("names", [("bayes", "asha"), ("random", "pbt")])
def test_the_command_refuses_a_name_before_it_says_that_it_begins(
    names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="algorithm"):
        compare([names[0]], [names[1]], "noisy", 8, 40, 2)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("family", ["crossing", "noisy"])
def test_synthetic_curves(family: str) -> None:
    box, rng = Synthetic(family, seed=2), np.random.default_rng(0)
    configs = [Space(box.space, {}).sample(rng) for _ in range(400)]
    curves = np.array([box.curve(config) for config in configs])
    assert [box.curve(config) for config in configs[:5]] == [pytest.approx(row, nan_ok=True) for row in curves[:5]]
    sound = curves[np.isfinite(curves).all(axis=1)]
    assert (sound[:, -1] > 1.1).all()
    assert (len(sound) < 400) == (family == "noisy"), "only the noisy ones diverge"
    falls = (np.diff(sound, axis=1) < 0).all(axis=1)
    assert falls.all() == (family == "crossing")
    best = sound[sound[:, -1].argsort()[:40]]
    agreement = np.corrcoef(best[:, 0].argsort().argsort(), best[:, -1].argsort().argsort())[0, 1]
    assert (agreement < 0.5) == (family == "crossing"), "among the best, early losses mislead where curves cross"
    assert box.curve(configs[0]) != Synthetic(family, seed=3).curve(configs[0])


def test_there_are_two_families() -> None:
    with pytest.raises(InputError, match="There are crossing and noisy"):
        Synthetic("smooth")


@pytest.fixture
def tables() -> Path:
    data = os.environ.get("TUNE_RNN_DATA")
    folder = Path(data or "") / "taskset"
    if not data or not folder.is_dir():
        pytest.skip("needs $TUNE_RNN_DATA/taskset")
    return folder


def test_a_smooth_model_of_a_taskset_table(tables: Path) -> None:
    """It knows the table, and falls between its rows as the hyperparameters say."""
    path = tables / "FixedTextRNNClassification_imdb_patch32_IRNN64_relu_last_bs128.json"
    box = TaskSet(path)
    assert box.best == pytest.approx(0.497, abs=1e-3)
    assert box.max_resource == 50
    rows = json.loads(path.read_text())
    predicted, recorded = [], []
    for row in rows:
        hp = {**row["hp"], "one_minus_beta1": 1 - row["hp"]["beta1"], "one_minus_beta2": 1 - row["hp"]["beta2"]}
        ends = {key: one.corners() for key, one in box.space.items()}
        curve = box.curve({key: min(max(hp[key], low), high) for key, (low, high) in ends.items()})
        assert len(curve) == 50
        predicted.append(curve)
        recorded.append(row["valid"]["loss"][1:])
    diverged = ~np.isfinite(np.array(recorded, dtype=float)).all(axis=1), ~np.isfinite(predicted).all(axis=1)
    assert np.mean(diverged[0] == diverged[1]) > 0.95
    both = ~diverged[0] & ~diverged[1]
    ranks = [np.array(one, dtype=float)[both, -1].argsort().argsort() for one in (recorded, predicted)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    rng = np.random.default_rng(0)
    config = Space(box.space, {}).sample(rng)
    near = {**config, "l1": config["l1"] * 1.01}
    assert box.curve(near)[0] == pytest.approx(box.curve(config)[0], rel=0.02), "smooth"


def test_what_is_no_table(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"hp": 1}')
    with pytest.raises(InputError, match="must be a TaskSet table"):
        TaskSet(file)


def test_the_command_compares_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--search", "random", "sobol", "--scheduler", "asha", "none", "--seeds", "2"]
    assert main([*arguments, "--workers", "2", "--budget", "4", "--blackbox", "crossing"]) == 0
    told = capsys.readouterr()
    assert told.err == "simulating 8 studies of 4 whole trainings …\n"
    lines = told.out.splitlines()
    assert lines[0].startswith("crossing: 2 workers, 4 whole trainings; means of 2 seeds")
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines[3:7]}
    assert list(rows) == [(a, b) for a in ("random", "sobol") for b in ("asha", "none")]
    assert float(rows["random", "asha"][-2]) > float(rows["random", "none"][-2]) == 6, "2 workers begin 3 each"
    assert main([*arguments, "--blackbox", "nowhere"]) == 2
    assert "There are crossing, noisy" in capsys.readouterr().err


def test_a_time_without_a_finished_trial_is_said() -> None:
    rows = [Outcome((math.inf, 2.0, 1.0), 5, 2), Outcome((math.inf, 1.0, 1.0), 5, 2)]
    (row,) = [line for line in _lines([("random", "none")], [rows], "noisy", 2, 4, 2) if line.startswith("random")]
    cells = ["none", "in", "2", "of", "2", "1.5000", "±", "0.5000", "1.0000", "±", "0.0000", "5", "2"]
    assert row.split()[2:] == cells


def test_the_command_wants_time_for_a_whole_training(capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("0.5", "0", "nan"):
        assert main(["simulate", "--budget", given]) == 2
        assert f"--budget: {float(given)}: must be a number of whole trainings, at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["simulate", "--budget", "many"])
    assert "argument --budget: must be a number, not many" in capsys.readouterr().err


def lines_of(losses: list[tuple[float, ...]], workers: int = 8, budget: float = 4) -> list[str]:
    rows = [Outcome(one, 5, 2) for one in losses]
    return list(_lines([("random", "none")], [rows], "noisy", workers, budget, len(rows)))


def test_one_seed_has_no_standard_error() -> None:
    lines = lines_of([(2.5, 2.0, 1.5)], workers=1, budget=1)
    assert lines[0] == "noisy: 1 worker, 1 whole training; 1 seed"
    assert lines[3].split() == ["random", "none", "2.5000", "2.0000", "1.5000", "5", "2"]


def test_a_table_without_any_figure_says_why() -> None:
    none, last = (math.inf, math.inf, math.inf), (math.inf, math.inf, 1.0)
    why = "came to its end in that time, 0.5 whole trainings for each worker: a larger --budget is needed."
    assert lines_of([none, none])[-1] == f"No trial {why}"
    assert lines_of([none, last])[-1] == f"In some studies no trial {why}"
    assert why not in "".join(lines_of([last, last]))


def test_the_model_of_a_table_is_fitted_once(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes as it is to the processes that play, and plays there as it does here."""
    path = tables / "FixedTextRNNClassification_imdb_patch32_GRU64_avg_bs128.json"
    fitted: list[TaskSet] = []
    threads: list[int] = []
    fit = TaskSet._fit

    def counted(self: TaskSet, *given: Any) -> None:
        fitted.append(self)
        threads.extend(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")
        fit(self, *given)

    monkeypatch.setattr(TaskSet, "_fit", counted)
    text = compare(["random"], ["asha"], str(path), 2, 4, 2)
    assert capsys.readouterr().err == "simulating 2 studies of 4 whole trainings …\n"
    assert len(fitted) == 1
    assert set(threads) == {1}, "several wait for each other"
    played = [outcome(simulate("random", "asha", fitted[0], 2, 4, seed), 4) for seed in range(2)]
    assert text == "\n".join(_lines([("random", "asha")], [played], str(path), 2, 4, 2))
