"""The journal of a run, `trials.jsonl`: one JSON line for everything that happened, appended as it happens.

It is what a resumed study, `show` and `report` read; nothing in it needs Ray or pickle. A line cut off by a crash is
ignored, and so are reports that no checkpoint covers: a resumed trial makes them again, bit for bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.final import ranking
from tune_rnn.report import Report
from tune_rnn.results.record import AUDIT, FINAL, SEARCH, TrialRecord
from tune_rnn.space import Assignment

__all__ = ["AUDIT", "FINAL", "OUTCOMES", "SEARCH", "Journal", "TrialRecord", "lowest", "outcome_of"]

OUTCOMES = ("completed", "stopped_early", "diverged", "failed")


@dataclass
class Span:
    """A session's slots, and its time from `since` to `until`, in seconds since the epoch."""

    slots: int
    since: float
    until: float

    @property
    def seconds(self) -> float:
        return self.until - self.since


class Journal:
    """The trials of a run, in memory and on disk. Every method that changes them appends its line first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[int, TrialRecord] = {}
        self.refused: list[Assignment] = []  # proposed, and never trained
        self.sessions: list[Span] = []
        self.data_sha256 = ""
        if path.exists():
            self._read()

    def open_session(self, data_sha256: str, slots: int, started: float) -> None:
        """Begin a session; trials that have not ended, or failed, return to their last checkpoint.

        If that is a trial's last one, the trial has ended. `started`: since when its time counts, in seconds since
        the epoch.
        """
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            self._append_text("\n")  # after a line that a crash cut off
        self._append({"event": "session", "data_sha256": data_sha256, "slots": slots, "started": started})

    def close_session(self) -> None:
        """End a session: its time counts up to here, and otherwise up to its last line."""
        self._append({"event": "session_ended"})

    def propose(self, number: int, seed: int, assignment: Assignment, config: dict[str, Any]) -> TrialRecord:
        return self._propose(number, {"seed": seed, "assignment": assignment, "config": config})

    def propose_again(self, of: int, stage: str, seed: int, inherits: int = 0) -> TrialRecord:
        """A trial of a later stage, of what trial `of` tried; it takes over the first `inherits` reports of that."""
        old = self.trials[of]
        again = {"stage": stage, "of": of, "inherits": inherits}
        values = {"seed": seed, "assignment": old.assignment, "config": old.config}
        return self._propose(len(self.trials), again | values)

    def _propose(self, number: int, values: dict[str, Any]) -> TrialRecord:
        self._append({"event": "proposed", "trial": number, **values})
        return self.trials[number]

    def take_over(
        self, number: int, of: int, spent: float, assignment: Assignment, config: dict[str, Any]
    ) -> TrialRecord:
        """A trial of a population goes on from what trial `of` had with a budget of `spent`, with other values."""
        values = {"of": of, "spent": spent, "assignment": assignment, "config": config}
        self._append({"event": "took_over", "trial": number, **values})
        return self.trials[number]

    def refuse(self, number: int, assignment: Assignment) -> None:
        """What was proposed for a trial breaks a constraint; the trial will be another one."""
        self._append({"event": "refused", "trial": number, "assignment": assignment})

    def report(self, number: int, report: Report) -> None:
        self._append({"event": "report", "trial": number, "report": report.to_dict()})

    def checkpoint(self, number: int, path: str) -> None:
        self._append({"event": "checkpoint", "trial": number, "path": path})

    def place(self, number: int, machine: str, gpus: list[int]) -> None:
        """A trial trains on a machine of several, or with GPUs of one."""
        self._append({"event": "placed", "trial": number, "machine": machine, "gpus": gpus})

    def lose(self, number: int, reason: str) -> None:
        """A trial's process is lost, and the trial returns to its last checkpoint."""
        self._append({"event": "lost", "trial": number, "reason": reason})

    def return_to(self, number: int, spent: float) -> None:
        """A trial's newer checkpoints cannot be read: it returns to that of a budget of `spent`; 0: it begins anew."""
        self._append({"event": "returned", "trial": number, "spent": spent})

    def change_slots(self, slots: int) -> None:
        """Machines have come or gone."""
        self._append({"event": "slots", "slots": slots})

    def end(self, number: int, outcome: str, reason: str) -> None:
        self._append({"event": "ended", "trial": number, "outcome": outcome, "reason": reason})

    @property
    def best_trial(self) -> TrialRecord | None:
        """The answer: the trial of the lowest validation loss so far, the first of equals; never one that diverged.

        Once each candidate of the final stage has a loss with the same seed, it is one of the best candidate's. Until
        then a training of that stage counts as one of the search does, also one that has been cut off. A candidate that
        joins later does not count before it has caught up.
        """
        winner = ranking.winner(self.compared_losses)
        again = self.in_stage(FINAL)
        if winner is None:
            return lowest([*self.in_stage(SEARCH), *again])
        return lowest([trial for trial in again if trial.of == winner])

    @property
    def final_losses(self) -> dict[int, dict[int, float]]:
        """Of each candidate of the final stage the losses of trainings that have ended, by seed; inf: diverged.

        A candidate whose trainings have all failed is left out.
        """
        losses: dict[int, dict[int, float]] = {}
        for trial in self.in_stage(FINAL):
            assert trial.of is not None
            if trial.outcome != "failed":
                of = losses.setdefault(trial.of, {})
                if trial.outcome:
                    of[trial.seed] = trial.end_loss
        return losses

    @property
    def compared_losses(self) -> dict[int, Mapping[int, float]]:
        """`final_losses` without candidates that joined later and have not caught up (`ranking.compared`)."""
        return ranking.compared(self.final_losses, self._asked_before())

    def _asked_before(self) -> dict[int, set[int]]:
        """Of each candidate of the final stage the seeds that were asked of others before it joined."""
        before, asked = dict[int, set[int]](), set[int]()
        for trial in self.in_stage(FINAL):
            assert trial.of is not None
            before.setdefault(trial.of, set(asked) if trial.joined else set())
            asked.add(trial.seed)
        return before

    def in_stage(self, stage: str) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.stage == stage]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials that a resumed study goes on with."""
        return [trial for trial in self.trials.values() if trial.outcome in ("", "failed")]

    @property
    def wall_s(self) -> float:
        """Seconds of all sessions."""
        return sum(span.seconds for span in self.sessions)

    @property
    def slot_s(self) -> float:
        """Seconds of all sessions, each times its slots: what trials could have used."""
        return sum(span.slots * span.seconds for span in self.sessions)

    @property
    def training_s(self) -> float:
        """Seconds in training steps and validation, over all trials; what a resumed trial did again counts once."""
        return sum(report.training_s for trial in self.trials.values() for report in trial.own_reports)

    def check_data(self, sha256: str) -> None:
        """Raise InputError where this is not the sha256 of the data that the trials were trained on."""
        recorded = self.data_sha256
        if recorded and recorded != sha256:
            rule = f"the data has changed since the study began (sha256 {sha256[:12]}…, not {recorded[:12]}…)"
            raise InputError(str(self.path.parent), rule, "Restore it, or begin a new study with `tune-rnn run`.")

    def _append(self, event: dict[str, Any]) -> None:
        event = {**event, "time": round(time.time(), 3)}
        self._append_text(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._apply(event)

    def _append_text(self, text: str) -> None:
        data = text.encode("utf-8")
        with open(self.path, "ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]

    def _read(self) -> None:
        lines = self.path.read_text("utf-8", errors="replace").split("\n")  # splitlines() also splits at U+2028
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off by a crash
            try:
                self._apply(event)
            except (KeyError, TypeError, IndexError) as error:
                rule = f"line {number} is not what tune_rnn writes ({type(error).__name__}: {error})"
                raise InputError(
                    str(self.path), rule, "Restore the file from a copy, or run the study again."
                ) from error

    def _apply(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "session":
            self.sessions.append(Span(event["slots"], event["started"], event["time"]))
            self.data_sha256 = event["data_sha256"]
            self._return_to_checkpoints()
        elif kind == "proposed":
            self.trials[event["trial"]] = self._new_trial(event)
        elif kind == "refused":
            self.refused.append(event["assignment"])
        elif kind == "slots":
            self.sessions[-1].until = event["time"]
            self.sessions.append(Span(event["slots"], event["time"], event["time"]))
        elif kind != "session_ended":
            self._apply_to_trial(kind, self.trials[event["trial"]], event)
        self.sessions[-1].until = event["time"]

    def _new_trial(self, event: dict[str, Any]) -> TrialRecord:
        trial = TrialRecord(event["trial"], event["seed"], event["assignment"], event["config"])
        if "stage" in event:
            trial.stage, trial.of, trial.inherited = event["stage"], event["of"], event["inherits"]
            trial.joined = any(one.own_reports or one.outcome for one in self.in_stage(FINAL))
        if trial.inherited:
            goes_on_from = self.trials[event["of"]]
            trial.reports = goes_on_from.reports[: trial.inherited]
            trial.checkpoint, trial.checkpoint_reports = goes_on_from.checkpoint, trial.inherited
        return trial

    def _apply_to_trial(self, kind: str, trial: TrialRecord, event: dict[str, Any]) -> None:
        if kind == "report":
            trial.reports.append(Report.from_dict(event["report"]))
        elif kind == "checkpoint":
            trial.checkpoint, trial.checkpoint_reports = event["path"], len(trial.reports)
            trial.checkpoints[trial.spent] = event["path"]
        elif kind == "took_over":
            trial.take_over(self.trials[event["of"]], event["spent"], event["assignment"], event["config"])
        elif kind == "placed":
            trial.machine, trial.gpus = event["machine"], event["gpus"]
        elif kind == "lost":
            del trial.reports[trial.checkpoint_reports :]
            trial.lost += 1
        elif kind == "returned":
            trial.return_to(event["spent"])
        elif kind == "ended":
            trial.outcome, trial.reason = event["outcome"], event["reason"]

    def _return_to_checkpoints(self) -> None:
        for trial in self.unfinished:
            del trial.reports[trial.checkpoint_reports :]
            trial.outcome = trial.reason = ""
            trial.lost = 0
            if trial.reports and trial.reports[-1].finished:  # the crash came before its end was written
                trial.outcome, trial.reason = outcome_of(trial.reports[-1], unit="")


def lowest(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial of the lowest validation loss, that which trained to it, the first of equals; none that diverged."""
    sound = {trial.number: trial for trial in trials if not trial.diverged}
    scored = [
        (trial.best_loss, bool(trial.earlier) and trial.best_stretch.trial != number, number)
        for number, trial in sound.items()
        if trial.best_loss is not None
    ]
    return sound[min(scored)[2]] if scored else None


def outcome_of(last: Report, unit: str) -> tuple[str, str]:
    """How a trial ended and why, from its last report: what it did not decide itself, the scheduler did."""
    if last.finished == "diverged":
        return "diverged", last.reason
    if last.finished == "budget":
        return "completed", last.reason
    not_good_enough = f"its loss after {plural(last.spent, unit[:-1])} was not good enough to go on"
    return "stopped_early", last.reason or not_good_enough
