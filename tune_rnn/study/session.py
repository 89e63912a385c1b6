"""One session of a study: from the first trial to the summary, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from tune_rnn.data import Corpus
from tune_rnn.display import Display, plural
from tune_rnn.errors import is_disk_full
from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import planned_trainings
from tune_rnn.report import TrialBudget
from tune_rnn.results.conclusion import carry_out
from tune_rnn.results.directory import RunDirectory
from tune_rnn.results.earlier import Earlier
from tune_rnn.results.journal import Journal
from tune_rnn.results.recorder import Plan, Recorder
from tune_rnn.results.summary import Result
from tune_rnn.search import build_searcher
from tune_rnn.signals import Interrupt
from tune_rnn.study.cluster import Slots

END_S = 5.0
"""Seconds of `budget.hours` kept for stopping trials, exporting the best model and leaving Ray."""

HOPELESS = 10
"""So many failed trials, and none that has reported, end a study: its other trials would fail as well."""


class Stop(Exception):
    """Ends the trials before the searcher does; `status` is what the study's becomes."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Session:
    """A study at work in a run directory that is locked.

    `started` is when its time began to count; `interrupted` is set when the trials are to end; `earlier` is what
    `search.warm_start` names.
    """

    def __init__(
        self,
        experiment: Experiment,
        corpus: Corpus,
        run: RunDirectory,
        slots: Slots,
        display: Display,
        started: float,
        interrupted: Interrupt,
        earlier: Sequence[Earlier] = (),
    ) -> None:
        self.experiment, self.corpus, self.directory, self.slots = experiment, corpus, run, slots
        self.display, self.interrupted = display, interrupted
        interrupted.answer = ""  # from here on `_stop` answers
        planned, extra = experiment.planned_trials, sum(planned_trainings(experiment))
        self.journal = Journal(run.journal)
        wall_before_s = self.journal.wall_s
        device = "cuda" if slots.gpu > 0 else "cpu"
        budget, final = experiment.budget, experiment.final
        longer = 0.0 if final is None else final.amount(budget)
        points = experiment.grid_points
        plan = Plan(slots.count, slots.threads, device, planned, budget.amount, points, extra, longer)
        plan = replace(plan, slots=plan.together(slots.count))
        self.journal.open_session(corpus.sha256, plan.slots, started)
        self.recorder = Recorder(run, self.journal, experiment, corpus, plan, display, earlier)
        hours = budget.hours
        if hours is not None:
            self.recorder.deadline = started + 3600 * hours - wall_before_s - END_S

    def run(self) -> Result:
        """Run trials until something ends them; export, summarise and return what was found (see `carry_out`)."""
        return carry_out(self._tune, self.recorder, self.corpus, self._header())

    def _tune(self) -> str:
        """Run the trials; returns the study's status: "failed" only where the disk is full."""
        from tune_rnn.study.tuning import tune_trials

        for run in self.recorder.earlier:
            self.display.say(str(run))
        earlier = [trial for run in self.recorder.earlier for trial in run.used]
        searcher = build_searcher(self.experiment.search, self.experiment.space, earlier)
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
        if self.recorder.disk_is_full:
            return Stop("failed")
        if self._is_hopeless():
            return Stop("completed")
        deadline = self.recorder.deadline
        return Stop("completed") if deadline is not None and time.time() > deadline else None

    def _is_hopeless(self) -> bool:
        trials = self.journal.trials
        if not HOPELESS <= len(trials) <= 2 * HOPELESS + self.slots.count:  # asked often, and of thousands of trials
            return False
        failed = sum(trial.outcome == "failed" for trial in trials.values())
        return failed >= HOPELESS and not any(trial.reports for trial in trials.values())

    def _header(self) -> str:
        planned, together, extra = (getattr(self.recorder.plan, name) for name in ("trials", "slots", "extra"))
        where = f", {together} at a time" if together > 1 else ", one at a time"
        what = "trials until the time is over" if planned is None else plural(planned, "trial")
        if extra:
            what += f" and {plural(extra, 'final training')}"
        elif planned == 1:
            where = ""
        begun = sum(bool(trial.own_reports or trial.outcome) for trial in self.journal.trials.values())
        resumed = f", {begun} of them begun before" if begun else ""
        return f"{self.directory.path.name}: {what}{resumed}{where}; results in {self.directory.place}"
