"""Trials whose process is gone: which of them go on elsewhere, and which have failed.

Ray's own retries (`FailureConfig`) are not used: they would begin a trial anew, as Ray does not know its checkpoints.
"""

from __future__ import annotations

import re

import ray.exceptions

from tune_rnn.results.journal import SEARCH, TrialRecord
from tune_rnn.results.recorder import Recorder

WITH_ITS_MACHINE = 5
"""So often a trial goes on elsewhere, in a session, after the loss of a machine or of the way to it."""

ALONE = 1
"""And so often where its process alone was killed: another may have taken the memory, or its machine was going down."""


class LostTrials:
    """Waits with a session's lost trials until there is room for them."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.waiting: list[TrialRecord] = []
        self.moving: set[int] = set()
        """Those whose process we have ended ourselves, to have them go on elsewhere."""
        self.leaving: frozenset[str] = frozenset()
        """Addresses of machines that are about to be taken away."""

    def take(self, number: int, error: BaseException | None) -> bool:
        """Whether a trial that has met with an error goes on from its last checkpoint; then it waits here."""
        trial = self.recorder.journal.trials[number]
        moved = number in self.moving
        self.moving.discard(number)
        reason = "its machine is about to be taken away" if moved else why_lost(error, trial.lost - trial.moved)
        if reason is not None:
            self.recorder.lost(number, reason, moved)
            self.waiting.append(trial)
        return reason is not None

    def next(self, search_is_over: bool) -> TrialRecord | None:
        """The first that may go on; those of the search are left to a later session once it is over."""
        wanted = [trial for trial in self.waiting if not (search_is_over and trial.stage == SEARCH)]
        if wanted:
            self.waiting.remove(wanted[0])
        return wanted[0] if wanted else None

    def __contains__(self, number: int) -> bool:
        return any(trial.number == number for trial in self.waiting)


def why_lost(error: BaseException | None, times: int) -> str | None:
    """Why a trial, lost so many times before, is to go on after an error; None where it has failed.

    Where memory runs out, the kernel or Ray chooses whom to kill, and that need not be the trial that takes it.
    """
    if not isinstance(error, ray.exceptions.RayActorError):
        return None
    unreachable = isinstance(error, ray.exceptions.ActorUnavailableError)
    if unreachable or error.preempted or re.search(r"\bnode\b.*\b(died|dead|terminated)\b", str(error), re.IGNORECASE):
        return "its machine is gone or cannot be reached" if times < WITH_ITS_MACHINE else None
    return "its process was killed" if times < ALONE else None
