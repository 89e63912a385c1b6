"""From settings as written to an experiment that is right: everything checked, every default filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from tune_rnn.config.conflicts import check_conflicts
from tune_rnn.config.distributions import Distribution, Scalar
from tune_rnn.config.final_stage import check_final, resolve_final
from tune_rnn.config.settings import Flat, Settings, nest
from tune_rnn.config.starting import check_start
from tune_rnn.config.validation import known_keys, validate
from tune_rnn.errors import InputError
from tune_rnn.population import check_population
from tune_rnn.schema import LEARN_NOTHING, Budget, Scheduler, StudyConfig, TrialConfig, flatten
from tune_rnn.space import Space

REPORTS_LIMIT = 10_000  # of one trial


@dataclass(frozen=True)
class Resolved:
    """`settings` has every default, and distributions in place; `trial` has defaults in place of these."""

    study: StudyConfig
    trial: TrialConfig
    settings: Settings
    space: Space


def resolve(written: Settings) -> Resolved:
    """Check everything and fill in every default; InputError for the first thing that is wrong."""
    study = validate(StudyConfig, {"budget": {}, **nest(_fixed(part(written.root, StudyConfig)))})
    trial = _check_trial(part(written.root, TrialConfig))
    report_every = trial.training.report_every or default_report_every(study.budget)
    scheduler = study.scheduler.model_copy(update={"first_rung": study.scheduler.first_rung or report_every})
    _check_reports(study.budget, report_every, scheduler)
    study = study.model_copy(update={"scheduler": scheduler})
    training = trial.training.model_copy(update={"report_every": report_every})
    trial = trial.model_copy(update={"training": training})
    root = _filled({**flatten(study.model_dump(mode="json")), **trial.flat()}, written.root)
    settings = Settings(root, {name: _check_branch(name, branch) for name, branch in written.branches.items()})
    for name in settings.branches or [None]:
        check_conflicts(settings.merged(name))
    space = _space(settings)
    _check_end(study, space)
    check_branches(study.search.algorithm, space)
    check_start(study.search.start, space)
    final = resolve_final(study, space)
    study = study.model_copy(update={"final": final})
    check_population(study, space)
    if final.top_k:
        check_final(final, study, space)
    with_final = {**settings.root, **flatten({"final": final.model_dump(mode="json")})}
    return Resolved(study, trial, Settings(_filled(with_final, {}), settings.branches), space)


def part(flat: Flat, model: type[BaseModel]) -> Flat:
    """Return the keys that belong to a model."""
    return {key: value for key, value in flat.items() if key.partition(".")[0] in model.model_fields}


def in_order(keys: Iterable[str]) -> list[str]:
    """Sort keys as the schema has them, so that a seed gives the same study in whatever order a file is."""
    position = {key: number for number, key in enumerate(known_keys())}
    return sorted(keys, key=position.__getitem__)


def _check_trial(written: Flat, where: Callable[[str], str] = str) -> TrialConfig:
    """Validate fixed values, then each corner of each distribution in its place; return the fixed values."""
    config = validate(TrialConfig, nest(_fixed(written)), where)
    for key, distribution in _searched(written).items():
        for corner in distribution.corners():
            try:
                validate(TrialConfig, nest({key: corner}), where)
            except InputError as error:
                raise _outside(error, distribution, corner) from None
    return config


def _outside(error: InputError, distribution: Distribution, corner: Scalar) -> InputError:
    """Say which of a distribution's values is wrong."""
    ((name, arguments),) = distribution.to_yaml().items()
    rule = f"{error.rule}, and {name}: {arguments} allows this value"
    remedy = error.remedy
    if distribution.categories() is None:
        whole = "whole number" in error.rule
        remedy = "Write int or log_int instead." if whole else "Narrow the range."
    return InputError(error.where, rule, remedy, corner)


def _check_branch(name: str, written: Flat) -> Flat:
    """Validate one branch by itself; return its own keys, in the schema's types."""
    config = _check_trial(written, lambda key: f"one_of.{name}.{key}")
    return _filled({key: value for key, value in config.flat().items() if key in written}, written)


def default_report_every(budget: Budget) -> float:
    """One epoch, or the whole budget if that is less; a twentieth of the tokens."""
    return min(1.0, budget.amount) if budget.unit == "epochs" else max(1.0, budget.amount / 20)


def _check_reports(budget: Budget, report_every: float, scheduler: Scheduler) -> None:
    """Refuse reports and rungs beyond the budget, and those so frequent that they were meant in the other unit."""
    _check_amount("training.report_every", report_every, budget, "Lower it, or raise the budget.")
    if scheduler.algorithm in ("asha", "pbt"):
        remedy = "Lower it, raise the budget, or write scheduler.algorithm: none."
        _check_amount("scheduler.first_rung", scheduler.first_rung or report_every, budget, remedy)


def _check_amount(key: str, amount: float, budget: Budget, remedy: str) -> None:
    whole = f"budget.{budget.unit}, {budget.amount:,.10g}"
    if amount > budget.amount:
        raise InputError(key, f"must not be more than {whole}", remedy, amount)
    if amount < budget.amount / REPORTS_LIMIT:
        rule = f"must be at least 1/{REPORTS_LIMIT:,} of {whole}"
        raise InputError(key, rule, f"Write it in the budget's unit, {budget.unit}.", amount)


def _check_end(study: StudyConfig, space: Space) -> None:
    """A grid must be finite, any other search must have an end; only a grid repeats its points, and does not learn."""
    if study.search.seeds > 1 and study.search.algorithm != "grid":
        rule = f"is for a grid, and search.algorithm is {study.search.algorithm}"
        raise InputError("search.seeds", rule, "Write search.algorithm: grid, or search.seeds: 1.", study.search.seeds)
    if study.search.warm_start and study.search.algorithm in LEARN_NOTHING:
        rule = f"is for a search that learns, and search.algorithm {study.search.algorithm} does not"
        remedy = "Write search.algorithm: hyperopt, or remove it (on the command line: search.warm_start=[])."
        raise InputError("search.warm_start", rule, remedy, list(study.search.warm_start))
    if study.search.algorithm == "grid":
        space.grid_size()
    elif not space.is_empty and study.budget.trials is None and study.budget.hours is None:
        rule = "trials or hours must say when the search ends"
        raise InputError("budget", rule, "Add budget.trials: 32, or budget.hours: 2.")


def check_branches(algorithm: str, space: Space) -> None:
    """Refuse branches where the algorithm cannot search them: a Gaussian process needs the same axes everywhere."""
    if algorithm == "gp" and space.branches:
        first = next(iter(space.branches))
        remedy = f"Write search.algorithm: hyperopt, optuna or forest, or choose a branch: one_of={first}."
        raise InputError("search.algorithm", "cannot search the branches of one_of", remedy, algorithm)


def _filled(values: Flat, written: Flat) -> Flat:
    """Put the distributions back among validated values; in the schema's order, without nulls."""
    merged = {**values, **_searched(written)}
    return {key: merged[key] for key in in_order(merged) if merged[key] is not None}


def _space(settings: Settings) -> Space:
    """A key that some branch has is each branch's own, also where the root's distribution serves others."""
    owned = {key for branch in settings.branches.values() for key in branch}
    shared = {key: value for key, value in settings.root.items() if key not in owned}
    branches = {}
    for name in settings.branches:
        merged = settings.merged(name)
        branches[name] = _searched({key: merged[key] for key in in_order(owned)})
    return Space(_searched(shared), branches)


def _searched(flat: Flat) -> dict[str, Distribution]:
    return {key: value for key, value in flat.items() if isinstance(value, Distribution)}


def _fixed(flat: Mapping[str, object]) -> Flat:
    return {key: value for key, value in flat.items() if not isinstance(value, Distribution)}
