"""What earlier runs found, as evidence for a new search: `search.warm_start`.

An old trial's configuration has a value for every key, whether the old study searched it or had it fixed; those
that the new study searches make an assignment of its space (`Experiment.assignment_of`). Losses count as they are
where data, task and the budget's unit are the new study's; otherwise trials are compared among those of equal ones
(`Observed.group`). What an earlier final stage trained again does not count, as in the search that it followed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import open_run
from tune_rnn.results.journal import SEARCH, Journal, TrialRecord
from tune_rnn.results.packing import existing_path
from tune_rnn.schema import flatten
from tune_rnn.search import Observed

KEY = "search.warm_start"


@dataclass(frozen=True)
class Earlier:
    """One earlier run: how many trials it has, those that tell something, how many are outside the space,
    and how many `changed` their configuration on the way, so that their losses are not those of one.

    `outside_keys`: whose values put them there. `differs` says what makes its losses incomparable with the new study's;
    "" where nothing does.
    """

    run: str
    trials: int
    used: tuple[Observed, ...]
    outside: int
    differs: str
    changed: int = 0
    outside_keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        without = self.trials - len(self.used) - self.outside - self.changed
        left_out = [f"{self.outside} outside the space ({', '.join(self.outside_keys)})"] if self.outside else []
        left_out += [f"{self.changed} with a configuration that changed"] if self.changed else []
        left_out += [f"{without} without a result"] if without else []
        why = [", ".join(left_out)] if left_out else []
        why += [f"compared among themselves, not having the same {self.differs}"] if self.differs and self.used else []
        used = f"{len(self.used)} of {plural(self.trials, 'trial')} of {self.run} used"
        return "; ".join([f"{KEY}: {used}", *why])

    def to_dict(self) -> dict[str, Any]:
        """As `summary.json` has it."""
        counts = {"trials": self.trials, "used": len(self.used), "outside": self.outside}
        return {"run": self.run, **counts, "comparable": not self.differs}


def read_earlier(experiment: Experiment, data_sha256: str) -> list[Earlier]:
    """Read the runs that `search.warm_start` names; none where nothing is searched.

    Raises InputError, with the run's place in the list, for what is no run, cannot be read or has no trials.
    """
    runs = () if experiment.space.is_empty else experiment.search.warm_start
    return [_read(experiment, data_sha256, number, run) for number, run in enumerate(runs)]


def _read(experiment: Experiment, data_sha256: str, number: int, given: str) -> Earlier:
    studied, journal = _open(f"{KEY}[{number}]", given, experiment.beside)
    differs = _differences(experiment, data_sha256, studied, journal.data_sha256)
    group = _group(studied, journal.data_sha256) if differs else ""
    trials = journal.in_stage(SEARCH)
    constant = [trial for trial in trials if not trial.taken_over]
    told = [trial for trial in constant if trial.reports or trial.outcome == "diverged"]
    configs = [flatten(trial.config) for trial in told]
    assignments = [experiment.assignment_of(config) for config in configs]
    pairs = zip(told, assignments, strict=True)
    used = [_observed(trial, assignment, group) for trial, assignment in pairs if assignment is not None]
    changed = len(trials) - len(constant)
    left_out = [config for config, one in zip(configs, assignments, strict=True) if one is None]
    keys = tuple(dict.fromkeys(key for config in left_out for key in experiment.outside(config)))
    return Earlier(given, len(trials), tuple(used), len(left_out), differs, changed, keys)


def _open(where: str, given: str, beside: Path | None) -> tuple[Experiment, Journal]:
    path = existing_path(given, beside)
    if path is None:
        remedy = "Relative paths start at the current directory or beside the experiment file."
        raise InputError(where, "there is no such directory", remedy, given)
    try:
        run = open_run(path)
        studied, journal = Experiment.of_run(run.experiment), Journal(run.journal)
    except InputError as error:
        rule = f"cannot be read ({error.where}: {error.rule})"
        raise InputError(where, rule, "Name the directory of a run.", given) from error
    if not journal.trials:
        raise InputError(where, "the run has no trials to learn from", "Remove it.", given)
    return studied, journal


def _differences(experiment: Experiment, data_sha256: str, studied: Experiment, its_sha256: str) -> str:
    """What makes losses incomparable, in words."""
    different = {
        "data": data_sha256 != its_sha256,
        "task": _task(experiment) != _task(studied),
        "unit of the budget": experiment.budget.unit != studied.budget.unit,
    }
    return " and ".join(name for name, differs in different.items() if differs)


def _group(studied: Experiment, data_sha256: str) -> str:
    """Equal for runs whose losses can be compared."""
    return json.dumps([data_sha256, _task(studied), studied.budget.unit])


def _task(experiment: Experiment) -> dict[str, Any]:
    """What is predicted; the data are known by their sha256, wherever they lie."""
    return experiment.task.model_dump(mode="json", exclude={"corpus", "files"})


def _observed(trial: TrialRecord, assignment: dict[str, Any], group: str) -> Observed:
    observed = Observed(assignment, running=False, bad=trial.outcome == "diverged", group=group)
    for report in trial.reports:
        observed.report(report.spent, report.score)
    return observed
