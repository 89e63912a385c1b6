"""What Ray Tune calls: our searcher and scheduler behind its own, our recorder behind its `Callback`."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as RaySearcher

from tune_rnn.checkpoint_folder import KEPT, CheckpointFolder, Saved, is_whole
from tune_rnn.final.stage import FinalStage
from tune_rnn.report import CHECKPOINT as CHECKPOINT_FILE
from tune_rnn.results.directory import trial_name
from tune_rnn.results.journal import SEARCH, Journal, TrialRecord
from tune_rnn.results.recorder import Recorder
from tune_rnn.schedulers import Scheduler
from tune_rnn.search import Searcher
from tune_rnn.study.cluster import Room, is_cluster
from tune_rnn.study.lost import LostTrials
from tune_rnn.study.population import Population
from tune_rnn.study.proposing import Proposer
from tune_rnn.study.reasons import reason_of
from tune_rnn.study.trainable import CHECKPOINT, PLACE, REPORT, SCORE

WAIT_S = 15.0
"""How long a trial waits for its slot's process, which may just be starting, while others idle."""

IDLE_S = 60.0
"""How long a cluster's processes idle before they are ended, without which no idle machine is given back."""


class _LeftOutOfPickles:
    """Ray pickles what it is given for a restore of its own; the journal is what our studies resume from."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_LeftOutOfPickles, RaySearcher):
    """Numbers trials, derives their seeds, and hands out no more than there are slots.

    With one slot nothing is proposed before the running trial's result is in, so a seed gives the same study
    again. Trials that an earlier session left unfinished come first, each from its checkpoint. When the last trial of
    the search has ended, or its time is up, the final stage's follow, of which the searcher hears nothing. A
    population says itself which trial goes on.
    """

    def __init__(
        self,
        proposer: Proposer,
        slots: int,
        final: FinalStage,
        session: Path,
        lost: LostTrials,
        population: Population | None = None,
    ) -> None:
        super().__init__(metric=SCORE, mode="min")
        self.ours = proposer.searcher  # not `searcher`, in which Ray would look for one of its own
        self.proposer, self.recorder, self.slots, self.final = proposer, proposer.recorder, slots, final
        self.session, self.lost, self.population = session, lost, population
        self.unfinished = [trial for trial in self.recorder.journal.unfinished if trial.stage == SEARCH]
        self.running: dict[str, int] = {}  # trials' numbers, by Ray's ids
        self.running_in: dict[str, int] = {}  # and their slots
        self.warm: set[int] = set()  # slots whose process has trained, and has not been lost

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED
        if len(self.running) >= self.slots:
            return None
        due = self.final.is_due()
        record = self.lost.next(search_is_over=due) or (None if due else self._next_of_search())
        if record is None and self._is_searching():
            return None
        record = record or self._next_of_final()
        if record is None:
            return None if self.running else RaySearcher.FINISHED  # one that runs may be lost, and go on
        self.running[trial_id], self.running_in[trial_id] = record.number, (slot := self._free_slot())
        find_checkpoint(self.recorder, record)
        directory = self.recorder.run.path / record.checkpoint if record.checkpoint else None
        return {
            "number": record.number,
            "seed": record.seed,
            "stage": record.stage,
            "folder": str(self.session / folder_of(record)),
            "slot": slot,
            "trial": json.dumps(record.config),  # Ray copies a text at once, and walks through all else
            "resume_from": str(directory) if directory else None,
        }

    def _free_slot(self) -> int:
        """One whose process waits for a trial, or else one that has none, or has lost it with its machine."""
        free = (self.warm | set(range(len(self.running) + 1))) - set(self.running_in.values())
        return min(free, key=lambda slot: (slot not in self.warm, slot))

    def _is_searching(self) -> bool:
        """Whether one is at work upon whose end others may begin."""
        others_follow = self.final.is_wanted or self.population is not None
        return others_follow and any(self._is_searched(number) for number in self.running.values())

    def _is_searched(self, number: int) -> bool:
        return self.recorder.journal.trials[number].stage == SEARCH

    def _next_of_search(self) -> TrialRecord | None:
        if self.population is not None:
            return self.population.next(self.running.values())
        return self.unfinished.pop(0) if self.unfinished else self.proposer.next_trial()

    def _next_of_final(self) -> TrialRecord | None:
        self.final.begin()
        return self.final.next(self.running.values())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number, slot = self.running.pop(trial_id), self.running_in.pop(trial_id)
        (self.warm.discard if error else self.warm.add)(slot)
        if not self._is_searched(number) or number in self.lost:
            return
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

    def __init__(
        self,
        recorder: Recorder,
        final: FinalStage,
        should_stop: Callable[[], Exception | None],
        lost: LostTrials,
        room: Room,
        population: Population | None = None,
    ) -> None:
        self.recorder, self.final, self.should_stop, self.population = recorder, final, should_stop, population
        self.lost, self.room = lost, room
        self.folders: dict[Path, CheckpointFolder] = {}  # of trials on machines that do not see the run
        self.has_reported: Trial | None = None  # since the last step

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.room.look()
        self.lost.leaving = self.room.leaving
        self._move()
        self.recorder.tick()
        if error := self.should_stop():
            for trial in trials:  # a training iteration may take minutes; its checkpoint is there
                if trial.status == Trial.RUNNING and (actor := trial.temporary_state.ray_actor):
                    ray.kill(actor)
            raise error

    def _move(self) -> None:
        """Have a trial that has just been saved go on elsewhere if its machine is about to be taken away."""
        trial, self.has_reported = self.has_reported, None
        if trial is None or trial.status != Trial.RUNNING or trial.last_result["node_ip"] not in self.lost.leaving:
            return
        if actor := trial.temporary_state.ray_actor:
            self.lost.moving.add(trial.config["number"])
            ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Before the first step of its process, which is told what it may not see."""
        self.recorder.started(trial.config["number"])
        checkpoint, process = trial.config["resume_from"], trial.temporary_state.ray_actor
        if checkpoint and process and is_cluster():
            with suppress(FileNotFoundError):  # the process will not find it either: the trial fails, not the study
                process.go_on_from.remote((Path(checkpoint) / CHECKPOINT_FILE).read_bytes())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number, self.has_reported = trial.config["number"], trial
        if PLACE in result and (is_cluster() or result[PLACE][1]):
            self.recorder.placed(number, *result[PLACE])
        directory = self._keep(result[CHECKPOINT])
        self.recorder.reported(number, result[REPORT])
        self.recorder.checkpointed(number, directory)

    def _keep(self, saved: Saved) -> Path:
        """Write down a checkpoint that comes from a machine that does not see the run."""
        if saved.content is None:
            return saved.directory
        folder = saved.directory.parent
        kept = self.folders.setdefault(folder, CheckpointFolder(folder, KEPT))
        return kept.put(saved.directory, saved.content)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        if number in self.final.set_aside:
            self.recorder.set_aside(number)
        elif self.population is not None and self.population.waits(number):
            self.recorder.waits(number)
        else:
            self.recorder.ended(number)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.config["number"] in self.lost:
            return
        text = Path(trial.error_file).read_text("utf-8", errors="replace") if trial.error_file else ""
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", text)  # without Ray's colours
        self.recorder.failed(trial.config["number"], reason_of(traceback), traceback)


class StudyScheduler(_LeftOutOfPickles, FIFOScheduler):
    """Asks our scheduler, which knows trials by our numbers, whether a trial goes on.

    A trial that goes on in a later session gets a new id from Ray, but it must not enter its old rungs again. Trials
    of the final stage are never stopped, and those of the search are set aside when that stage is due.
    """

    def __init__(
        self, scheduler: Scheduler, searcher: Searcher, final: FinalStage | None = None, lost: LostTrials | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scheduler, self.searcher, self.final, self.lost = scheduler, searcher, final, lost
        self.keeping: set[Any] = set()
        self.idle_since: tuple[bool, float] | None = None  # whether a trial has waited, and since when

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        self._make_room(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def _make_room(self, tune_controller: Any) -> None:
        """End the processes that idle in other slots where a trial waits in vain for one in its own.

        Each holds what its slot needs, and so the trial would wait for ever once machines have gone. On a machine that
        is about to go no trial is to begin either, and one whose processes idle cannot be given back.
        """
        if self.lost is not None and self.lost.leaving:
            tune_controller._cleanup_cached_actors(force_all=True)
        waits, now = bool(tune_controller._pending_trials), time.monotonic()
        if not tune_controller._actor_cache.num_cached_objects:
            self.idle_since = None
            return
        if self.idle_since is None or self.idle_since[0] != waits:
            self.idle_since = waits, now
        if now - self.idle_since[1] > (WAIT_S if waits else IDLE_S):
            self.idle_since = None
            if waits or is_cluster():
                tune_controller._cleanup_cached_actors(force_all=True)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        score, number = result[SCORE], trial.config["number"]
        goes_on = math.isfinite(score)
        if goes_on and trial.config.get("stage", SEARCH) == SEARCH:
            self.searcher.reported(number, result["spent"], score)  # first, as the scheduler decides by what is known
            goes_on = self.scheduler.goes_on(number, result["spent"], score) and not self._set_aside(number, result)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Ray tells the last report of a trial that has ended by itself here alone."""
        self._keep_process(tune_controller, trial.placement_group_factory)
        score, number = result.get(SCORE, math.nan), trial.config["number"]
        if result.get("finished") and math.isfinite(score) and trial.config.get("stage", SEARCH) == SEARCH:
            self.searcher.reported(number, result["spent"], score)
            self.scheduler.goes_on(number, result["spent"], score)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """The first that Ray tells of an error: whether the trial goes on is decided here."""
        if self.lost is not None:
            self.lost.take(trial.config["number"], trial.met)

    def _keep_process(self, tune_controller: Any, resources: Any) -> None:
        """Have Ray keep the process of a slot for the slot's next trial.

        It keeps those for which a trial waits already; but ours wait for nothing, as a trial is proposed only when
        there is room for it. Ray has no setting for this.
        """
        if resources not in self.keeping:
            self.keeping.add(resources)
            tune_controller._actor_cache.increase_max(resources)

    def _set_aside(self, number: int, result: dict[str, Any]) -> bool:
        """Whether a trial that would go on has to make room; it is not ended, and `resume` goes on with it."""
        if self.final is None or result.get("finished") or not self.final.is_due():
            return False
        self.final.set_aside.add(number)
        return True


def find_checkpoint(recorder: Recorder, record: TrialRecord) -> None:
    """Have a trial return to the last of its checkpoints that can be read, or begin anew if none can be.

    One that goes on from another trial's checkpoint, and has none of its own since, fails with the reason.
    """
    if not record.checkpoint or is_whole(recorder.run.path / record.checkpoint):
        return
    own = {spent: path for spent, path in record.checkpoints.items() if spent > record.spent_before}
    there = [spent for spent, path in own.items() if is_whole(recorder.run.path / path)]
    if there or not record.inherited:
        recorder.returned(record.number, max(there, default=0.0))


def replay(searcher: Searcher, scheduler: Scheduler, journal: Journal) -> None:
    """Tell a new searcher and a new scheduler what earlier sessions found."""
    for record in journal.in_stage(SEARCH):
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


def folder_of(record: TrialRecord) -> str:
    """A directory for its checkpoints, in the session's; one for each leg of a population's or a lost trial.

    A process that is thought to be lost may still write to the one that it had.
    """
    name = trial_name(record.number)
    leg = f"_from_{record.spent:.10g}" if record.spent else ""
    return f"{name}{leg}_again_{record.lost}" if record.lost else name + leg
