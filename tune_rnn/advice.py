"""What can be said of an experiment once its data are known: what cannot work, and what was hardly meant."""

from __future__ import annotations

from collections.abc import Iterator

from tune_rnn.data import Corpus
from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.kinds import KINDS

FEW_STEPS = 30
"""An epoch of fewer training steps teaches little."""


def check_batches(experiment: Experiment, corpus: Corpus) -> None:
    """Refuse batches of more streams than there are symbols to predict."""
    largest, predictions = max(experiment.extremes("training.batch_size")), corpus.train.predictions
    if largest > predictions:
        noun = KINDS[experiment.task.kind].noun
        rule = f"the training text has only {predictions:,} {noun}s to predict, too few for as many streams"
        raise InputError("training.batch_size", rule, "Lower it, or give more text.", largest)


def notes(experiment: Experiment, corpus: Corpus) -> Iterator[str]:
    """One sentence for each thing that works, but not as its author will have thought."""
    batch, length = (max(experiment.extremes(f"training.{name}")) for name in ("batch_size", "sequence_length"))
    steps = -(-corpus.train.predictions // (batch * length))
    if steps < FEW_STEPS:
        size = f"training.batch_size {batch} and training.sequence_length {length}"
        yield f"with {size} an epoch has only {plural(steps, 'training step')}: lower them, or give more text"
    dropouts = experiment.extremes("regularizers.hidden_dropout")
    if max(dropouts) > 0 and max(experiment.extremes("model.layers")) == 1:
        yield "regularizers.hidden_dropout acts between layers, so with one layer it does nothing"
