"""Trials whose process is gone: which of them go on in another, and which have failed.

Ray's own retries (`FailureConfig`) are not used: they would begin a trial anew, as Ray does not know its checkpoints.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Set

import ray.exceptions

from tune_rnn.results.journal import SEARCH, TrialRecord
from tune_rnn.results.recorder import Recorder

MOVED = "its machine is about to be taken away"
GONE = "its machine is gone or cannot be reached"
KILLED = "its process was killed"

ALLOWED = {MOVED: math.inf, GONE: 5, KILLED: 1}
"""So often a trial goes on, in a session, after each of them."""


class LostTrials:
    """Waits with a session's lost trials until there is room for them."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.waiting: list[tuple[TrialRecord, Set[int]]] = []
        """Each with those of which one is to make room first."""
        self.times: Counter[tuple[int, str]] = Counter()
        self.moving: set[int] = set()
        """Those whose process we have ended ourselves, to have them go on elsewhere."""
        self.leaving: frozenset[str] = frozenset()
        """Addresses of machines that are about to be taken away."""

    def take(self, number: int, error: BaseException | None) -> bool:
        """Whether a trial that has met with an error goes on from its last checkpoint; then it waits here.

        One whose process was killed waits until one of those beside it has made room, if there are any. For where
        memory runs out, the kernel or Ray chooses whom to kill, and that need not be the trial that takes it.
        """
        reason = MOVED if number in self.moving else why_lost(error)
        self.moving.discard(number)
        if reason is None or self.times[number, reason] >= ALLOWED[reason]:
            return False
        self.times[number, reason] += 1
        beside = frozenset(self.recorder.running - {number}) if reason == KILLED else frozenset()
        self.recorder.lost(number, reason, waits=bool(beside))
        self.waiting.append((self.recorder.journal.trials[number], beside))
        return True

    def next(self, search_is_over: bool) -> TrialRecord | None:
        """The first that may go on; those of the search are left to a later session once it is over."""
        for place, (trial, beside) in enumerate(self.waiting):
            has_room = not beside or not beside <= self.recorder.running
            if has_room and not (search_is_over and trial.stage == SEARCH):
                del self.waiting[place]
                return trial
        return None

    def __contains__(self, number: int) -> bool:
        return any(trial.number == number for trial, _ in self.waiting)


def why_lost(error: BaseException | None) -> str | None:
    """Why a trial's process is lost; None for an error that is the trial's own."""
    if not isinstance(error, ray.exceptions.RayActorError) or error.actor_init_failed:
        return None
    unreachable = isinstance(error, ray.exceptions.ActorUnavailableError)
    if unreachable or error.preempted or re.search(r"\bnode\b.*\b(died|dead|terminated)\b", str(error), re.IGNORECASE):
        return GONE
    return KILLED
