"""What Ray Tune calls: our searcher and scheduler behind its own, our recorder behind its `Callback`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as RaySearcher

from tune_rnn.report import Report
from tune_rnn.results.directory import trial_name
from tune_rnn.results.journal import Journal
from tune_rnn.results.recorder import Recorder
from tune_rnn.schedulers import Scheduler
from tune_rnn.search import Searcher
from tune_rnn.study.proposing import Proposer
from tune_rnn.study.trainable import SCORE


class _LeftOutOfPickles:
    """Ray pickles what it is given for a restore of its own; the journal is what our studies resume from."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_LeftOutOfPickles, RaySearcher):
    """Numbers trials, derives their seeds, and hands out no more than there are slots.

    With one slot nothing is proposed before the running trial's result is in, so a seed gives the same study
    again. Trials that an earlier session left unfinished come first, each from its checkpoint.
    """

    def __init__(self, proposer: Proposer, slots: int) -> None:
        super().__init__(metric=SCORE, mode="min")
        self.ours = proposer.searcher  # not `searcher`, in which Ray would look for one of its own
        self.proposer, self.recorder, self.slots = proposer, proposer.recorder, slots
        self.unfinished = proposer.recorder.journal.unfinished
        self.running: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED
        if len(self.running) >= self.slots:
            return None
        record = self.unfinished.pop(0) if self.unfinished else self.proposer.next_trial()
        if record is None:
            return RaySearcher.FINISHED
        self.running[trial_id] = record.number
        directory = self.recorder.run.path / record.checkpoint if record.checkpoint else None
        return {
            "number": record.number,
            "seed": record.seed,
            "trial": record.config,
            "resume_from": str(directory) if directory else None,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.ours.reported(self.running[trial_id], result["spent"], result[SCORE])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.running.pop(trial_id)
        if result and not error:
            self.ours.reported(number, result["spent"], result[SCORE])
        self.ours.ended(number)

    def get_state(self) -> dict[str, Any]:
        """Nothing for Ray to keep: see `replay`."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing for Ray to keep: see `replay`."""


class StudyCallback(_LeftOutOfPickles, tune.Callback):
    """Passes on to the recorder what Tune sees, and stops the study when `should_stop` says why."""

    def __init__(self, recorder: Recorder, should_stop: Callable[[], Exception | None]) -> None:
        self.recorder, self.should_stop = recorder, should_stop

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.recorder.tick()
        if error := self.should_stop():
            for trial in trials:  # a training iteration may take minutes; its checkpoint is there
                if trial.status == Trial.RUNNING and (actor := trial.temporary_state.ray_actor):
                    ray.kill(actor)
            raise error

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.recorder.started(trial.config["number"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self.recorder.reported(trial.config["number"], Report.from_dict(result))

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.checkpoint:
            self.recorder.checkpointed(trial.config["number"], Path(trial.checkpoint.path))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.recorder.ended(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        text = Path(trial.error_file).read_text("utf-8", errors="replace") if trial.error_file else ""
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", text)  # without Ray's colours
        self.recorder.failed(trial.config["number"], _reason(traceback), traceback)


def _reason(traceback: str) -> str:
    """What a person needs of a traceback: the last line that names an exception, without its module.

    Our own errors are sentences: they need no name.
    """
    if re.search(r"^The actor (died|is dead)", traceback, re.MULTILINE):
        return "its process was killed, perhaps because the machine had too little memory"
    if re.search(r"The actor \w+ is unavailable", traceback):
        return "its process did not answer for long, perhaps because the machine slept or was overloaded"
    lines = [line for line in traceback.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Failed|Exception|Exit)(: |$)", line)]
    if not named:
        return lines[-1].strip() if lines else "unknown"
    exception, colon, message = named[-1].partition(": ")
    module, _, name = exception.rpartition(".")
    return message if module == "tune_rnn.errors" else f"{name}{colon}{message}"


class StudyScheduler(_LeftOutOfPickles, FIFOScheduler):
    """Asks our scheduler, which knows trials by our numbers, whether a trial goes on.

    A trial that goes on in a later session gets a new id from Ray, but it must not enter its old rungs again.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scheduler = scheduler

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        score = result[SCORE]
        goes_on = math.isfinite(score) and self.scheduler.goes_on(trial.config["number"], result["spent"], score)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


def replay(searcher: Searcher, scheduler: Scheduler, journal: Journal) -> None:
    """Tell a new searcher and a new scheduler what earlier sessions found."""
    for record in journal.trials.values():
        searcher.began(record.number, record.assignment)
        for report in record.reports:
            searcher.reported(record.number, report.spent, report.score)
            if math.isfinite(report.score):
                scheduler.goes_on(record.number, report.spent, report.score)
        if record.outcome:
            searcher.ended(record.number)
    for assignment in journal.refused:
        searcher.refused(assignment)


def name_of(trial: Trial) -> str:
    return trial_name(trial.config["number"])
