"""What an ablation showed: the change of the loss without each regulariser, with intervals over paired seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tune_rnn.ablation.planning import ALL_OFF, ALL_ON, AND, CLIPPING_ALONE, WITHOUT, is_ablation
from tune_rnn.confidence import student_interval
from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import RunDirectory, write_atomically
from tune_rnn.results.journal import SEARCH, Journal
from tune_rnn.results.mirror import below, is_remote, working_directory


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
    learning_rate: float | None


def is_finished(run: RunDirectory) -> bool:
    """Whether every trial of an ablation has ended; one that failed has not."""
    return _missing(run) == 0


def refuse_a_second(experiment: Experiment) -> None:
    """Raise InputError where the same ablation has been begun and not finished: it is to go on, not to start over."""
    for run in _namesakes(experiment):
        if not run.experiment.is_file():
            continue
        other = Experiment.of_run(run.experiment)
        (precision,) = other.extremes("training.precision")
        same = experiment.replace("name", other.name).replace("training.precision", precision)
        if is_ablation(other) and other == same and not is_finished(run):
            anew = f"to begin anew, give another name: name={experiment.name}-2."
            remedy = f"`tune-rnn ablate {run.place}` goes on with it; {anew}"
            raise InputError(run.place, "is the same ablation, begun and not finished", remedy)


def _namesakes(experiment: Experiment) -> Iterator[RunDirectory]:
    """Runs whose names begin like an experiment's; on object storage those that were worked on here."""
    storage, remote = experiment.storage, is_remote(experiment.storage)
    root = working_directory(storage) if remote else Path(storage).expanduser()
    for path in sorted(root.glob(f"{experiment.name}*")):
        yield RunDirectory(path, below(storage, path.name) if remote else "")


def _missing(run: RunDirectory) -> int:
    trials = Journal(run.journal).in_stage(SEARCH)
    ended = sum(trial.outcome not in ("", "failed") for trial in trials)
    return (Experiment.of_run(run.experiment).planned_trials or 0) - ended


def effects(run: RunDirectory) -> list[Effect]:
    """What each branch of an ablation shows, in its order; trials that failed or have not ended are left out.

    Where learning rates were tried, a branch is represented by the one that diverged least often and then has the
    lowest mean loss.
    """
    branches: dict[str, dict[float | None, _Outcomes]] = defaultdict(lambda: defaultdict(_Outcomes))
    for trial in Journal(run.journal).in_stage(SEARCH):
        branch, rate = trial.assignment["one_of"], trial.config["training"]["learning_rate"]
        outcomes = branches[branch][rate]
        if trial.outcome == "diverged":
            outcomes.diverged += 1
        elif trial.outcome in ("completed", "stopped_early") and trial.best_loss is not None:
            outcomes.losses[trial.seed] = trial.best_loss
    for branch in Experiment.of_run(run.experiment).space.branches:
        branches.setdefault(branch, {None: _Outcomes()})
    chosen = {branch: min(by_rate.items(), key=lambda item: item[1].rank) for branch, by_rate in branches.items()}
    if not chosen[ALL_ON][1].losses:
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


def _effect(branch: str, rate: float | None, outcomes: _Outcomes, reference: Mapping[int, float]) -> Effect:
    seeds = sorted(outcomes.losses.keys() & reference.keys())
    if not seeds:
        return Effect(branch, 0, outcomes.diverged, None, None, None, None, rate)
    changes = [outcomes.losses[seed] - reference[seed] for seed in seeds]
    low, high = student_interval(changes) or (None, None)
    return Effect(branch, len(seeds), outcomes.diverged, outcomes.mean, statistics.fmean(changes), low, high, rate)


def report(run: RunDirectory) -> str:
    """The table of an ablation as text; also written to `ablation.json` in the run."""
    rows = effects(run)
    write_atomically(run.path / "ablation.json", json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    experiment = Experiment.of_run(run.experiment)
    rates = _rates(experiment)
    reference = next(row for row in rows if row.branch == ALL_ON)
    others = sorted((row for row in rows if row.branch != ALL_ON), key=_worst_first)
    table = [("left out", "change of validation loss", "95 % interval", "seeds", "learning rate")]
    table += [(*_cells(row), _rate(row.learning_rate, rates)) for row in others]
    shown = table if rates else [row[:-1] for row in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    of = f"mean of {plural(reference.seeds, 'seed')}"
    with_rate = f", at the learning rate {_rate(reference.learning_rate, rates)}" if rates else ""
    return "\n".join(
        [
            f"{run.path.name}: nats per prediction, differences seed by seed; positive: the regulariser helped",
            "",
            f"With all of them: {reference.loss:.4f}, {of}{with_rate}",
            "",
            *lines,
            "",
            *_caveats(run, rates, [row.learning_rate for row in rows]),
            f"Where: {run.place}",
        ]
    )


def _caveats(run: RunDirectory, rates: Sequence[float], chosen: Sequence[float | None]) -> list[str]:
    """What stayed as it was, what is missing, what lies at an edge."""
    missing = _missing(run)
    said = ["Other hyperparameters stayed as they were found: tuned again, less may be lost without a regulariser."]
    if rates:
        said = ["For each the learning rate of the lowest mean loss; all other hyperparameters stayed as they were."]
        if any(_is_at_an_end(rate, rates) for rate in chosen):
            said.append("* lies at an end of the rates tried: a better one may lie beyond it.")
    if missing:
        said.append(f"{plural(missing, 'training')} missing: `tune-rnn ablate {run.place}` goes on with it.")
    return said


def _rates(experiment: Experiment) -> list[float]:
    """The learning rates that were tried; none where it stayed as it was."""
    distribution = experiment.space.branches[ALL_ON].get("training.learning_rate")
    return [] if distribution is None else [float(rate) for rate in distribution.values() or ()]


def _rate(rate: float | None, rates: Sequence[float]) -> str:
    return "" if rate is None else f"{rate:.3g}" + ("*" if _is_at_an_end(rate, rates) else "")


def _is_at_an_end(rate: float | None, rates: Sequence[float]) -> bool:
    return bool(rates) and rate in (min(rates), max(rates))


def _worst_first(row: Effect) -> float:
    return -math.inf if row.change is None else -row.change


def _cells(row: Effect) -> tuple[str, str, str, str]:
    name = row.branch.removeprefix(WITHOUT).replace(AND, ", ")
    what = {ALL_OFF: "all regularisers", CLIPPING_ALONE: "all but clipping"}.get(row.branch, name)
    diverged = f"{row.diverged} diverged" if row.diverged else ""
    if row.change is None:
        return what, diverged or "not trained", "", "0"
    known = row.low is not None and row.high is not None
    interval = f"{row.low:+.4f} to {row.high:+.4f}" if known else "needs two seeds"
    return what, f"{row.change:+.4f}", interval, f"{row.seeds}, {diverged}" if diverged else str(row.seeds)
