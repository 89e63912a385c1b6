"""What no model may exceed: `constraints.parameters`. A configuration above it is refused before it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune_rnn.data import Corpus
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.schema import TrialConfig

REFUSALS = 1000
"""After so many configurations in a row that were refused, the search is given up."""

KEY, REMEDY = "constraints.parameters", "Raise it, or let models be smaller."


@dataclass(frozen=True)
class ParameterCap:
    """How many parameters a model may have, None: any number; their number follows from sizes and vocabulary."""

    limit: int | None
    vocabulary_size: int

    @classmethod
    def of(cls, experiment: Experiment, corpus: Corpus) -> ParameterCap:
        return cls(experiment.constraints.parameters, corpus.vocabulary.size)

    def count(self, config: TrialConfig) -> int:
        """Parameters of a configuration's model; nothing is built."""
        from tune_rnn.model import count_parameters  # torch is not loaded before it has to be
        from tune_rnn.training import sizes_of

        return count_parameters(sizes_of(config, self.vocabulary_size))

    def excess(self, config: TrialConfig) -> int | None:
        """The parameters of a configuration that is refused; None for one that may be trained."""
        if self.limit is None:
            return None
        parameters = self.count(config)
        return parameters if parameters > self.limit else None

    def refused_start(self, place: int, parameters: int) -> str:
        """What is said of a starting point whose model has so many parameters."""
        what = f"search.start[{place}] is refused: its model has {parameters:,} parameters"
        return f"{what}, more than constraints.parameters, {self.limit:,}"

    def too_tight(self, refused: Sequence[int]) -> InputError:
        """The error for a search that only comes upon larger models, of so many parameters."""
        rule = f"each of {len(refused):,} configurations in a row has more parameters, the smallest {min(refused):,}"
        return InputError(KEY, rule, REMEDY, self.limit)


def check_fixed_model(experiment: Experiment, corpus: Corpus) -> None:
    """Refuse the one model of an experiment that searches nothing, where it is above the cap."""
    cap = ParameterCap.of(experiment, corpus)
    if experiment.space.is_empty and (parameters := cap.excess(experiment.trial_config({}))):
        raise InputError(KEY, f"the model has more parameters, {parameters:,}", REMEDY, cap.limit)


def sample_below(cap: ParameterCap, experiment: Experiment, generator: np.random.Generator) -> TrialConfig:
    """Draw a configuration that is not refused; InputError where `REFUSALS` draws are."""
    refused = []
    for _ in range(REFUSALS):
        config = experiment.trial_config(experiment.space.sample(generator))
        if (parameters := cap.excess(config)) is None:
            return config
        refused.append(parameters)
    raise cap.too_tight(refused)
