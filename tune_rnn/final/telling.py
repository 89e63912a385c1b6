"""The final stage in the text that ends a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tune_rnn.confidence import BOOTSTRAP_HOLDS
from tune_rnn.display import plural
from tune_rnn.experiment import Experiment
from tune_rnn.final.audit import Audit
from tune_rnn.final.findings import Findings
from tune_rnn.final.ranking import Candidate
from tune_rnn.results.journal import Journal


def lines(found: Findings, journal: Journal, experiment: Experiment, run: Path) -> list[str]:
    """A small table, what it tells, and what the audit shows."""
    told = [*_table(found, journal, experiment), *([found.verdict] if found.verdict else [])]
    best = journal.best_trial
    if best is not None and best.of is not None:
        told.append(f"The best model is that of trial {best.number}: trial {best.of} with the seed that went best.")
    told += _caveats(found, experiment, run)
    return [*told, *(_audited(found.audit, experiment) if found.audit else ())]


def _table(found: Findings, journal: Journal, experiment: Experiment) -> list[str]:
    if not found.seeds:
        return []
    final, budget = experiment.final, experiment.budget
    each = plural(budget.amount if final is None else final.amount(budget), budget.unit[:-1])
    title = f"lowest validation loss of {plural(found.seeds, 'new seed')} each, {each}, the best mean first"
    head = ("configuration", "mean", "std", "95 % interval", "in the search")
    return [title, *_aligned([head, *(_cells(one, journal, experiment.search.seed) for one in found.candidates)])]


def _caveats(found: Findings, experiment: Experiment, run: Path) -> Iterator[str]:
    """What the numbers cannot tell, and what would tell more."""
    hours = "" if experiment.budget.hours is None else f" budget.hours={2 * experiment.budget.hours:g}"
    for one in found.incomplete if found.candidates else ():
        caught_up = len(one.losses.keys() & found.candidates[0].losses.keys())
        has = f"{caught_up} of {plural(found.seeds, 'seed')}"
        yield f"Trial {one.trial} joined later and is not compared before it has caught up; it has {has}."
    if holds := BOOTSTRAP_HOLDS.get(found.seeds):
        often = f"it holds the true mean in {_percent(holds)} of cases"
        yield f"Over {found.seeds} seeds a bootstrap interval is narrow: {often}."
    if found.told_apart is False and not found.missing:
        yield f"More seeds may tell: `tune-rnn resume {run} final.seeds={2 * found.asked}{hours}`."
    if found.missing:
        whom = "those compared" if found.incomplete else "all"
        done = f"{found.seeds} of {plural(found.asked, 'seed')} complete for {whom}"
        yield f"{plural(found.missing, 'training')} missing, {done}: `tune-rnn resume {run}{hours}` goes on."


def _cells(candidate: Candidate, journal: Journal, seed: int) -> tuple[str, ...]:
    interval, searched = candidate.interval(seed), journal.trials[candidate.trial].best_loss
    ends = "needs two seeds" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
    diverged = f", {candidate.diverged} diverged" if candidate.diverged else ""
    return (
        f"of trial {candidate.trial}",
        _loss(candidate.mean) + diverged,
        _loss(candidate.std),
        ends,
        _loss(searched),
    )


def _audited(audit: Audit, experiment: Experiment) -> Iterator[str]:
    count, unit = len(audit.stopped), experiment.budget.unit[:-1]
    if audit.interval is not None:
        low, high = audit.interval
        share = f"{_percent(audit.share or 0.0)}, 95 % interval {_percent(low)} to {_percent(high)}"
        among = f"the best {audit.kept} of {len(audit.finished)} that the search finished"
        false, won = len(audit.false_stops), len(audit.would_have_won)
        yield f"Audit: of {plural(count, 'stopped trial')} trained to the end {false} came among {among}"
        yield f"  (false stops: {share}); {won} would have been the best of all."
    if count < audit.asked:
        yield f"Audit: {count} of {plural(audit.asked, 'trial')} asked for were trained to the end."
    known = [(rung, rho, trials) for rung, rho, trials in audit.correlations if rho is not None]
    if known:
        told = ", ".join(f"{rho:+.2f} after {plural(rung, unit)} ({trials} trials)" for rung, rho, trials in known)
        yield f"Rank correlation (Spearman) with the loss at the end: {told}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
