"""The final stage at work: hands out its trainings when the search has ended, and keeps time for them."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import Training, trainings
from tune_rnn.final.timing import final_seconds, longest_report_s, makespan, seconds_left
from tune_rnn.results.journal import AUDIT, FINAL, Journal, TrialRecord

LOOK_SHARE = 0.02
"""What part of the time may be taken by looking at all trials, which say how long this stage will take."""

LONGEST_PAUSE_S = 5.0
"""How old that may be, where such a look takes long."""


class FinalStage:
    """One session's final stage; without `final` in the experiment it has nothing to do.

    `deadline`: when the study's time is over, in seconds since the epoch; None: no hours limit it.
    """

    def __init__(self, journal: Journal, experiment: Experiment, slots: int, deadline: float | None) -> None:
        self.journal, self.experiment, self.slots, self.deadline = journal, experiment, slots, deadline
        self.set_aside: set[int] = set()
        """Trials of the search that this stage takes the time of: not ended, but not trained any further either."""
        self._due = False
        self._reserve_s = self._next_look = 0.0
        self._queue: list[TrialRecord] | None = None  # what is left to begin, once the stage has begun
        self._rounds: set[int] = set()  # seeds with which some candidate has been trained

    @property
    def is_wanted(self) -> bool:
        return self.experiment.final is not None

    def is_due(self) -> bool:
        """Whether the search must end now so that the time suffices for this stage; once it is so, it stays so.

        Asked at every report: the clock is read each time, and all trials are looked at now and then.
        """
        if self.is_wanted and self.deadline is not None and not self._due:
            self._look()
            self._due = time.time() + self._reserve_s > self.deadline
        return self._due

    def _look(self) -> None:
        began = time.monotonic()
        if began < self._next_look:
            return
        self._reserve_s, now = self._needed_s(), time.monotonic()
        self._next_look = now + min((now - began) / LOOK_SHARE, LONGEST_PAUSE_S)

    def _needed_s(self) -> float:
        """What the stage needs, at most `final.share` of the study's hours, and the wait for a trial's last report.

        Where the share is less than what it needs it has fewer seeds.
        """
        final, hours = self.experiment.final, self.experiment.budget.hours
        needed = final_seconds(self.journal, self.experiment, self.slots)
        most = math.inf if final is None or hours is None else final.share * 3600 * hours
        return min(needed, most) + longest_report_s(self.journal)

    def begin(self) -> None:
        """The search has ended: write down all that is to be trained, as far as an earlier session has not."""
        if self._queue is None:
            wanted = [self._trial(training) for training in trainings(self.journal, self.experiment)]
            self._queue = [trial for trial in wanted if not trial.outcome]
            # The first round begins in any case: its time is but estimated, and without it there is nothing at all.
            again = [trial for trial in wanted if trial.stage == FINAL]
            self._rounds = {trial.seed for trial in again if trial.reports or trial.seed == again[0].seed}

    def _trial(self, training: Training) -> TrialRecord:
        """The training's trial: one that an earlier session wrote down, or a new one."""
        for trial in self.journal.in_stage(training.stage):
            if (trial.of, trial.seed) == (training.of, training.seed):
                return trial
        return self.journal.propose_again(training.of, training.stage, training.seed, training.inherits)

    def next(self, running: Collection[int]) -> TrialRecord | None:
        """What to train while the trials `running` are at work; None where nothing is left, or no time for it."""
        assert self._queue is not None, "the stage has begun"
        while self._queue:
            if self._has_time(self._queue[0], running):
                trial = self._queue.pop(0)
                self._rounds.add(trial.seed)
                return trial
            # The rest of this round of seeds, and later rounds, would be in vain; audited trials may be shorter.
            self._queue = [trial for trial in self._queue[1:] if trial.stage == AUDIT]
        return None

    def _has_time(self, trial: TrialRecord, running: Collection[int]) -> bool:
        """Whether a trial can end in time; a candidate's with all others of its round, as one alone would not count."""
        if self.deadline is None or (trial.stage == FINAL and trial.seed in self._rounds):
            return True
        together = [one for one in self._queue or () if (one.stage, one.seed) == (trial.stage, trial.seed)]
        busy = [self._seconds_left(self.journal.trials[number]) for number in running]
        jobs = [self._seconds_left(one) for one in together]
        return time.time() + makespan(busy, jobs, self.slots) <= self.deadline

    def _seconds_left(self, trial: TrialRecord) -> float:
        return seconds_left(trial, self.journal, self.experiment)
