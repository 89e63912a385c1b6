"""`tune-rnn check`: what an experiment would run, and about how long, without running it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import numpy as np
import torch

from tune_rnn.advice import EVALUATION_COST, check_batches, notes
from tune_rnn.config.final_stage import reason_against
from tune_rnn.constraints import ParameterCap, check_fixed_model, sample_below
from tune_rnn.data import Corpus, load_corpus
from tune_rnn.display import duration, plural
from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import final_experiment, planned_trainings
from tune_rnn.final.timing import makespan
from tune_rnn.kinds import KINDS
from tune_rnn.precision import prepare_process, resolve_precision
from tune_rnn.report import TrialBudget, rungs
from tune_rnn.results.directory import free_run
from tune_rnn.results.earlier import read_earlier
from tune_rnn.schedulers import MEDIAN_OF
from tune_rnn.search import build_searcher, check_search
from tune_rnn.study.cluster import Slots, count_slots
from tune_rnn.training import Training, TrainingData

SHOWN_SYMBOLS = 10
SAMPLED = 200  # configurations, to count their parameters
TIMED_CONFIGURATIONS = 4
TIMED_S = 0.5
START_S = 15.0
"""Seconds in which no trial trains: Ray, torch, the first actors, the end."""


def check(experiment: Experiment) -> str:
    """Validate corpus, space, resources and storage of an experiment and describe what would run, as text.

    Configurations are drawn from the space to count parameters, and a few of them train for half a second each to
    estimate the time. Raises InputError for what `run` would refuse on this machine.
    """
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    check_batches(experiment, corpus)
    check_fixed_model(experiment, corpus)
    check_search(experiment.search, experiment.space)
    final_experiment(experiment)  # raises InputError where its reports are too frequent
    run = free_run(experiment.storage, experiment.name)
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    slots = count_slots(experiment.resources, [here])
    precision = _precision(experiment, slots)
    rows = [
        *_data_rows(corpus, KINDS[experiment.task.kind].noun),
        ("trials", _planned(experiment)),
        *_final_rows(experiment),
        *_search_rows(experiment, corpus),
        *(("", str(earlier)) for earlier in read_earlier(experiment, corpus.sha256)),
        ("stopping", _stopping(experiment)),
        *_space_rows(experiment),
        ("slots", f"{slots.count} at a time here, {_share(slots)} each"),
        ("parameters", _parameter_range(experiment, corpus)),
        ("precision", precision),
        ("time", _time(experiment.replace("training.precision", precision), corpus, slots)),
        ("results", run.place),
        *(("note", note) for note in notes(experiment, corpus)),
    ]
    return "\n".join([f"{experiment.name} would run:", *(f"  {title:<11} {text}" for title, text in rows)])


def _precision(experiment: Experiment, slots: Slots) -> str:
    (stated,) = experiment.extremes("training.precision")
    device, hidden = torch.device("cuda" if slots.gpu else "cpu"), max(experiment.extremes("model.hidden_size"))
    return resolve_precision(stated, device, experiment.extremes("model.cell"), hidden)


def _share(slots: Slots) -> str:
    if slots.gpu:
        return "a GPU" if slots.gpu == 1 else f"{slots.gpu:g} of a GPU"
    return plural(slots.cpu, "processor")


def _data_rows(corpus: Corpus, noun: str) -> Iterator[tuple[str, str]]:
    splits = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items() if split is not None)
    yield "corpus", f"{corpus.name}: {sizes} {noun}s; {corpus.vocabulary.size:,} symbols"
    if corpus.unseen:
        shown = " ".join(repr(symbol) for symbol in list(corpus.unseen)[:SHOWN_SYMBOLS])
        more = " …" if len(corpus.unseen) > SHOWN_SYMBOLS else ""
        count = sum(corpus.unseen.values())
        held_out = sum(len(split) for split in (corpus.validation, corpus.test) if split is not None)
        what = f"{count:,} of {held_out:,} {noun}s of validation and test ({_percent(count / held_out)})"
        yield "", f"{what} are not in the vocabulary, and read as <unk>: {shown}{more}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.01 else "less than 1 %"


def _planned(experiment: Experiment) -> str:
    planned, hours = experiment.planned_trials, experiment.budget.hours
    count = "trials" if planned is None else plural(planned, "trial")
    until = "" if hours is None else f", at most {plural(hours, 'hour')} in all"
    return f"{count} of at most {plural(experiment.budget.amount, experiment.budget.unit[:-1])}{until}"


def _final_rows(experiment: Experiment) -> Iterator[tuple[str, str]]:
    final, budget = experiment.final, experiment.budget
    if final is None:
        against = reason_against(experiment.search, experiment.scheduler, experiment.space)
        yield "final", f"none, as {against or 'final.top_k is 0'}"
        return
    again, to_the_end = planned_trainings(experiment)
    best = "the best" if again == final.seeds else f"the best {again // final.seeds}"
    trainings = f"{plural(again, 'training')} of {plural(final.amount(budget), budget.unit[:-1])}"
    yield "final", f"{best} with {plural(final.seeds, 'new seed')}: {trainings}; final.top_k=0 leaves it out"
    if to_the_end:
        yield "", f"and {plural(to_the_end, 'stopped trial')} trained to the end (audit)"


def _search_rows(experiment: Experiment, corpus: Corpus) -> Iterator[tuple[str, str]]:
    """The search, and those of its starting points that the study will refuse, as it will say itself."""
    if experiment.space.is_empty:
        yield "search", "nothing to search"
        return
    refused = _refused_starts(experiment, corpus)
    points = len(experiment.search.start) - len(refused)
    yield "search", experiment.search.algorithm + (f", after {plural(points, 'starting point')}" if points else "")
    yield from (("", text) for text in refused)


def _refused_starts(experiment: Experiment, corpus: Corpus) -> list[str]:
    cap, count = ParameterCap.of(experiment, corpus), len(experiment.search.start)
    if cap.limit is None or not count:
        return []
    searcher = build_searcher(experiment.search, experiment.space)
    searcher.allowed = lambda assignment: cap.excess(experiment.trial_config(assignment)) is None
    configs = (experiment.trial_config(searcher.starting_point(place)) for place in range(count))
    found = ((place, cap.excess(config)) for place, config in enumerate(configs))
    return [cap.refused_start(place, parameters) for place, parameters in found if parameters is not None]


def _stopping(experiment: Experiment) -> str:
    if experiment.has_population:
        first, unit = experiment.scheduler.first_rung, experiment.budget.unit
        return f"none; pbt: the worst quarter takes over from the best quarter every {plural(first or 0.0, unit[:-1])}"
    if experiment.space.is_empty:
        return "none"
    if experiment.scheduler.algorithm == "median":
        return _median_stopping(experiment)
    points = ", ".join(f"{rung:g}" for rung in rungs(experiment))
    if not points:
        return "none"
    counted = experiment.budget.unit[:-1] if points == "1" else experiment.budget.unit
    return f"{experiment.scheduler.algorithm}, comparing trials at {points} {counted}"


def _median_stopping(experiment: Experiment) -> str:
    first, budget, planned = experiment.scheduler.first_rung or 1.0, experiment.budget, experiment.planned_trials
    if not any(first <= at < budget.amount for at in TrialBudget.of(experiment).report_at):
        return f"none; median: no report from {plural(first, budget.unit[:-1])} on before the end"
    if planned is not None and planned <= MEDIAN_OF:
        return f"none; median: needs {MEDIAN_OF} other trials to compare with"
    when = f"at every report from {plural(first, budget.unit[:-1])} on"
    return f"median, {when}: what is above the median of the others, of which at least {MEDIAN_OF} have come as far"


def _space_rows(experiment: Experiment) -> Iterator[tuple[str, str]]:
    space = experiment.space
    rows = [("", key, found) for key, found in space.shared.items()]
    rows += [(f" in {name}", key, found) for name, keys in space.branches.items() for key, found in keys.items()]
    if space.branches:
        yield "searched", f"one_of: {', '.join(space.branches)}"
    for branch, key, distribution in rows:
        ((kind, arguments),) = distribution.to_yaml().items()
        yield "searched", f"{key}{branch}: {kind} {arguments}"


def _parameter_range(experiment: Experiment, corpus: Corpus) -> str:
    generator = np.random.default_rng(0)
    configs = [experiment.trial_config(experiment.space.sample(generator)) for _ in range(SAMPLED)]
    cap = ParameterCap.of(experiment, corpus)
    counts = [cap.count(config) for config in configs]
    low, high, refused = min(counts), max(counts), sum(cap.excess(config) is not None for config in configs)
    if refused == SAMPLED:
        sample_below(cap, experiment, generator)  # raises what `run` would end with, unless it finds one
    found = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    if not refused:
        return found
    share = f"{_percent(refused / SAMPLED)} of sampled configurations"
    return f"{found}; {share} are over constraints.parameters, {cap.limit:,}"


def _time(experiment: Experiment, corpus: Corpus, slots: Slots) -> str:
    """The study's duration on this machine, from a few configurations timed now."""
    planned, hours = experiment.planned_trials, experiment.budget.hours
    limit = float("inf") if hours is None else 3600 * hours
    if planned is None:
        return f"{duration(limit)} (budget.hours)"
    prepare_process(slots.threads)
    trainings = _drawn_trainings(experiment, corpus, slots)
    one = float(np.mean([_trial_s(training, corpus.validation.predictions) for training in trainings]))
    final_s = _final_s(experiment, one, slots.count)
    total = START_S + one * _full_trials(experiment, planned) / min(slots.count, planned) + final_s
    # What the median stops cannot be foretold.
    about = "at most about" if _stopping(experiment).startswith("median") else "about"
    if total > limit:
        everything = f"all {planned} trials" + (" and the final stage" if experiment.final else "")
        return f"{duration(limit)} (budget.hours; {everything} would take {about} {duration(total)})"
    of_which = f", of which the final stage {duration(final_s)}" if final_s else ""
    return f"{about} {duration(total)}{of_which}, as measured on this machine now"


def _final_s(experiment: Experiment, trial_s: float, slots: int) -> float:
    """Duration of the final stage, of which each training is as long as `trial_s` at the search's budget."""
    if experiment.final is None:
        return 0.0
    again, to_the_end = planned_trainings(experiment)
    longer = experiment.final.amount(experiment.budget) / experiment.budget.amount
    return makespan([], [trial_s * longer] * again + [trial_s] * to_the_end, slots)


def _drawn_trainings(experiment: Experiment, corpus: Corpus, slots: Slots) -> Iterator[Training]:
    data = TrainingData(corpus.vocabulary.size, corpus.train, corpus.validation, experiment.task.documents)
    device = "cuda:0" if slots.gpu else "cpu"
    generator, cap = np.random.default_rng(experiment.search.seed), ParameterCap.of(experiment, corpus)
    for _ in range(1 if experiment.space.is_empty else TIMED_CONFIGURATIONS):
        config = sample_below(cap, experiment, generator)
        yield Training(config, data, TrialBudget.of(experiment), seed=0, device=device)


def _trial_s(training: Training, validation_predictions: int) -> float:
    """Seconds of one whole trial, from half a second of its training.

    One thread's own time is counted, so that what else the machine is doing now does not make the study seem longer.
    """
    alone = training.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    training.train_step()  # the first step also prepares the kernels
    tokens_before, started = training.tokens, clock()
    while clock() - started < TIMED_S:
        training.train_step()[0].item()
    s_per_token = (clock() - started) / (training.tokens - tokens_before)
    passes = training.total_steps / len(training.windows)
    evaluated = len(training.budget.report_at) * validation_predictions
    return s_per_token * (passes * training.predictions + EVALUATION_COST * evaluated)


def _full_trials(experiment: Experiment, planned: int) -> float:
    """How many whole budgets the trials use, with those that early stopping lets go on past each rung."""
    if experiment.has_population or experiment.space.is_empty:
        return float(planned)
    edges = [0.0, *rungs(experiment), experiment.budget.amount]
    spent, trials = 0.0, float(planned)
    for before, after in itertools.pairwise(edges):
        spent += trials * (after - before)
        trials = _going_on(trials, experiment.scheduler.reduction_factor)
    return spent / experiment.budget.amount


def _going_on(trials: float, factor: float) -> float:
    """How many of equally good trials ASHA lets go on, one after another: the first does, and few of the later ones.

    The i-th is compared with i - 1 others, and goes on where it is among the best of them, 1 + (i - 2)/factor of i.
    """
    return sum(min(1.0, (1 + max(0, number - 2) / factor) / number) for number in range(1, round(trials) + 1))
