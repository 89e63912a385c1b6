"""Takes what happens to trials and puts it where people look: journal, TensorBoard, terminal, `best/`.

The Ray study and the single trial of `tune-rnn train` both tell it what happens; it knows nothing of Ray.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune_rnn.data import Corpus
from tune_rnn.display import Display, Progress, plural
from tune_rnn.errors import is_disk_full
from tune_rnn.experiment import Experiment
from tune_rnn.kinds import KINDS
from tune_rnn.population import mutable
from tune_rnn.report import CHECKPOINT, Report
from tune_rnn.results.best import BestKeeper, Sample
from tune_rnn.results.directory import RunDirectory, trial_name
from tune_rnn.results.earlier import Earlier
from tune_rnn.results.journal import AUDIT, FINAL, SEARCH, Journal, TrialRecord, outcome_of
from tune_rnn.results.work import Plan, planned_by_search, work_done, work_planned
from tune_rnn.space import Assignment, choice
from tune_rnn.tensorboard import DIVERGED, TrialBoard

__all__ = ["Plan", "Recorder"]

TICK_SHARE = 0.02
"""What part of the time may be taken by looking at all trials, unless that would leave the terminal old for long."""

LONGEST_PAUSE_S = 10.0
"""How old what the terminal shows may be, where such a look takes long."""

STAGE = "stage"
"""Column of the HParams tab that tells trials of the final stage from those of the search."""


class Recorder:
    """The one writer of a run; `earlier`: the runs that the search learns from."""

    def __init__(
        self,
        run: RunDirectory,
        journal: Journal,
        experiment: Experiment,
        corpus: Corpus,
        plan: Plan,
        display: Display,
        earlier: Sequence[Earlier] = (),
    ) -> None:
        self.run, self.journal, self.experiment, self.plan = run, journal, experiment, plan
        self.display, self.kind, self.earlier = display, KINDS[experiment.task.kind], earlier
        self.best = BestKeeper(run.best, corpus, plan.threads, plan.device)
        self.deadline: float | None = None
        self._mutable = _mutable_strengths(experiment)
        self._boards: dict[int, TrialBoard] = {}
        self.running: set[int] = set()
        """Numbers of the trials that train."""
        self._shown: Sample | None = None
        self.disk_is_full = False
        """Whether a trial of this session has failed for that."""
        self._next_tick = 0.0
        self._began = time.monotonic()
        self._first_trial_began: float | None = None
        self._done_before, self._ended_before = work_done(journal, plan), self._ended()

    def proposed(self, number: int, seed: int, assignment: Assignment, config: dict[str, Any]) -> None:
        self.journal.propose(number, seed, assignment, config)

    def refused(self, number: int, assignment: Assignment) -> None:
        self.journal.refuse(number, assignment)

    def started(self, number: int) -> None:
        """A trial has a slot: its row appears in TensorBoard now, unless it has only waited."""
        self.running.add(number)
        self._first_trial_began = self._first_trial_began or time.monotonic()
        if number in self._boards:
            return
        trial = self.journal.trials[number]
        hyperparameters = trial.assignment or _scalars(self.experiment.trial_config({}).flat())
        if self.experiment.final is not None:
            hyperparameters = {**hyperparameters, STAGE: trial.stage}
        columns = ("loss/validation_best", "loss/validation", self.kind.metric, DIVERGED)
        board = TrialBoard(self.run.trial(number), hyperparameters, self._domains(), columns)
        self._boards[number] = board

    def reported(self, number: int, report: Report) -> None:
        self.journal.report(number, report)
        values = {
            "loss/train": report.train_loss,
            "loss/validation": report.validation_loss,
            "loss/validation_best": report.best_loss,
            self.kind.metric: None if report.validation_loss is None else self.kind.of_loss(report.validation_loss),
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "tokens_per_second": report.tokens_per_second,
        }
        values |= {key.replace(".", "/"): self.journal.trials[number].assignment.get(key) for key in self._mutable}
        known = {tag: value for tag, value in values.items() if value is not None}
        self._boards[number].scalars(report.tokens, known)

    def checkpointed(self, number: int, path: Path) -> None:
        self.journal.checkpoint(number, str(path.relative_to(self.run.path)))

    def placed(self, number: int, machine: str, gpus: list[int]) -> None:
        """A trial trains on this machine of several, or with these of its GPUs."""
        self.journal.place(number, machine, gpus)

    def took_over(self, number: int, of: int, spent: float, assignment: Assignment, config: dict[str, Any]) -> None:
        """A population's trial goes on from another's weights, with other values."""
        self.journal.take_over(number, of, spent, assignment, config)

    def waits(self, number: int) -> None:
        """A population's trial has left its slot, until it is its turn again."""
        self.running.discard(number)

    def lost(self, number: int, reason: str, waits: bool) -> None:
        """A trial's process is lost, and the trial goes on from its last checkpoint as soon as there is room.

        `waits`: and not before one of those that run now has made it.
        """
        self.running.discard(number)
        self.journal.lose(number, reason)
        trial = self.journal.trials[number]
        where = f"from {self.experiment.budget.unit[:-1]} {trial.spent:g}" if trial.reports else "from its beginning"
        how = f"will go on {where} when another trial has made room" if waits else f"goes on {where}"
        self.display.say(f"{trial_name(number)} {how}: {reason}")

    def returned(self, number: int, spent: float) -> None:
        """A trial's newer checkpoints are damaged: it goes on from that of a budget of `spent`."""
        self.journal.return_to(number, spent)
        where = f"that of {self.experiment.budget.unit[:-1]} {spent:g}" if spent else "the trial's beginning"
        self.display.say(f"{trial_name(number)}: a checkpoint cannot be read; going back to {where}")

    def resized(self, slots: int) -> None:
        """Machines have come or gone: so many trials can be trained at a time now."""
        before, together = self.plan.slots, self.plan.together(slots)
        if together != before:
            self.plan = replace(self.plan, slots=together)
            self.journal.change_slots(together)
            self.display.say(f"Machines have come or gone: {plural(together, 'trial')} at a time now, {before} before")

    def set_aside(self, number: int) -> None:
        """A trial makes room for the final stage; it has not ended, and a later session goes on with it."""
        self.running.discard(number)
        self._boards.pop(number).close("interrupted")

    def ended(self, number: int) -> None:
        """A trial is over; its last report says how."""
        last = self.journal.trials[number].reports[-1]
        self._end(number, *outcome_of(last, self.experiment.budget.unit))

    def _end(self, number: int, outcome: str, reason: str) -> None:
        self.running.discard(number)
        self.journal.end(number, outcome, reason)
        if board := self._boards.pop(number, None):
            self._warn(board)
            plain = outcome.replace("_", " ")
            board.close(f"{plain}: {reason}" if outcome != "completed" else plain)

    def failed(self, number: int, reason: str, traceback: str) -> None:
        """A trial failed: its traceback goes to a file, which the terminal names."""
        if is_disk_full(reason):
            self.disk_is_full = True
            self._remove_unfinished_checkpoints(number)  # makes room for the lines below
        file = self.run.trial(number) / "error.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(traceback, "utf-8")
        self._end(number, "failed", reason)
        self.display.say(f"{trial_name(number)} failed: {reason} (traceback: {file})")

    def _remove_unfinished_checkpoints(self, number: int) -> None:
        kept = self.run.path / self.journal.trials[number].checkpoint
        for folder in self.run.ray.glob(f"*/{trial_name(number)}*/checkpoint_*"):
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)

    def tick(self) -> None:
        """Called often: the terminal, and the best model every now and then."""
        began = time.monotonic()
        if began < self._next_tick:
            return
        best = self.journal.best_trial
        if sample := self.best.collect():
            self._show(sample)
        if best is not None:
            self.best.offer(best, self.checkpoint_file(best))
        progress, now = self.progress(), time.monotonic()
        self._next_tick = now + min((now - began) / TICK_SHARE, LONGEST_PAUSE_S)
        self.display.update(progress)

    def finish(self) -> tuple[TrialRecord, Sample] | None:
        """Export the best model of all and close every file; None where no trial has a loss."""
        self.running.clear()
        self.display.update(self.progress())
        for number in list(self._boards):
            self._boards.pop(number).close("interrupted")
        best = self.journal.best_trial
        try:
            if best is None:
                return None
            sample = self.best.finish(best, self.checkpoint_file(best))
        finally:
            self.best.close()
        self._show(sample)
        return best, sample

    def checkpoint_file(self, trial: TrialRecord) -> Path:
        return self.run.path / trial.checkpoint / CHECKPOINT

    def progress(self) -> Progress:
        """The state of the study in numbers, for the display."""
        journal, best = self.journal, self.journal.best_trial
        again = [trial for trial in journal.trials.values() if trial.stage != SEARCH]
        ended = Counter(trial.outcome for trial in journal.in_stage(SEARCH))
        elapsed = time.monotonic() - self._began
        fraction, left = self._fraction_and_left(elapsed)
        return Progress(
            name=self.run.path.name,
            planned=planned_by_search(journal, self.plan),
            finished=ended["completed"],
            running=len(self.running),
            stopped_early=ended["stopped_early"],
            diverged=ended["diverged"],
            failed=ended["failed"],
            final_planned=len(again),
            final_ended=sum(trial.outcome != "" for trial in again),
            best_loss=best.best_loss if best else None,
            best_trial=best.number if best else None,
            best_metric=self.kind.wording.format(self.kind.of_loss(best.best_loss)) if best and best.best_loss else "",
            elapsed_s=elapsed,
            left_s=left,
            fraction=fraction,
            message=self._message(),
        )

    def _message(self) -> str:
        if times := sum(trial.taken_over for trial in self.journal.trials.values()):
            return f"weights taken over {plural(times, 'time')}"
        begun = self._ended() or self._first_trial_began is not None
        return "" if begun else "starting Ray and the first trials"

    def _fraction_and_left(self, elapsed: float) -> tuple[float, float | None]:
        """Progress by trials, or by time where that ends the study sooner; time left if it can be told."""
        left_by_time = None if self.deadline is None else max(0.0, self.deadline - time.time())
        by_time = 0.0 if left_by_time is None else elapsed / max(elapsed + left_by_time, 1e-9)
        if not planned_by_search(self.journal, self.plan):
            return by_time, left_by_time
        done, planned = work_done(self.journal, self.plan), work_planned(self.journal, self.plan)
        by_trials = min(1.0, done / planned)
        new = done - self._done_before
        # Until a trial has ended nobody knows how early they end.
        tells = new > 0 and (self._ended() > self._ended_before or planned == 1 or self.experiment.has_population)
        training = time.monotonic() - (self._first_trial_began or self._began)  # without Ray's start
        left_by_trials = training * (planned - done) / new if tells else None
        lefts = [left for left in (left_by_time, left_by_trials) if left is not None]
        return max(by_time, by_trials), min(lefts, default=None)

    def _ended(self) -> int:
        return sum(trial.outcome != "" for trial in self.journal.trials.values())

    def _domains(self) -> dict[str, Any]:
        """Every searched key of every branch, with its distribution where all branches agree on it."""
        space = self.experiment.space
        domains: dict[str, Any] = dict(space.shared)
        for branch in space.branches.values():
            for key, distribution in branch.items():
                domains[key] = distribution if domains.get(key, distribution) == distribution else None
        domains |= {"one_of": choice(list(space.branches))} if space.branches else {}
        return domains | ({STAGE: choice([SEARCH, FINAL, AUDIT])} if self.experiment.final else {})

    def _show(self, sample: Sample) -> None:
        """A sample goes into its trial's event files, once, whether or not the trial still runs."""
        if sample is self._shown:
            return
        self._shown = sample
        board = self._boards.get(sample.trial)
        if board is not None:
            board.text("sample", sample.text, sample.tokens)
        else:
            directory = self.run.trial(sample.trial)
            if error := TrialBoard.append_text(directory, "sample", sample.text, sample.tokens):
                self.display.say(error)

    def _warn(self, board: TrialBoard) -> None:
        if board.error:
            self.display.say(board.error)


def _mutable_strengths(experiment: Experiment) -> set[str]:
    """Regularisers whose strengths change while a population trains; the learning rate has a curve in any case."""
    if not experiment.has_population:
        return set()
    space = experiment.space
    keys = {key for branch in space.branches or [None] for key in mutable(space, branch)}
    return keys - {"training.learning_rate"}


def _scalars(flat: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat.items() if isinstance(value, bool | int | float | str)}
