"""An experiment: what is fixed, what is searched, with which budget, on which resources.

A file and keyword arguments say the same with the same names. What is loaded is right: the ends of every
distribution were put in its place and checked, so that no value is refused in trial 17.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tune_rnn.config.distributions import Distribution
from tune_rnn.config.planned import grid_points, planned_trials
from tune_rnn.config.resolution import default_report_every, in_order, part, resolve
from tune_rnn.config.settings import Flat, Settings, nest, unknown_branch
from tune_rnn.config.starting import START
from tune_rnn.config.validation import known_keys, validate
from tune_rnn.errors import InputError
from tune_rnn.schema import (
    Budget,
    Constraints,
    Files,
    Final,
    Model,
    Regularizers,
    Resources,
    Scheduler,
    Search,
    Task,
    Training,
    TrialConfig,
)
from tune_rnn.space import Assignment, Space
from tune_rnn.yaml_io import dump_yaml, load_yaml, read_yaml

__all__ = [
    "Budget",
    "Constraints",
    "Experiment",
    "Files",
    "Final",
    "Model",
    "Regularizers",
    "Resources",
    "Scheduler",
    "Search",
    "Task",
    "Training",
    "TrialConfig",
]

Section = Mapping[str, Any]


class Experiment:
    """One study, checked. Raises InputError for whatever is not right.

    `task`, `budget`, `search`, `scheduler`, `constraints`, `final` (None where there is no final stage), `resources`
    and `storage` are plain, with defaults filled in; `space` is what is searched, and `trial_config` fills it in.
    Relative paths may lie `beside` the file.
    """

    name: str
    task: Task
    budget: Budget
    search: Search
    scheduler: Scheduler
    constraints: Constraints
    final: Final | None
    resources: Resources
    storage: str
    report_every: float  # in the budget's unit
    space: Space
    beside: Path | None

    def __init__(
        self,
        *,
        name: str,
        budget: Section,
        task: Section | None = None,
        model: Section | None = None,
        regularizers: Section | None = None,
        training: Section | None = None,
        one_of: Mapping[str, Section] | None = None,
        search: Section | None = None,
        scheduler: Section | None = None,
        constraints: Section | None = None,
        final: Section | None = None,
        resources: Section | None = None,
        storage: str | Path = "results",
        beside: Path | None = None,
    ) -> None:
        trial = {
            "task": task,
            "model": model,
            "regularizers": regularizers,
            "training": training,
            "one_of": one_of,
        }
        study = {
            "budget": budget,
            "search": search,
            "scheduler": scheduler,
            "constraints": constraints,
            "final": final,
            "resources": resources,
        }
        self._set(Settings.read({"name": name, **trial, **study, "storage": storage}), beside)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read an experiment file; `KEY=VALUE` overrides are applied before it is checked."""
        return cls._of(Settings.read(read_yaml(Path(path))), overrides, Path(path).parent)

    @classmethod
    def of_run(cls, path: str | Path) -> Self:
        """Read a run's `experiment.yaml`, where every default is written.

        Without a section `final` it is older than the default of that, and there was no final stage.
        """
        settings = Settings.read(read_yaml(Path(path)))
        if not any(key.startswith("final.") for key in settings.root):
            settings = settings.replace("final.top_k", 0)
        return cls._of(settings, (), Path(path).parent)

    @classmethod
    def from_yaml_text(cls, text: str, overrides: Sequence[str] = (), beside: Path | None = None) -> Self:
        """Read an experiment from the text of a file."""
        return cls._of(Settings.read(load_yaml(text, "experiment")), overrides, beside)

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """Apply `KEY=VALUE`s: a key is set for all branches, `one_of=NAME` chooses a branch.

        Reports and rungs that were derived from the budget are derived again from another one.
        """
        written = self._written
        if any(override.startswith(("budget.epochs=", "budget.tokens=")) for override in overrides):
            if self.scheduler.first_rung == self.report_every:
                written = written.drop("scheduler.first_rung")
            if self.report_every == default_report_every(self.budget):
                written = written.drop("training.report_every")
        return self._of(written, overrides, self.beside)

    def replace(self, key: str, value: Any) -> Self:
        """Set one dotted key, for all branches, to a value or a distribution."""
        return self._of(self._written.replace(key, value), (), self.beside)

    def fixed_at(self, assignment: Assignment) -> Self:
        """Set each key of an assignment to its value, and choose its branch."""
        written = self._written
        for key, value in sorted(assignment.items(), key=lambda item: item[0] != "one_of"):
            written = written.replace(key, value)
        return self._of(written, (), self.beside)

    def without_final(self) -> Self:
        """The same without a final stage, and without its keys."""
        return self._of(self._written.drop("final").replace("final.top_k", 0), (), self.beside)

    @property
    def has_population(self) -> bool:
        """Whether trials take over each other's weights; with nothing to search there is one trial."""
        return self.scheduler.algorithm == "pbt" and not self.space.is_empty

    @property
    def planned_trials(self) -> int | None:
        """How many trials the search has; None where only time ends it."""
        return planned_trials(self.budget, self.search, self.space)

    @property
    def grid_points(self) -> int | None:
        """How many proposals a grid has, its starting points and all seeds included; None for another search."""
        return grid_points(self.search, self.space)

    @property
    def unfixed(self) -> list[str]:
        """Keys that have no single value yet: distributions, and "one_of" where a branch is to be chosen."""
        own = [key for branch in self.space.branches.values() for key in branch]
        return in_order({*self.space.shared, *own, *(["one_of"] if self.space.branches else [])})

    def trial_config(self, assignment: Mapping[str, Any]) -> TrialConfig:
        """Fill in what is searched: a value for each key, and "one_of" where there are branches."""
        branch = self._branch(assignment)
        values = {key: value for key, value in assignment.items() if key != "one_of"}
        trial = part(self._resolved.merged(branch), TrialConfig) | values
        for key, value in trial.items():
            if isinstance(value, Distribution):
                raise InputError(key, "must have a single value here", f"Add {key}=VALUE.", value.to_yaml())
        return validate(TrialConfig, {**nest(trial), "one_of": branch})

    def assignment_of(self, config: Mapping[str, Any]) -> Assignment | None:
        """Return the assignment that gives the searched keys the values of a configuration, whichever study it is of.

        `config` is by dotted key. Where there are branches it is that of its own `one_of`, or the first, whose values
        and distributions it fits; other fixed values are not compared. None where it lacks a key, or nothing fits.
        """
        for branch in self._branches_for(config):
            if not self._misfits(config, branch):
                return self.space.assign({key: config[key] for key in self.space.distributions(branch)}, branch)
        return None

    def outside(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys for which `assignment_of` has no assignment: those of the branch that comes nearest."""
        return min((self._misfits(config, branch) for branch in self._branches_for(config)), key=len)

    def _branches_for(self, config: Mapping[str, Any]) -> list[str | None]:
        """The branches in the order in which a configuration may belong to them."""
        return sorted(self.space.branches, key=lambda name: name != config.get("one_of")) or [None]

    def _misfits(self, config: Mapping[str, Any], branch: str | None) -> list[str]:
        """The keys of a branch that a configuration lacks, or has another value for."""
        fixed = self._fixed_by(branch)
        searched = self.space.distributions(branch)
        others = [key for key, value in fixed.items() if key not in config or config[key] != value]
        return others + [key for key in searched if not self.space.allows({key: config.get(key)}, branch)]

    def _fixed_by(self, branch: str | None) -> Flat:
        """The single values that a branch has where others may have other ones."""
        merged = self._resolved.merged(branch)
        own = {key for keys in self._resolved.branches.values() for key in keys}
        return {key: merged[key] for key in own if not isinstance(merged[key], Distribution)}

    def extremes(self, key: str) -> list[Any]:
        """Return what trials may have at a dotted key: its value, every choice, or both ends of a range."""
        given = [self._resolved.merged(branch)[key] for branch in self._resolved.branches or [None]]
        values = (value.corners() if isinstance(value, Distribution) else (value,) for value in given)
        return list(dict.fromkeys(itertools.chain.from_iterable(values)))

    def allows(self, key: str, value: Any) -> bool:
        """Return whether a trial may have this value at a dotted key, searched or not."""
        try:
            validate(TrialConfig, nest({key: value}))
        except InputError:
            return False
        return True

    def to_yaml(self) -> str:
        """Return the resolved experiment, every default written; it loads as an equal experiment."""
        branches = {name: nest(_plain(flat)) for name, flat in self._resolved.branches.items()}
        tree = nest(_plain(self._resolved.root)) | ({"one_of": branches} if branches else {})
        return dump_yaml({key: tree[key] for key in known_keys() if key in tree})

    def __eq__(self, other: object) -> bool:
        """Compare what is resolved, whatever was written and wherever it was read from."""
        return self._resolved == other._resolved if isinstance(other, Experiment) else NotImplemented

    def __repr__(self) -> str:
        return f"<Experiment {self.name}, searched: {', '.join(self.unfixed) or 'nothing'}>"

    @classmethod
    def _of(cls, written: Settings, overrides: Sequence[str], beside: Path | None) -> Self:
        for text in overrides:
            written = written.override(text)
        experiment = cls.__new__(cls)
        experiment._set(written, beside)
        return experiment

    def _set(self, written: Settings, beside: Path | None) -> None:
        resolved = resolve(written)
        study = resolved.study
        self._written, self._resolved = written, resolved.settings
        self.name, self.storage, self.beside = study.name, study.storage, beside
        self.task, self.space = resolved.trial.task, resolved.space
        self.report_every = resolved.trial.training.report_every or 0.0  # resolved: never None
        self.budget, self.search = study.budget, study.search
        self.scheduler, self.constraints, self.resources = study.scheduler, study.constraints, study.resources
        self.final = study.final if study.final is not None and study.final.top_k else None

    def _branch(self, assignment: Mapping[str, Any]) -> str | None:
        branch, branches = assignment.get("one_of"), self._resolved.branches
        if branch is None and branches:
            remedy = f"Add {' or '.join(f'one_of={name}' for name in branches)}."
            raise InputError("one_of", "a branch must be chosen", remedy)
        if branch is not None and branch not in branches:
            raise unknown_branch(branch, branches)
        return branch


def _plain(flat: Flat) -> Flat:
    plain = {key: value.to_yaml() if isinstance(value, Distribution) else value for key, value in flat.items()}
    return plain | ({START: [nest(point) for point in flat[START]]} if START in flat else {})
