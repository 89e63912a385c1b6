"""What can be said of an experiment once its data are known: what cannot work, and what was hardly meant."""

from __future__ import annotations

from collections.abc import Iterator

from tune_rnn.catalogue import CATALOGUE, Entry
from tune_rnn.data import Corpus
from tune_rnn.display import plural
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.kinds import KINDS
from tune_rnn.report import TrialBudget

FEW_STEPS = 30
"""An epoch of fewer training steps teaches little."""

EVALUATION_COST = 1 / 3
"""Time of a validation token relative to a training token: there is no backward pass."""

MUCH_VALIDATION = 0.3
"""More than this part of a trial's time is worth a word."""

DEAR = 25.0
"""A regulariser that makes a training step longer by so much, in per cent, is worth a word."""


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
    yield from _validation(experiment, corpus)
    yield from (_price(entry) for entry in CATALOGUE if _may_be_on(entry, experiment) and max(entry.costs) >= DEAR)
    if max(experiment.extremes("model.layers")) == 1:
        between = [entry for entry in CATALOGUE if entry.name in ("hidden_dropout", "model.layer_norm: between")]
        for entry in between:
            if _may_be_on(entry, experiment):
                yield f"{entry.full_name} acts between layers, so with one layer it does nothing"
    rates = experiment.extremes("regularizers.state_reset")
    if max(rates) > 0 and set(experiment.extremes("training.windows")) == {"random"}:
        yield "regularizers.state_reset does nothing for training.windows: random, which carry no state"
    points, trials = len(experiment.search.start), experiment.budget.trials
    if trials is not None and points > trials:
        yield f"search.start has {points} points, and budget.trials is {trials}: the others are not tried"
    patience = [value for value in experiment.extremes("regularizers.nt_asgd") if value > 0]
    reports = len(TrialBudget.of(experiment).report_at)
    if patience and min(patience) >= reports:
        there = plural(reports, "report")
        yield f"regularizers.nt_asgd {min(patience)} never begins to average, as a trial has {there}"


def _validation(experiment: Experiment, corpus: Corpus) -> Iterator[str]:
    """Where it takes much of a trial's time, how often a report would be dear enough; rungs report in any case."""
    budget, amount = TrialBudget.of(experiment), experiment.budget.amount
    trained = amount * (corpus.train.predictions if budget.unit == "epochs" else 1)
    validated = EVALUATION_COST * corpus.validation.predictions
    part = 1 - trained / (trained + validated * len(budget.report_at))
    if part > MUCH_VALIDATION:
        affordable = max(1, int(MUCH_VALIDATION / (1 - MUCH_VALIDATION) * trained / validated))
        each = f"{corpus.validation.predictions:,} {KINDS[experiment.task.kind].noun}s"
        remedies = ["a smaller validation part in task.split"]
        if affordable < len(budget.report_at):
            remedies.insert(0, f"training.report_every={amount / affordable:g}")
        yield (
            f"validation takes about {100 * part:.0f} % of a trial's time, {each} at each of "
            f"{plural(len(budget.report_at), 'report')}: {' or '.join(remedies)} leaves more for training"
        )


def _may_be_on(entry: Entry, experiment: Experiment) -> bool:
    values = experiment.extremes(entry.key)
    return entry.value in values if entry.value is not None else max(values) > 0


def _price(entry: Entry) -> str:
    low, high = (max(0, round(cost, -1)) for cost in (min(entry.costs), max(entry.costs)))
    reason = "" if entry.fused else ", as it leaves PyTorch's fused kernels"
    return f"{entry.full_name} makes a training step {low:.0f} to {high:.0f} % longer{reason}"
