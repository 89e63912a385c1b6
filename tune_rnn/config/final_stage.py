"""Whether a study has a final stage, which it has by default, and what is wrong with one that is asked for."""

from __future__ import annotations

from tune_rnn.config.planned import planned_trials
from tune_rnn.errors import InputError
from tune_rnn.schema import Budget, Final, Scheduler, Search, StudyConfig
from tune_rnn.space import Space

TRIALS_EACH = 4


def resolve_final(study: StudyConfig, space: Space) -> Final:
    """What is written, or the default: on, but for `reason_against`; with `top_k` 0 there is no final stage.

    Any key below `final` asks for one. Not so with pbt, which cannot have it: there `top_k` alone does, and is refused.
    """
    final, written = study.final or Final(), study.final
    if written is not None and "top_k" in written.model_fields_set:
        return final
    asked = written is not None and not _is_population(study.scheduler, space)
    if not asked and reason_against(study.search, study.scheduler, space):
        return final.model_copy(update={"top_k": 0})
    trials = planned_trials(study.budget, study.search, space)
    return final if trials is None else final.model_copy(update={"top_k": default_candidates(trials)})


def default_candidates(trials: int) -> int:
    """A small study has one for each `TRIALS_EACH` trials, so that the search is the larger part."""
    return max(1, min(Final().top_k, trials // TRIALS_EACH))


def reason_against(search: Search, scheduler: Scheduler, space: Space) -> str:
    """Why there is no final stage by default, in words that follow "as"; empty where there is one."""
    if space.is_empty:
        return "nothing is searched"
    if _is_population(scheduler, space):
        return "configurations change while pbt trains them"
    return f"each point of the grid has {search.seeds} seeds already" if search.seeds > 1 else ""


def _is_population(scheduler: Scheduler, space: Space) -> bool:
    return scheduler.algorithm == "pbt" and not space.is_empty


def check_final(final: Final, study: StudyConfig, space: Space) -> None:
    """Refuse trainings shorter than the search's, and an audit where no trial is stopped early."""
    budget, scheduler = study.budget, study.scheduler
    other = "tokens" if budget.unit == "epochs" else "epochs"
    if (value := getattr(final, other)) is not None:
        raise InputError(f"final.{other}", f"the budget is in {budget.unit}", f"Write final.{budget.unit}.", value)
    amount = final.amount(budget)
    if amount < budget.amount:
        rule = f"must not be less than budget.{budget.unit}, {budget.amount:,.10g}"
        raise InputError(f"final.{budget.unit}", rule, "Raise it, or leave it out to train as long as that.", amount)
    nothing = _nothing_is_stopped(scheduler, budget, space)
    if final.audit and nothing:
        remedy = "Remove it, or give the scheduler something to stop."
        raise InputError("final.audit", f"trains on what was stopped early, and {nothing}", remedy, final.audit)


def _nothing_is_stopped(scheduler: Scheduler, budget: Budget, space: Space) -> str:
    """Why no trial can be stopped early; empty where some can."""
    if scheduler.algorithm == "none":
        return "scheduler.algorithm is none"
    if space.is_empty:
        return "with nothing to search there is one trial"
    whole = scheduler.first_rung is not None and scheduler.first_rung >= budget.amount
    return f"scheduler.first_rung is the whole budget.{budget.unit}" if whole else ""
