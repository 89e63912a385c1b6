"""One session of a study: from the first trial to the summary, whatever ends it."""

from __future__ import annotations

import threading
import time

from tune_rnn.data import Corpus
from tune_rnn.display import Display
from tune_rnn.errors import StudyFailed, StudyInterrupted, is_disk_full
from tune_rnn.experiment import Experiment
from tune_rnn.report import TrialBudget
from tune_rnn.results.directory import RunDirectory
from tune_rnn.results.journal import Journal
from tune_rnn.results.recorder import Plan, Recorder
from tune_rnn.results.summary import Result, conclude
from tune_rnn.search import build_searcher, planned_trials
from tune_rnn.signals import interrupts
from tune_rnn.study.cluster import Slots

END_S = 8.0
"""Seconds of `budget.hours` kept for stopping trials, exporting the best model and leaving Ray."""


class Stop(Exception):
    """Ends the trials before the searcher does; `status` is what the study's becomes."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Session:
    """A study at work in a run directory that is locked. `started` is when its time began to count."""

    def __init__(
        self,
        experiment: Experiment,
        corpus: Corpus,
        run: RunDirectory,
        slots: Slots,
        display: Display,
        started: float,
    ) -> None:
        self.experiment, self.corpus, self.directory, self.slots = experiment, corpus, run, slots
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
        self.interrupted = threading.Event()

    def run(self) -> Result:
        """Run trials until something ends them; export, summarise and return what was found.

        Raises StudyInterrupted after Ctrl-C or SIGTERM, and StudyFailed where the disk is full or no trial has a
        result; in each case the summary is written where that is possible.
        """
        self.display.start(self._header())
        result = None
        try:
            with interrupts() as self.interrupted:
                status = self._tune()
                wall_s = self.wall_before_s + time.time() - self.started
                result = conclude(self.recorder, self.corpus, status, wall_s)
        except OSError as error:
            if not is_disk_full(error):
                raise
            status = "failed"
        finally:
            self.display.stop()
        if status == "interrupted":
            raise StudyInterrupted(f"Interrupted. {self._go_on()}")
        if status == "failed" or (result is None and self.journal.best_trial):
            raise StudyFailed(f"The disk is full. Free some space; then {self._go_on()}")
        if result is None:
            raise StudyFailed(self._why_nothing())
        return result

    def _tune(self) -> str:
        """Run the trials; returns the study's status: "failed" only where the disk is full."""
        from tune_rnn.study.tuning import tune_trials

        search, trials = self.experiment.search, self.experiment.budget.trials
        searcher = build_searcher(search.algorithm, self.experiment.space, search.seed, trials)
        budget = TrialBudget.of(self.experiment)
        try:
            tune_trials(self.experiment, self.corpus, budget, self.slots, searcher, self.recorder, self._stop)
        except Stop as stop:
            return stop.status
        except Exception as error:  # Tune wraps what our callback meets in errors of its own
            if not is_disk_full(error):
                raise
            return "failed"
        return "completed"

    def _stop(self) -> Stop | None:
        """Whether the trials are to end now."""
        if self.interrupted.is_set():
            self.display.say("Stopping: the trials keep their last checkpoint.")
            return Stop("interrupted")
        if any(is_disk_full(trial.reason) for trial in self.journal.trials.values()):
            return Stop("failed")
        deadline = self.recorder.deadline
        return Stop("completed") if deadline is not None and time.time() > deadline else None

    def _header(self) -> str:
        where = f"{self.slots.count} at a time" if self.slots.count > 1 else "one at a time"
        planned = self.recorder.plan.trials
        what = "trials until the time is over" if planned is None else f"{planned} trial{'s' * (planned != 1)}"
        resumed = f", {len(self.journal.trials)} of them begun before" if self.journal.trials else ""
        return f"{self.directory.path.name}: {what}{resumed}, {where}; results in {self.directory.path}"

    def _go_on(self) -> str:
        return f"`tune-rnn resume {self.directory.path}` goes on with it."

    def _why_nothing(self) -> str:
        """The message of a study without a result."""
        trials = self.journal.trials.values()
        failed = [trial for trial in trials if trial.outcome == "failed"]
        if failed:
            file = self.directory.trial(failed[0].number) / "error.txt"
            return f"No trial gave a result; {len(failed)} failed, the first with: {failed[0].reason} (see {file})"
        if any(trial.outcome == "diverged" for trial in trials):
            return "Every trial diverged. Lower training.learning_rate, or set regularizers.clip_norm: 1."
        return "The time was over before any trial reported. Raise budget.hours, or lower training.report_every."
