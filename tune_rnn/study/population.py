"""A population at work (`tune_rnn.population`): every trial trains in legs, from one rung to the next.

Each leg is a trial of Ray Tune's, begun from a checkpoint as a resumed one is: so a trial that takes over another's
weights, one that waits while others train, and one of an interrupted study go the same way. Of Ray's own
PopulationBasedTraining nothing would be left: it refuses every searcher, keeps its state in objects of its own where
ours is in the journal, and mutates bare numbers by Python's global random generator.

The trial that has come least far is next, of several the one with the lowest loss. So when there are more trials than
slots nearly all others have come as far when one of the worse is decided on, and no slot waits for the slowest.
"""

from __future__ import annotations

import bisect
import math
import shutil
from collections.abc import Collection

import numpy as np

from tune_rnn import population
from tune_rnn.report import rungs
from tune_rnn.results.journal import SEARCH, TrialRecord
from tune_rnn.study.proposing import Proposer

DRAWS = 0x9B7
"""What keeps the random numbers of mutations apart from those of the search."""


class Population:
    """Hands out legs; what it needs to know of the past is in the journal."""

    def __init__(self, proposer: Proposer) -> None:
        self.proposer, self.recorder, self.experiment = proposer, proposer.recorder, proposer.experiment
        self.journal, self.run = self.recorder.journal, self.recorder.run
        self.rungs = rungs(self.experiment)

    def next(self, running: Collection[int]) -> TrialRecord | None:
        """The trial whose leg begins; None where all others have ended, are `running`, or wait for one of these."""
        self._remove_checkpoints()
        new = self.proposer.next_trial()
        if new is not None:
            return new
        waiting = sorted((one for one in self._members() if one.number not in running), key=self._turn)
        found = next((trial for trial in waiting if self._can_go_on(trial)), None)
        if found is None and not running:
            for trial in waiting:
                if not trial.outcome:
                    self.recorder.ended(trial.number)  # diverged, and there is nobody to take over from
        return found

    def waits(self, number: int) -> bool:
        """Whether a trial whose leg is over has another one before it, if only after taking over other weights."""
        trial = self.journal.trials[number]
        return not trial.reports[-1].finished or self._can_be_replaced(trial)

    def _members(self) -> list[TrialRecord]:
        """Trials that have not ended for good."""
        return [one for one in self.journal.in_stage(SEARCH) if not one.outcome or self._can_be_replaced(one)]

    def _can_be_replaced(self, trial: TrialRecord) -> bool:
        return trial.outcome != "failed" and trial.diverged and self._rung(trial) is not None

    def _turn(self, trial: TrialRecord) -> tuple[float, float, int]:
        rung = self._rung(trial)
        loss = None if rung is None else self._loss_at(trial, rung)
        return trial.spent if rung is None else rung, 0.0 if loss is None else loss, trial.number

    def _rung(self, trial: TrialRecord) -> float | None:
        """The rung at which a trial stands; a diverged one at the next that it would have come to, if there is one."""
        place = bisect.bisect_left(self.rungs, trial.spent)
        here = place < len(self.rungs) and (trial.diverged or self.rungs[place] == trial.spent)
        return self.rungs[place] if here else None

    def _loss_at(self, trial: TrialRecord, rung: float) -> float | None:
        """What a trial itself has got to at a rung, infinity if it diverged before; None if it has not got there."""
        before = max((one for one in self.rungs if one < rung), default=0.0)
        for report in trial.own_reports:
            if report.finished == "diverged" and before < report.spent <= rung:
                return math.inf
            if report.spent == rung:
                return report.validation_loss
        return None

    def _can_go_on(self, trial: TrialRecord) -> bool:
        """Let a trial at a rung take over other weights where it should; whether it has any to go on with."""
        rung = self._rung(trial)
        if rung is not None and trial.inherited < len(trial.reports):  # else it has just taken over
            self._decide(trial, rung)
        return not trial.diverged

    def _decide(self, trial: TrialRecord, rung: float) -> None:
        """The holder of the lowest loss of all stays as it is: `best/` comes from its checkpoint."""
        members = self.journal.in_stage(SEARCH)
        known = {one.number: self._loss_at(one, rung) for one in members}
        losses = {number: loss for number, loss in known.items() if loss is not None}
        there = [one.number for one in members if self._has_saved(one, rung)]
        seed = (self.experiment.search.seed, DRAWS, trial.number, self.rungs.index(rung))
        generator = np.random.default_rng(seed)
        other = population.source(trial.number, losses, there, generator)
        if other is None or self.journal.best_trial is trial:
            return
        assignment = self.journal.trials[other].assignment
        mutated = population.mutate(assignment, self.experiment.space, generator)
        config = self.experiment.trial_config(mutated).to_dict()
        self.recorder.took_over(trial.number, other, rung, mutated, config)

    def _has_saved(self, trial: TrialRecord, rung: float) -> bool:
        """Whether a checkpoint of a rung is there to go on from: of a trial's present weights, and not its end."""
        path, ended_there = trial.checkpoints.get(rung), trial.spent == rung and trial.reports[-1].finished
        on_the_way = rung > trial.spent_before and not ended_there
        return path is not None and on_the_way and (self.run.path / path).exists()

    def _remove_checkpoints(self) -> None:
        """Delete those of rungs that all have left behind, but for each trial's last one."""
        trials = self.journal.in_stage(SEARCH)
        least = min((trial.spent for trial in self._members()), default=math.inf)
        last = {trial.checkpoint for trial in trials}
        for trial in trials:
            for spent in [spent for spent in trial.checkpoints if spent < least]:
                if trial.checkpoints[spent] not in last:
                    shutil.rmtree(self.run.path / trial.checkpoints.pop(spent), ignore_errors=True)
