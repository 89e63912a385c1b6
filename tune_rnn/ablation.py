"""What each regulariser of a run's best configuration is worth: it is trained again without it, with several seeds.

A study of its own, on the same machinery: one branch for the whole configuration, one without each regulariser, one
without all; a grid, so that every branch is trained with the same seeds, and differences are taken seed by seed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import RunDirectory, open_run, write_atomically
from tune_rnn.results.journal import Journal
from tune_rnn.schema import TrialConfig
from tune_rnn.search import planned_trials

ALL_ON, ALL_OFF, WITHOUT = "all_on", "all_off", "without_"
CONFIDENCE = 0.95
RETUNE_RANGE = 4.0
"""Learning rates are tried between the best one divided and multiplied by this."""


@dataclass(frozen=True)
class Effect:
    """What leaving a regulariser out did: paired differences of the lowest validation loss, in nats per prediction."""

    branch: str
    seeds: int
    loss: float
    change: float
    low: float
    high: float
    learning_rate: float


def plan(path: str | Path, seeds: int, retune: int = 0, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that leaves out each regulariser of a run's best configuration in turn, and all of them.

    `seeds`: how many for each. `retune`: how many learning rates to try for each (0: the one that was found).
    `overrides` come last. Raises InputError where the run has no best trial, or nothing to leave out.
    """
    run = open_run(path)
    best = Journal(run.journal).best_trial
    if best is None:
        raise InputError(str(path), "the run has no best trial", "Let it find one: `tune-rnn resume`.")
    config = TrialConfig.model_validate(best.config)
    active = active_regularizers(config)
    if not active:
        raise InputError(str(path), "its best configuration has no regulariser on", "There is nothing to leave out.")
    variants = {ALL_ON: {}, **{f"{WITHOUT}{name}": {name: 0} for name in active}, ALL_OFF: dict.fromkeys(active, 0)}
    if len(active) == 1:
        del variants[ALL_OFF]
    learning_rates = _learning_rates(config.training.learning_rate, retune)
    training = {"learning_rate": {"grid": learning_rates}} if retune else {}
    studied = Experiment.load(run.experiment)
    one_of = {name: {"regularizers": off, "training": training} for name, off in variants.items()}
    sections = {key: value for key, value in config.to_dict().items() if key != "one_of"}
    experiment = Experiment(
        name=f"{run.path.name}-ablation"[:100],
        **{name: _without_nulls(section) for name, section in sections.items()},
        one_of=one_of,
        budget={studied.budget.unit: getattr(studied.budget, studied.budget.unit)},
        search={"algorithm": "grid", "seed": studied.search.seed, "seeds": seeds},
        scheduler={"algorithm": "none"},
        resources=_without_nulls(studied.resources.model_dump(mode="json")),
        storage=studied.storage if Path(studied.storage).is_absolute() else str(run.path.parent),
        beside=run.path,
    )
    return experiment.with_overrides(overrides)


def active_regularizers(config: TrialConfig) -> list[str]:
    """The regularisers that do something in a configuration; hidden dropout does nothing in one layer."""
    on = [name for name, value in config.regularizers.model_dump().items() if not isinstance(value, bool) and value > 0]
    return [name for name in on if name != "hidden_dropout" or config.model.layers > 1]


def is_ablation(run: RunDirectory) -> bool:
    """Whether a run is the study of an ablation."""
    return ALL_ON in Experiment.load(run.experiment).space.branches


def is_finished(run: RunDirectory) -> bool:
    """Whether every trial of an ablation has ended; one that failed has not."""
    trials = Journal(run.journal).trials.values()
    ended = sum(trial.outcome not in ("", "failed") for trial in trials)
    return ended == planned_trials(Experiment.load(run.experiment))


def effects(run: RunDirectory) -> list[Effect]:
    """What each branch of a finished ablation shows, in its order; seeds with a failed or diverged trial are left out.

    Where learning rates were tried, a branch is represented by the one of the lowest mean loss.
    """
    losses: dict[str, dict[float, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for trial in Journal(run.journal).trials.values():
        branch, rate = trial.proposal.assignment["one_of"], trial.config["training"]["learning_rate"]
        if trial.outcome in ("completed", "stopped_early") and trial.best_loss is not None:
            losses[branch][rate][trial.seed] = trial.best_loss
    chosen = {branch: _best_rate(by_rate) for branch, by_rate in losses.items()}
    if ALL_ON not in chosen:
        raise InputError(str(run.path), "no trial of the whole configuration was completed", "See its error.txt.")
    _, reference = chosen[ALL_ON]
    return [_effect(branch, rate, by_seed, reference) for branch, (rate, by_seed) in chosen.items()]


def _best_rate(by_rate: Mapping[float, Mapping[int, float]]) -> tuple[float, Mapping[int, float]]:
    return min(by_rate.items(), key=lambda item: statistics.fmean(item[1].values()))


def _effect(branch: str, rate: float, by_seed: Mapping[int, float], reference: Mapping[int, float]) -> Effect:
    seeds = sorted(by_seed.keys() & reference.keys())
    changes = [by_seed[seed] - reference[seed] for seed in seeds]
    mean = statistics.fmean(changes) if changes else math.nan
    half = _half_interval(changes)
    loss = statistics.fmean(by_seed.values())
    return Effect(branch, len(seeds), loss, mean, mean - half, mean + half, rate)


def _half_interval(changes: Sequence[float]) -> float:
    """Half the width of Student's 95 % interval for the mean of paired differences; infinite for a single pair."""
    from scipy.stats import t

    if len(changes) < 2:
        return math.inf
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(changes) - 1))
    return quantile * statistics.stdev(changes) / math.sqrt(len(changes))


def report(run: RunDirectory) -> str:
    """The table of an ablation as text; also written to `ablation.json` in the run."""
    rows = effects(run)
    write_atomically(run.path / "ablation.json", json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    branches = Experiment.load(run.experiment).space.branches
    retuned = any("training.learning_rate" in keys for keys in branches.values())
    reference = next(row for row in rows if row.branch == ALL_ON)
    others = sorted((row for row in rows if row.branch != ALL_ON), key=lambda row: -row.change)
    table = [("left out", "change of validation loss", "95 % interval", "seeds"), *map(_cells, others)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    tuned = (
        "The learning rate was tuned again for each" if retuned else "Other hyperparameters stayed as they were found"
    )
    return "\n".join(
        [
            f"{run.path.name}: nats per prediction, differences seed by seed; positive: the regulariser helped",
            "",
            f"With all of them: {reference.loss:.4f}, mean of {reference.seeds} seeds",
            "",
            *lines,
            "",
            f"{tuned}: what is lost without a regulariser may be less where all else is tuned again.",
            f"Where: {run.path}",
        ]
    )


def _cells(row: Effect) -> tuple[str, str, str, str]:
    what = "all regularisers" if row.branch == ALL_OFF else row.branch.removeprefix(WITHOUT)
    interval = f"{row.low:+.4f} to {row.high:+.4f}" if math.isfinite(row.low) else "needs two seeds"
    return what, f"{row.change:+.4f}" if row.seeds else "no pair", interval, str(row.seeds)


def _learning_rates(best: float, count: int) -> list[float]:
    """`count` rates at equal ratios around the best one, which is among them where the count is odd."""
    if count < 2:
        return [best]
    exponents = [2 * number / (count - 1) - 1 for number in range(count)]
    return [best * RETUNE_RANGE**exponent for exponent in exponents]


def _without_nulls(section: Any) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in section.items()
        if value is not None
    }
