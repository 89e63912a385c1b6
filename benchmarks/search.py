"""What search and early stopping find, ours and others', on recorded and synthetic learning curves.

    python benchmarks/search.py --results search.jsonl [--workers 8 64] [--seeds 20] [--methods …] [--boxes …]

Protocol: simulated studies (`tune_rnn.simulate`); each worker has the time of 5 whole trainings (8 workers: 40 in all).
Black boxes: TaskSet tables ($TUNE_RNN_DATA/taskset, a smooth model of each), and members of the synthetic families,
another one for each seed. Regret at a time = (lowest loss at a whole budget's end so far − best) / (median − best),
clipped to [0, 1], and 1 before a trial has finished; best and median are a table's own or, of a synthetic member, those
of 2,000 random configurations and its optimum. Shown at 25, 50 and 100 % of the time: the mean over boxes and seeds,
its ratio to the documented Ray combination's at the end, and how much lower that of ours is, with bootstrap intervals
over (box, seed) pairs. A trial that diverges ends at once, whoever runs it. What has been played is kept in the results
file: the command can be interrupted and repeated.

Others are driven through their public interfaces: Ray's HyperOptSearch and ASHAScheduler with their defaults, as
Ray's documentation puts them together; Optuna's TPE with its Hyperband and median pruners; SMAC's multi-fidelity
facade by ask and tell, which trains a configuration that it promotes from the beginning, as its documentation does, and
is told the worst loss so far for one that diverges.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tune_rnn.search import Proposal
from tune_rnn.simulation import Synthetic, TaskSet, simulate
from tune_rnn.simulation.table import PARTS
from tune_rnn.space import Distribution, Int, LogInt, LogUniform, Space, Uniform

TRAININGS = 5  # of each worker's time
REFERENCE, OWN = "ray", "tune_rnn"
SYNTHETIC = ("crossing", "noisy")
Box = TaskSet | Synthetic


class Ray:
    """HyperOptSearch and ASHAScheduler with the defaults of Ray Tune, as its documentation combines them."""

    def __init__(self, box: Box, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.hyperopt import HyperOptSearch

        self.space = box.space
        space = HyperOptSearch.convert_search_space(_ray_space(box.space))
        self.search = HyperOptSearch(space, metric="loss", mode="min", random_state_seed=seed)
        self.asha = ASHAScheduler(time_attr="spent", metric="loss", mode="min", max_t=box.max_resource)
        self.controller: Any = None  # ASHA asks nothing of it
        self.trials: dict[int, Any] = {}
        self.last: dict[int, dict[str, float]] = {}

    def propose(self, number: int) -> Proposal:
        return Proposal(dict(self.search.suggest(str(number)) or {}))

    def began(self, number: int, assignment: Mapping[str, Any]) -> None:
        self.trials[number] = SimpleNamespace(trial_id=str(number))
        self.asha.on_trial_add(self.controller, self.trials[number])

    def reported(self, number: int, spent: float, score: float) -> None:
        self.last[number] = {"spent": spent, "loss": score}
        self.search.on_trial_result(str(number), self.last[number])

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        result = {"spent": spent, "loss": score}
        return self.asha.on_trial_result(self.controller, self.trials[number], result) == "CONTINUE"

    def ended(self, number: int, diverged: bool = False) -> None:
        result = {"spent": 1, "loss": math.nan} if diverged else self.last[number]
        self.asha.on_trial_complete(self.controller, self.trials.pop(number), result)
        self.search.on_trial_complete(str(number), result)


class Optuna:
    """Optuna's TPE with a pruner, as its documentation has them: ask, report, should_prune, tell."""

    def __init__(self, box: Box, seed: int, pruner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruners: dict[str, Callable[[], Any]] = {
            "hyperband": lambda: optuna.pruners.HyperbandPruner(max_resource=box.max_resource),
            "median": optuna.pruners.MedianPruner,
        }
        sampler = optuna.samplers.TPESampler(seed=seed)
        self.study = optuna.create_study(sampler=sampler, pruner=pruners[pruner]())
        self.space = {key: _optuna_distribution(one) for key, one in box.space.items()}
        self.states = optuna.trial.TrialState
        self.trials: dict[int, Any] = {}
        self.stopped: set[int] = set()
        self.last: dict[int, float] = {}

    def propose(self, number: int) -> Proposal:
        self.trials[number] = self.study.ask(self.space)
        return Proposal(dict(self.trials[number].params))

    def began(self, number: int, assignment: Mapping[str, Any]) -> None:
        """Optuna's trial began with `ask`."""

    def reported(self, number: int, spent: float, score: float) -> None:
        self.last[number] = score
        self.trials[number].report(score, int(spent))

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        if self.trials[number].should_prune():
            self.stopped.add(number)
        return number not in self.stopped

    def ended(self, number: int, diverged: bool = False) -> None:
        trial = self.trials.pop(number)
        if diverged:
            self.study.tell(trial, state=self.states.FAIL)
        elif number in self.stopped:
            self.study.tell(trial, state=self.states.PRUNED)
        else:
            self.study.tell(trial, self.last[number])


class Smac:
    """SMAC's multi-fidelity facade: random forests over configurations and budgets, run in Hyperband's brackets."""

    TRIALS = 100  # for each worker; SMAC's initial design is at most a quarter of them

    def __init__(self, box: Box, seed: int, workers: int) -> None:
        from ConfigSpace import ConfigurationSpace
        from smac import MultiFidelityFacade, Scenario

        self.folder = tempfile.TemporaryDirectory()  # it insists on writing
        self.space = ConfigurationSpace(seed=seed)
        self.space.add([_smac_parameter(key, one) for key, one in box.space.items()])
        scenario = Scenario(
            self.space,
            output_directory=Path(self.folder.name),
            deterministic=True,
            min_budget=1,
            max_budget=box.max_resource,
            n_trials=self.TRIALS * workers,
            seed=seed,
        )
        self.facade = MultiFidelityFacade(scenario, _never_called, logging_level=False)
        self.trials: dict[int, Any] = {}
        self.last: dict[int, float] = {}
        self.worst = -math.inf

    def propose(self, number: int) -> Proposal:
        self.trials[number] = self.facade.ask()
        values = dict(self.trials[number].config).items()
        return Proposal({key: value.item() if isinstance(value, np.generic) else value for key, value in values})

    def began(self, number: int, assignment: Mapping[str, Any]) -> None:
        """SMAC's trial began with `ask`."""

    def reported(self, number: int, spent: float, score: float) -> None:
        self.last[number] = score
        self.worst = max(self.worst, score)

    def goes_on(self, number: int, spent: float, score: float) -> bool:
        return bool(spent < round(self.trials[number].budget))

    def ended(self, number: int, diverged: bool = False) -> None:
        from smac.runhistory.dataclasses import TrialValue

        cost = max(self.worst, 0.0) if diverged else self.last[number]
        self.facade.tell(self.trials.pop(number), TrialValue(cost=cost), save=False)


def _never_called(config: Any, seed: int = 0, budget: float = 0) -> float:
    raise NotImplementedError("SMAC is asked and told")


OURS = {
    "random": ("random", "none"),
    "random + asha": ("random", "asha"),
    "tune_rnn": ("hyperopt", "asha"),
    "hyperopt + hyperband": ("hyperopt", "hyperband"),
    "hyperopt + median": ("hyperopt", "median"),
    "sobol + asha": ("sobol", "asha"),
    "optuna + asha": ("optuna", "asha"),
    "gp + asha": ("gp", "asha"),
    "forest + asha": ("forest", "asha"),
}
OTHERS: dict[str, Callable[[Box, int, int], Any]] = {
    "ray": lambda box, seed, workers: Ray(box, seed),
    "optuna + hyperband": lambda box, seed, workers: Optuna(box, seed, "hyperband"),
    "optuna + median": lambda box, seed, workers: Optuna(box, seed, "median"),
    "smac": Smac,
}


def play(method: str, box_name: str, workers: int, seed: int) -> dict[str, Any]:
    """One simulated study; returns a row of the results."""
    box, best, median = open_box(box_name, seed)
    search, scheduler = OURS.get(method) or (OTHERS[method](box, seed, workers),) * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the others' warnings
        history = simulate(search, scheduler, box, workers, TRAININGS * workers, seed)
    end = TRAININGS * box.max_resource
    losses = [history.finished_loss_at(part * end) for part in PARTS]
    regrets = [float(np.clip((loss - best) / (median - best), 0, 1)) for loss in losses]
    counts = {"trials": len(history.trials), "finished": history.count_finished()}
    return {"method": method, "box": box_name, "workers": workers, "seed": seed, "regrets": regrets, **counts}


@cache
def open_box(name: str, seed: int) -> tuple[Box, float, float]:
    """A black box with the best and the median loss that regrets are counted from."""
    if name not in SYNTHETIC:
        table = _table(name)
        return table, table.best, table.median
    box, generator = Synthetic(name, seed), np.random.default_rng(0)
    drawn = [box.curve(Space(box.space, {}).sample(generator))[-1] for _ in range(2000)]
    ends = [loss for loss in drawn if math.isfinite(loss)]
    return box, min(*ends, box.curve(box.optimum_config)[-1]), float(np.median(ends))


@cache
def _table(path: str) -> TaskSet:
    return TaskSet(path)


def _ray_space(space: Mapping[str, Distribution]) -> dict[str, Any]:
    from ray import tune

    def written(one: Distribution) -> Any:
        if isinstance(one, LogUniform):
            return tune.loguniform(one.low, one.high)
        if isinstance(one, Uniform):
            return tune.uniform(one.low, one.high)
        if isinstance(one, LogInt):
            return tune.lograndint(one.low, one.high + 1)
        if isinstance(one, Int):
            return tune.choice(list(one.values())) if one.step > 1 else tune.randint(one.low, one.high + 1)
        return tune.choice(list(one.values() or ()))

    return {key: written(one) for key, one in space.items()}


def _optuna_distribution(one: Distribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(one, (LogUniform, Uniform)):
        return FloatDistribution(one.low, one.high, log=isinstance(one, LogUniform))
    if isinstance(one, (LogInt, Int)):
        step = one.step if isinstance(one, Int) else 1
        return IntDistribution(one.low, one.high, log=isinstance(one, LogInt), step=step)
    return CategoricalDistribution(list(one.values() or ()))


def _smac_parameter(key: str, one: Distribution) -> Any:
    from ConfigSpace import Categorical, Float, Integer
    from ConfigSpace import OrdinalHyperparameter as Ordinal

    if isinstance(one, (LogUniform, Uniform)):
        return Float(key, (one.low, one.high), log=isinstance(one, LogUniform))
    if isinstance(one, LogInt) or (isinstance(one, Int) and one.step == 1):
        return Integer(key, (one.low, one.high), log=isinstance(one, LogInt))
    if isinstance(one, Int):
        return Ordinal(key, list(one.values()))
    return Categorical(key, list(one.values() or ()))


def table(rows: Sequence[dict[str, Any]], workers: int) -> str:
    """The table of one number of workers, in Markdown."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    regrets = {m: {(r["box"], r["seed"]): r["regrets"] for r in rows if r["method"] == m} for m in methods}
    heads = [f"{part:.0%}".replace("%", " %") for part in PARTS]
    ours = [f"`{OWN}` less it, {head}" for head in heads]
    titles = [f"{workers} workers", *heads, f"ratio to `{REFERENCE}`, 100 %", *ours, "plays", "trials", "finished"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        means = [f"{np.mean([row['regrets'][place] for row in own]):.3f}" for place in range(len(PARTS))]
        ratio = _with_interval(_pairs(regrets[method], regrets.get(REFERENCE, {}), -1), _ratio, ".2f")
        pairs = [_pairs(regrets.get(OWN, {}), regrets[method], place) for place in range(len(PARTS))]
        less = ["" if method == OWN else _with_interval(one, _difference, "+.3f") for one in pairs]
        counts = [f"{np.mean([row[count] for row in own]):.0f}" for count in ("trials", "finished")]
        lines.append(f"| {' | '.join([method, *means, ratio, *less, str(len(own)), *counts])} |")
    return "\n".join(lines)


def _pairs(one: dict[Any, list[float]], other: dict[Any, list[float]], place: int) -> np.ndarray[Any, Any]:
    """Regrets (N, 2) of two methods on the same box with the same seed."""
    return np.array([(one[key][place], other[key][place]) for key in one if key in other])


def _ratio(means: np.ndarray[Any, Any]) -> Any:
    return means[..., 0] / means[..., 1]


def _difference(means: np.ndarray[Any, Any]) -> Any:
    return means[..., 0] - means[..., 1]


def _with_interval(pairs: np.ndarray[Any, Any], of: Callable[[np.ndarray[Any, Any]], Any], digits: str) -> str:
    """Something of the two mean regrets, with the bootstrap's 95 % interval over pairs."""
    if not len(pairs):
        return ""
    drawn = pairs[np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))].mean(axis=1)
    low, high = np.quantile(of(drawn), (0.025, 0.975))
    return f"{of(pairs.mean(axis=0)):{digits}} ({low:{digits}} to {high:{digits}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="a file of JSON lines; what it has is not repeated")
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=[*OURS, *OTHERS], choices=[*OURS, *OTHERS])
    parser.add_argument("--boxes", nargs="+", help="crossing, noisy, TaskSet tables (default: all)")
    options = parser.parse_args()
    tables = sorted(Path(os.environ.get("TUNE_RNN_DATA", "")).glob("taskset/*.json"))
    boxes = options.boxes or [*SYNTHETIC, *map(str, tables)]
    known = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    done = {(row["method"], row["box"], row["workers"], row["seed"]) for row in known}
    wanted = [
        (method, box, workers, seed)
        for workers in options.workers
        for seed in range(options.seeds)
        for method in options.methods
        for box in boxes
    ]
    with ProcessPoolExecutor() as processes, options.results.open("a") as file:
        for future in as_completed(processes.submit(play, *one) for one in wanted if one not in done):
            known.append(future.result())
            print(json.dumps(known[-1]), file=file, flush=True)
    for workers in options.workers:
        shown = {one for one in wanted if one[2] == workers}
        rows = [row for row in known if (row["method"], row["box"], row["workers"], row["seed"]) in shown]
        print(table(sorted(rows, key=lambda row: options.methods.index(row["method"])), workers), end="\n\n")


if __name__ == "__main__":
    main()
