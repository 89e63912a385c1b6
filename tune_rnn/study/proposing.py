"""From the searcher's proposals to trials of the journal; what is above `constraints.parameters` is refused."""

from __future__ import annotations

from tune_rnn.constraints import REFUSALS, ParameterCap
from tune_rnn.errors import StudyFailed
from tune_rnn.experiment import Experiment
from tune_rnn.results.journal import SEARCH, TrialRecord
from tune_rnn.results.recorder import Recorder
from tune_rnn.search import Proposal, Searcher, trial_seed


class Proposer:
    """Asks a searcher until it proposes what may be trained, and tells it and the recorder what is refused."""

    def __init__(self, searcher: Searcher, recorder: Recorder, experiment: Experiment, cap: ParameterCap) -> None:
        self.searcher, self.recorder, self.experiment, self.cap = searcher, recorder, experiment, cap
        self.refused_in_a_row: list[int] = []  # parameters of each
        searcher.allowed = lambda assignment: cap.excess(experiment.trial_config(assignment)) is None

    def next_trial(self) -> TrialRecord | None:
        """The search's next trial, recorded as proposed; None where there is none any more (see `check`).

        The searcher counts the trials of the search alone, while numbers go on through all stages. Once the search is
        given up it stays so, however often one asks while the last trials run, or the final stage does.
        """
        journal, limit = self.recorder.journal, self.experiment.budget.trials
        number, place = len(journal.trials), len(journal.in_stage(SEARCH))
        if len(self.refused_in_a_row) >= REFUSALS:
            return None
        self.refused_in_a_row = []
        while (limit is None or place < limit) and len(self.refused_in_a_row) < REFUSALS:
            proposal = self.searcher.propose(place)
            if proposal is None:
                return None
            config = self.experiment.trial_config(proposal.assignment)
            parameters = self.cap.excess(config)
            if parameters is None:
                seed = trial_seed(self.experiment.search.seed, place) if proposal.seed is None else proposal.seed
                self.recorder.proposed(number, seed, proposal.assignment, config.to_dict())
                self.searcher.began(number, proposal.assignment)
                return journal.trials[number]
            self._refuse(number, proposal, parameters)
        return None

    def check(self) -> None:
        """Raise StudyFailed where the study ended as all that was proposed at last was refused."""
        refused, journal = self.refused_in_a_row, self.recorder.journal
        if len(refused) < REFUSALS and (journal.trials or not refused):
            return
        kept = f" What was trained until then is in {self.recorder.run.place}." if journal.trials else ""
        raise StudyFailed(f"{self.cap.too_tight(refused)}{kept}")

    def _refuse(self, number: int, proposal: Proposal, parameters: int) -> None:
        self.refused_in_a_row.append(parameters)
        self.recorder.refused(number, proposal.assignment)
        self.searcher.refused(proposal.assignment)
        if proposal.start is not None:
            self.recorder.display.say(self.cap.refused_start(proposal.start, parameters))
