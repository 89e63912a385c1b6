"""The journal of a run, `trials.jsonl`: one JSON line for everything that happened, appended as it happens.

It is what a resumed study, `show` and `report` read; nothing in it needs Ray or pickle. A line cut off by a crash is
ignored, and so are reports that no checkpoint covers: a resumed trial makes them again, bit for bit.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.report import Report
from tune_rnn.space import Assignment

OUTCOMES = ("completed", "stopped_early", "diverged", "failed")


@dataclass
class TrialRecord:
    """What is known of one trial. `outcome` is "" until it has ended; `checkpoint` is relative to the run."""

    number: int
    seed: int
    assignment: Assignment
    config: dict[str, Any]
    reports: list[Report] = field(default_factory=list)
    checkpoint: str = ""
    checkpoint_reports: int = 0
    outcome: str = ""
    reason: str = ""

    @property
    def best(self) -> Report | None:
        """The report of the lowest validation loss that a checkpoint holds the model of."""
        improved = [report for report in self.reports[: self.checkpoint_reports] if report.improved]
        return improved[-1] if improved else None

    @property
    def best_loss(self) -> float | None:
        return self.best.validation_loss if self.best else None

    @property
    def spent(self) -> float:
        return self.reports[-1].spent if self.reports else 0.0


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
        self._append(
            {
                "event": "proposed",
                "trial": number,
                "seed": seed,
                "assignment": assignment,
                "config": config,
            }
        )
        return self.trials[number]

    def refuse(self, number: int, assignment: Assignment) -> None:
        """What was proposed for a trial breaks a constraint; the trial will be another one."""
        self._append({"event": "refused", "trial": number, "assignment": assignment})

    def report(self, number: int, report: Report) -> None:
        self._append({"event": "report", "trial": number, "report": report.to_dict()})

    def checkpoint(self, number: int, path: str) -> None:
        self._append({"event": "checkpoint", "trial": number, "path": path})

    def end(self, number: int, outcome: str, reason: str) -> None:
        self._append({"event": "ended", "trial": number, "outcome": outcome, "reason": reason})

    @property
    def best_trial(self) -> TrialRecord | None:
        """The trial of the lowest validation loss so far, the first of equals; never one that diverged."""
        sound = [trial for trial in self.trials.values() if trial.outcome != "diverged"]
        scored = [(trial.best_loss, trial.number) for trial in sound if trial.best_loss is not None]
        return self.trials[min(scored)[1]] if scored else None

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
        return sum(report.training_s for trial in self.trials.values() for report in trial.reports)

    def check_data(self, sha256: str) -> None:
        """Raise InputError where this is not the sha256 of the data that the trials were trained on."""
        recorded = self.data_sha256
        if recorded and recorded != sha256:
            rule = f"the data has changed since the study began (sha256 {sha256[:12]}…, not {recorded[:12]}…)"
            raise InputError(str(self.path.parent), rule, "Restore it, or begin a new study with `tune-rnn run`.")

    def count(self, outcome: str) -> int:
        return sum(trial.outcome == outcome for trial in self.trials.values())

    def _append(self, event: dict[str, Any]) -> None:
        event = {**event, "time": round(time.time(), 3)}
        self._append_text(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._apply(event)

    def _append_text(self, text: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)

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
            number = event["trial"]
            self.trials[number] = TrialRecord(number, event["seed"], event["assignment"], event["config"])
        elif kind == "refused":
            self.refused.append(event["assignment"])
        elif kind != "session_ended":
            self._apply_to_trial(kind, self.trials[event["trial"]], event)
        self.sessions[-1].until = event["time"]

    def _apply_to_trial(self, kind: str, trial: TrialRecord, event: dict[str, Any]) -> None:
        if kind == "report":
            trial.reports.append(Report.from_dict(event["report"]))
        elif kind == "checkpoint":
            trial.checkpoint, trial.checkpoint_reports = event["path"], len(trial.reports)
        elif kind == "ended":
            trial.outcome, trial.reason = event["outcome"], event["reason"]

    def _return_to_checkpoints(self) -> None:
        for trial in self.unfinished:
            del trial.reports[trial.checkpoint_reports :]
            trial.outcome = trial.reason = ""
            if trial.reports and trial.reports[-1].finished:  # the crash came before its end was written
                trial.outcome, trial.reason = outcome_of(trial.reports[-1], unit="")


def outcome_of(last: Report, unit: str) -> tuple[str, str]:
    """How a trial ended and why, from its last report: what it did not decide itself, the scheduler did."""
    if last.finished == "diverged":
        return "diverged", last.reason
    if last.finished == "budget":
        return "completed", last.reason
    return "stopped_early", last.reason or f"its loss was among the worse after {plural(last.spent, unit[:-1])}"
