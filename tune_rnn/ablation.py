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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tune_rnn.config.conflicts import acting_dropouts
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import RunDirectory, name_after, open_run, write_atomically
from tune_rnn.results.journal import Journal
from tune_rnn.schema import TrialConfig
from tune_rnn.search import planned_trials

ALL_ON, ALL_OFF, WITHOUT = "all_on", "all_off", "without_"
LAYER_NORM, FRATERNAL = "model.layer_norm", "regularizers.fraternal_dropout"
CONFIDENCE = 0.95
RETUNE_RANGE = 4.0
"""Learning rates are tried between the best one divided and multiplied by this."""


@dataclass(frozen=True)
class Effect:
    """What leaving a regulariser out did: paired differences of the lowest validation loss, in nats per prediction.

    `seeds` counts the pairs and `diverged` the seeds that diverged; without a pair there is no loss and no change.
    """

    branch: str
    seeds: int
    diverged: int
    loss: float | None
    change: float | None
    low: float | None
    high: float | None
    learning_rate: float


def plan(path: str | Path, seeds: int, retune: int = 0, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that leaves out each regulariser of a run's best configuration in turn, and all of them.

    `seeds`: how many for each. `retune`: how many learning rates to try for each (0: the one that was found).
    `overrides` come last. Raises InputError where the run has no best trial, or nothing to leave out, and for a single
    seed or learning rate, which compare nothing.
    """
    if seeds < 2:
        raise InputError("--seeds", "must be at least 2, as differences are taken over seeds", "Leave it at 3.", seeds)
    if retune == 1:
        remedy = "Write --retune 3, or leave it out to keep the one that was found."
        raise InputError("--retune", "must be at least 2 learning rates", remedy, retune)
    run = open_run(path)
    best = Journal(run.journal).best_trial
    if best is None:
        raise InputError(str(path), "the run has no best trial", "Let it find one: `tune-rnn resume`.")
    config = TrialConfig.model_validate(best.config)
    active = active_regularizers(config)
    if not active:
        raise InputError(str(path), "its best configuration has no regulariser on", "There is nothing to leave out.")
    variants = {ALL_ON: [], **{f"{WITHOUT}{key.partition('.')[2]}": [key] for key in active}, ALL_OFF: active}
    if len(active) == 1:
        del variants[ALL_OFF]
    learning_rates = _learning_rates(config.training.learning_rate, retune)
    training = {"learning_rate": {"grid": learning_rates}} if retune else {}
    studied = Experiment.load(run.experiment)
    layers = config.model.layers
    one_of = {name: {**_switched_off(keys, active, layers), "training": training} for name, keys in variants.items()}
    sections = {key: value for key, value in config.to_dict().items() if key != "one_of"}
    experiment = Experiment(
        name=name_after(run, "ablation"),
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
    """Keys of the regularisers that do something in a configuration; those between layers need two of them."""
    strengths = config.regularizers.model_dump().items()
    on = [f"regularizers.{name}" for name, value in strengths if not isinstance(value, bool) and value > 0]
    between = ["regularizers.hidden_dropout"]
    if config.model.layer_norm != "none":
        on.append(LAYER_NORM)
        between += [LAYER_NORM] if config.model.layer_norm == "between" else []
    return [key for key in on if key not in between or config.model.layers > 1]


def _switched_off(keys: Sequence[str], active: Sequence[str], layers: int) -> dict[str, dict[str, Any]]:
    """The sections of a branch without some regularisers; fraternal dropout goes with the last dropout."""
    left = set(active) - set(keys)
    if FRATERNAL in left and not left.intersection(acting_dropouts(layers)):
        keys = [*keys, FRATERNAL]
    sections: dict[str, dict[str, Any]] = {"model": {}, "regularizers": {}}
    for key in keys:
        section, _, name = key.partition(".")
        sections[section][name] = "none" if key == LAYER_NORM else 0
    return sections


def is_ablation(run: RunDirectory) -> bool:
    """Whether a run is the study of an ablation."""
    return ALL_ON in Experiment.load(run.experiment).space.branches


def is_finished(run: RunDirectory) -> bool:
    """Whether every trial of an ablation has ended; one that failed has not."""
    trials = Journal(run.journal).trials.values()
    ended = sum(trial.outcome not in ("", "failed") for trial in trials)
    return ended == planned_trials(Experiment.load(run.experiment))


def effects(run: RunDirectory) -> list[Effect]:
    """What each branch of a finished ablation shows, in its order; failed trials are left out.

    Where learning rates were tried, a branch is represented by the one that diverged least often and then has the
    lowest mean loss.
    """
    branches: dict[str, dict[float, _Outcomes]] = defaultdict(lambda: defaultdict(_Outcomes))
    for trial in Journal(run.journal).trials.values():
        branch, rate = trial.proposal.assignment["one_of"], trial.config["training"]["learning_rate"]
        outcomes = branches[branch][rate]
        if trial.outcome == "diverged":
            outcomes.diverged += 1
        elif trial.outcome in ("completed", "stopped_early") and trial.best_loss is not None:
            outcomes.losses[trial.seed] = trial.best_loss
    chosen = {branch: min(by_rate.items(), key=lambda item: item[1].rank) for branch, by_rate in branches.items()}
    if ALL_ON not in chosen or not chosen[ALL_ON][1].losses:
        remedy = "Look at why its trials failed (error.txt) or diverged (trials.jsonl)."
        raise InputError(str(run.path), "no trial of the whole configuration was completed", remedy)
    _, reference = chosen[ALL_ON]
    return [_effect(branch, rate, outcomes, reference.losses) for branch, (rate, outcomes) in chosen.items()]


@dataclass
class _Outcomes:
    """Of one branch at one learning rate: losses by seed."""

    losses: dict[int, float] = field(default_factory=dict)
    diverged: int = 0

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses.values()) if self.losses else math.inf

    @property
    def rank(self) -> tuple[bool, int, float]:
        return not self.losses, self.diverged, self.mean


def _effect(branch: str, rate: float, outcomes: _Outcomes, reference: Mapping[int, float]) -> Effect:
    seeds = sorted(outcomes.losses.keys() & reference.keys())
    if not seeds:
        return Effect(branch, 0, outcomes.diverged, None, None, None, None, rate)
    changes = [outcomes.losses[seed] - reference[seed] for seed in seeds]
    mean, half = statistics.fmean(changes), _half_interval(changes)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Effect(branch, len(seeds), outcomes.diverged, outcomes.mean, mean, low, high, rate)


def _half_interval(changes: Sequence[float]) -> float | None:
    """Half the width of Student's 95 % interval for the mean of paired differences; None for a single pair."""
    from scipy.stats import t

    if len(changes) < 2:
        return None
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(changes) - 1))
    return quantile * statistics.stdev(changes) / math.sqrt(len(changes))


def report(run: RunDirectory) -> str:
    """The table of an ablation as text; also written to `ablation.json` in the run."""
    rows = effects(run)
    write_atomically(run.path / "ablation.json", json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    branches = Experiment.load(run.experiment).space.branches
    retuned = any("training.learning_rate" in keys for keys in branches.values())
    reference = next(row for row in rows if row.branch == ALL_ON)
    others = sorted((row for row in rows if row.branch != ALL_ON), key=_worst_first)
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


def _worst_first(row: Effect) -> float:
    return -math.inf if row.change is None else -row.change


def _cells(row: Effect) -> tuple[str, str, str, str]:
    what = "all regularisers" if row.branch == ALL_OFF else row.branch.removeprefix(WITHOUT)
    diverged = f"{row.diverged} diverged" if row.diverged else ""
    if row.change is None:
        return what, diverged or "no pair", "", "0"
    known = row.low is not None and row.high is not None
    interval = f"{row.low:+.4f} to {row.high:+.4f}" if known else "needs two seeds"
    return what, f"{row.change:+.4f}", interval, f"{row.seeds}, {diverged}" if diverged else str(row.seeds)


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
