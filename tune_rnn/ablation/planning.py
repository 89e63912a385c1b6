"""The study of an ablation: which configurations, seeds and learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune_rnn.config.conflicts import acting_dropouts
from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import RunDirectory, name_after, open_run
from tune_rnn.results.journal import Journal
from tune_rnn.results.mirror import is_remote
from tune_rnn.schema import TrialConfig

ALL_ON, ALL_OFF, WITHOUT, AND = "all_on", "all_off", "without_", "_and_"
CLIPPING_ALONE, CLIPPING = "clipping_alone", ("regularizers.clip_norm", "regularizers.clip_value")
LAYER_NORM, FRATERNAL = "model.layer_norm", "regularizers.fraternal_dropout"
FIXED = ("search.", "scheduler.", "final.", "budget.trials", "one_of")
"""Overrides of these would undo what makes differences comparable."""

RETUNE_RANGE = 4.0
"""Learning rates are tried between the best one divided and multiplied by this."""


def plan(path: str | Path, seeds: int, retune: int = 0, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that leaves out each regulariser of a run's best configuration in turn, and all of them.

    Where gradients are clipped, all but clipping are left out as well: without it training may not get anywhere,
    which says nothing about the others.

    `seeds`: how many for each. `retune`: how many learning rates to try for each (0: the one that was found).
    `overrides` change the configuration before anything is left out. Raises InputError where the run has no best
    trial, or nothing to leave out, and for what would compare nothing.
    """
    _check(seeds, retune, overrides)
    run = open_run(path)
    whole = _whole(run, overrides)
    config = whole.trial_config({})
    variants = _variants(config)
    if len(variants) == 1:
        rule = "its best configuration has no regulariser on, so there is nothing to leave out"
        raise InputError(str(path), rule, "Switch one on: for example regularizers.weight_drop=0.3.")
    rates = _learning_rates(config.training.learning_rate, retune)
    training = {"learning_rate": {"grid": rates}} if retune else {}
    sections = {key: value for key, value in config.to_dict().items() if key != "one_of"}
    return Experiment(
        name=whole.name,
        **{name: _without_nulls(section) for name, section in sections.items()},
        one_of={name: {**_switched_off(keys), "training": training} for name, keys in variants.items()},
        budget=_without_nulls(whole.budget.model_dump(mode="json", exclude={"trials"})),
        search={"algorithm": "grid", "seed": whole.search.seed, "seeds": seeds},
        scheduler={"algorithm": "none"},
        resources=_without_nulls(whole.resources.model_dump(mode="json")),
        storage=whole.storage,
        beside=run.path,
    )


def size(experiment: Experiment) -> str:
    """How many trainings an ablation takes, in a sentence."""
    branches, seeds = experiment.space.branches, experiment.search.seeds
    rates = experiment.space.grid_size() // len(branches)
    tried = f" × {plural(rates, 'learning rate')}" if rates > 1 else ""
    total = plural(experiment.planned_trials or 0, "training")
    return f"{plural(len(branches), 'configuration')}{tried} × {plural(seeds, 'seed')}: {total}"


def is_ablation(experiment: Experiment) -> bool:
    """Whether an experiment is that of an ablation."""
    return ALL_ON in experiment.space.branches


def active_regularizers(config: TrialConfig) -> list[str]:
    """Keys of the regularisers that do something in a configuration; those between layers need two of them."""
    strengths = config.regularizers.model_dump().items()
    on = [f"regularizers.{name}" for name, value in strengths if not isinstance(value, bool) and value > 0]
    between = ["regularizers.hidden_dropout"]
    if config.model.layer_norm != "none":
        on.append(LAYER_NORM)
        between += [LAYER_NORM] if config.model.layer_norm == "between" else []
    return [key for key in on if key not in between or config.model.layers > 1]


def _check(seeds: int, retune: int, overrides: Sequence[str]) -> None:
    if seeds < 2:
        raise InputError("--seeds", "must be at least 2, as differences are taken over seeds", "Leave it at 3.", seeds)
    if retune == 1:
        remedy = "Write --retune 3, or leave it out to keep the one that was found."
        raise InputError("--retune", "must be at least 2 learning rates", remedy, retune)
    for override in overrides:
        if override.startswith(FIXED):
            rule = "cannot be changed in an ablation, which trains all its configurations alike"
            raise InputError(override.partition("=")[0], rule, "Remove it; --seeds and --retune say how many.")


def _whole(run: RunDirectory, overrides: Sequence[str]) -> Experiment:
    """The best configuration as an experiment of its own, with the overrides."""
    best = Journal(run.journal).best_trial
    if best is None:
        raise InputError(str(run.path), "the run has no best trial", "Let it find one: `tune-rnn resume`.")
    config, studied = TrialConfig.model_validate(best.best_stretch.config), Experiment.of_run(run.experiment)
    sections = {key: value for key, value in config.to_dict().items() if key != "one_of"}
    is_a_place = is_remote(studied.storage) or Path(studied.storage).is_absolute()
    experiment = Experiment(
        name=name_after(run, "ablation"),
        **{name: _without_nulls(section) for name, section in sections.items()},
        budget={studied.budget.unit: getattr(studied.budget, studied.budget.unit), "trials": 1},
        search={"seed": studied.search.seed},
        resources=_without_nulls(studied.resources.model_dump(mode="json")),
        storage=studied.storage if is_a_place else str(run.path.parent),
        beside=run.path,
    ).with_overrides(overrides)
    if experiment.unfixed:
        raise InputError(experiment.unfixed[0], "must have a single value in an ablation", "Give it one.")
    return experiment


def _variants(config: TrialConfig) -> dict[str, list[str]]:
    """What is switched off in each branch; fraternal dropout goes with the last dropout, whose draws it compares."""
    active = active_regularizers(config)
    dropouts = acting_dropouts(config.model.layers)
    variants: dict[str, list[str]] = {ALL_ON: []}
    for key in active:
        off = [key]
        if FRATERNAL in active and key != FRATERNAL and not set(active).intersection(dropouts) - {key}:
            off.append(FRATERNAL)
        variants[WITHOUT + AND.join(one.partition(".")[2] for one in off)] = off
    unclipped = [key for key in active if key not in CLIPPING]
    for name, off in ((ALL_OFF, active), (CLIPPING_ALONE, unclipped)):
        if len(off) > 1 and not any(set(off) == set(other) for other in variants.values()):
            variants[name] = off
    return variants


def _switched_off(keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sections of a branch without some regularisers."""
    sections: dict[str, dict[str, Any]] = {"model": {}, "regularizers": {}}
    for key in keys:
        section, _, name = key.partition(".")
        sections[section][name] = "none" if key == LAYER_NORM else 0
    return sections


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
