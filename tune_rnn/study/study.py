"""A study from beginning to end: the run directory, Ray Tune, and what is left when it is over."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tune_rnn.data import Corpus, load_corpus
from tune_rnn.display import Display
from tune_rnn.errors import InputError, StudyFailed, StudyInterrupted
from tune_rnn.experiment import Experiment
from tune_rnn.report import TrialBudget
from tune_rnn.results import directory
from tune_rnn.results.directory import RunDirectory
from tune_rnn.results.journal import Journal
from tune_rnn.results.recorder import Plan, Recorder
from tune_rnn.results.summary import Result, conclude
from tune_rnn.search import build_searcher, planned_trials
from tune_rnn.signals import interrupts
from tune_rnn.study.cluster import Slots, find_slots, ray_session

END_S = 8.0
"""Seconds of `budget.hours` kept for stopping trials, exporting the best model and leaving Ray."""


def run(
    experiment: Experiment,
    address: str | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Result:
    """Run a study in a new run directory and return what it found.

    `address`: a running Ray cluster to use (else RAY_ADDRESS, else a private one). `started`: when the time that
    `budget.hours` and `summary.json` count began, in seconds since the epoch (default: now).
    Raises InputError before anything is started, StudyInterrupted after Ctrl-C or SIGTERM (what was done is kept),
    and StudyFailed if no trial has a result.
    """
    started = started or time.time()
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    precision = _resolve_precision(experiment)
    with ray_session(address):
        slots = find_slots(experiment.resources)
        resolved = experiment.replace("training.precision", precision.result())
        new = directory.create(experiment.storage, experiment.name)
        with directory.locked(new):
            directory.write_atomically(new.experiment, resolved.to_yaml())
            return _Study(resolved, corpus, new, slots, display or Display(), started).run()


def resume(
    path: str | Path,
    overrides: Sequence[str] = (),
    address: str | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Result:
    """Go on with an interrupted study, or with a larger budget: `budget.trials=N`, `budget.hours=H`.

    Finished trials are not run again; unfinished and failed ones go on from their last checkpoint; the searcher
    and ASHA are told what earlier sessions found. Raises what `run` raises, and InputError for other overrides, for
    data that has changed, and for a run that another process is working on.
    """
    started = started or time.time()
    old = directory.open_run(path)
    experiment = _with_larger_budget(Experiment.load(old.experiment), overrides)
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    recorded = Journal(old.journal).data_sha256
    if recorded and recorded != corpus.sha256:
        rule = f"the data has changed since the study began (sha256 {corpus.sha256[:12]}…, not {recorded[:12]}…)"
        raise InputError(str(old.path), rule, "Restore it, or begin a new study with `tune-rnn run`.")
    with directory.locked(old), ray_session(address):
        slots = find_slots(experiment.resources)
        directory.write_atomically(old.experiment, experiment.to_yaml())
        return _Study(experiment, corpus, old, slots, display or Display(), started).run()


def _with_larger_budget(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    for override in overrides:
        key = override.partition("=")[0]
        if key not in ("budget.trials", "budget.hours"):
            rule = "only budget.trials and budget.hours can change when a study goes on"
            raise InputError(key, rule, "Begin a new study with `tune-rnn run` to change anything else.")
    larger = experiment.with_overrides(overrides)
    for name in ("trials", "hours"):
        before, after = getattr(experiment.budget, name), getattr(larger.budget, name)
        if before is not None and after is not None and after < before:
            raise InputError(f"budget.{name}", f"was {before:g}; a budget can only grow", "", after)
    return larger


def _resolve_precision(experiment: Experiment) -> Future[str]:
    """Resolve `precision: auto` in a thread, while Ray starts: the import of torch takes seconds."""

    def probe() -> str:
        import torch

        from tune_rnn.precision import resolve_precision

        torch.set_num_threads(1)
        assignment = experiment.space.sample(np.random.default_rng(experiment.search.seed))
        config = experiment.trial_config(assignment)
        on_gpu = torch.cuda.is_available() and experiment.resources.device != "cpu"
        device = torch.device("cuda" if on_gpu else "cpu")
        return resolve_precision(config.training.precision, device, config.model.cell)

    with_one_thread = ThreadPoolExecutor(1)
    future = with_one_thread.submit(probe)
    with_one_thread.shutdown(wait=False)
    return future


class _OutOfTime(Exception):
    """`budget.hours` is over: the study ends as it does after its last trial."""


class _Study:
    """One session of a study in a run directory that is locked."""

    def __init__(
        self,
        experiment: Experiment,
        corpus: Corpus,
        run: RunDirectory,
        slots: Slots,
        display: Display,
        started: float,
    ) -> None:
        self.experiment, self.corpus, self.run_directory, self.slots = experiment, corpus, run, slots
        self.display, self.started = display, started
        self.journal = Journal(run.journal)
        self.wall_before_s = self.journal.wall_s
        self.journal.open_session(corpus.sha256)
        device = "cuda" if slots.gpu > 0 else "cpu"
        plan = Plan(slots.count, slots.threads, device, planned_trials(experiment), experiment.budget.amount)
        self.recorder = Recorder(run, self.journal, experiment, corpus, plan, display)
        hours = experiment.budget.hours
        if hours is not None:
            self.recorder.deadline = started + 3600 * hours - self.wall_before_s - END_S

    def run(self) -> Result:
        self.display.start(self._header())
        try:
            with interrupts() as interrupted:
                status = self._tune(interrupted)
                result = conclude(self.recorder, self.corpus, status, self._wall_s())
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self.display.stop()
        again = f"`tune-rnn resume {self.run_directory.path}` goes on with it."
        if status == "interrupted":
            raise StudyInterrupted(f"Interrupted. {again}")
        if any(_disk_full(trial.reason) for trial in self.journal.trials.values()):
            raise StudyFailed(f"The disk is full. Free some space; then {again}")
        if result is None:
            raise StudyFailed(self._why_nothing())
        return result

    def _tune(self, interrupted: threading.Event) -> str:
        """Run the trials; returns the status of the study."""
        from tune_rnn.study.tuning import tune_trials

        def should_stop() -> Exception | None:
            if interrupted.is_set():
                return StudyInterrupted()
            if any(_disk_full(trial.reason) for trial in self.journal.trials.values()):
                return StudyFailed()
            deadline = self.recorder.deadline
            return _OutOfTime() if deadline is not None and time.time() > deadline else None

        space, search = self.experiment.space, self.experiment.search
        searcher = build_searcher(search.algorithm, space, search.seed, self.experiment.budget.trials)
        budget = TrialBudget.of(self.experiment)
        try:
            tune_trials(self.experiment, self.corpus, budget, self.slots, searcher, self.recorder, should_stop)
        except _OutOfTime:
            return "completed"
        except StudyInterrupted:
            self.display.say("Stopping: the trials keep their last checkpoint.")
            return "interrupted"
        except StudyFailed:
            return "failed"
        return "completed"

    def _header(self) -> str:
        where = f"{self.slots.count} at a time" if self.slots.count > 1 else "one at a time"
        planned = self.recorder.plan.trials
        what = "trials until the time is over" if planned is None else f"{planned} trial{'s' * (planned != 1)}"
        resumed = f", {len(self.journal.trials)} of them begun before" if self.journal.trials else ""
        return f"{self.run_directory.path.name}: {what}{resumed}, {where}; results in {self.run_directory.path}"

    def _wall_s(self) -> float:
        return self.wall_before_s + time.time() - self.started

    def _why_nothing(self) -> str:
        """The message of a study without a result."""
        trials = self.journal.trials.values()
        failed = [trial for trial in trials if trial.outcome == "failed"]
        if failed:
            file = self.run_directory.trial(failed[0].number) / "error.txt"
            return f"No trial gave a result; {len(failed)} failed, the first with: {failed[0].reason} (see {file})"
        if any(trial.outcome == "diverged" for trial in trials):
            return "Every trial diverged. Lower training.learning_rate, or set regularizers.clip_norm: 1."
        return "The time was over before any trial reported. Raise budget.hours, or lower training.report_every."

    def _failure(self, error: OSError) -> Exception:
        if error.errno != errno.ENOSPC:
            return error
        again = f"`tune-rnn resume {self.run_directory.path}` goes on with it."
        return StudyFailed(f"The disk is full ({error.filename or 'run directory'}). Free some space; then {again}")


def _disk_full(reason: str) -> bool:
    return "no space left" in reason.lower()
