"""`run` and `resume`: from an experiment to a session on Ray in a run directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tune_rnn.advice import check_batches
from tune_rnn.constraints import check_fixed_model
from tune_rnn.data import load_corpus
from tune_rnn.display import Display
from tune_rnn.errors import InputError, StudyFailed, StudyInterrupted
from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import final_experiment
from tune_rnn.machine import computes_bf16, may_have_gpu
from tune_rnn.results import directory
from tune_rnn.results.earlier import read_earlier
from tune_rnn.results.journal import FINAL, Journal
from tune_rnn.results.summary import Result
from tune_rnn.search import check_search
from tune_rnn.signals import Interrupt, interrupts
from tune_rnn.study.ahead import load_libraries
from tune_rnn.study.cluster import Slots, find_slots, ray_session
from tune_rnn.study.session import Session

LOOKS = 10
"""How often the look at a machine with a GPU is repeated when the machine is lost, or the process dies."""


def run(
    experiment: Experiment,
    address: str | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Result:
    """Run a study in a new run directory and return what it found.

    `address`: a running Ray cluster to use (else RAY_ADDRESS, else a private one). `started`: when the time that
    `budget.hours` and `summary.json` count began, in seconds since the epoch (default: now).
    Raises InputError before anything is started, StudyInterrupted after Ctrl-C or SIGTERM (what was done is kept),
    and StudyFailed if no trial has a result.
    """
    started, display = started or time.time(), display or Display()
    directory.check_storage(experiment.storage)
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    check_batches(experiment, corpus)
    check_fixed_model(experiment, corpus)
    check_search(experiment.search, experiment.space)
    final_experiment(experiment)  # raises InputError where its reports are too frequent
    earlier = read_earlier(experiment, corpus.sha256)
    resources, resolve = experiment.resources, partial(_resolve_precision, experiment)
    display.say(f"{experiment.name}: starting Ray")
    with _stoppable() as interrupted, ray_session(address, resources, resolve) as precision:
        slots = find_slots(experiment.resources)
        elsewhere = slots.gpu > 0 and not may_have_gpu()
        hours = experiment.budget.hours
        until = None if hours is None else started + 3600 * hours
        found = (
            _resolve_on_a_worker(experiment, slots, display, interrupted, until) if elsewhere else precision.result()
        )
        if interrupted.is_set():
            raise StudyInterrupted("Interrupted before the first trial; nothing was written.")
        resolved = experiment.replace("training.precision", found)
        new = directory.create(experiment.storage, experiment.name)
        with directory.held(new, display.say):
            directory.write_experiment(new, resolved)
            return Session(resolved, corpus, new, slots, display, started, interrupted, earlier).run()


def resume(
    path: str | Path,
    overrides: Sequence[str] = (),
    address: str | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Result:
    """Go on with an interrupted study, or with a larger budget: `budget.trials=N`, `budget.hours=H`, `final.seeds=N`.

    Finished trials are not run again; unfinished and failed ones go on from their last checkpoint; the searcher
    and ASHA are told what earlier sessions found. Raises what `run` raises, and InputError for other overrides, for
    data that has changed, for a run of `search.warm_start` that is gone, and for a run that another process is working
    on.
    """
    started, display = started or time.time(), display or Display()
    old = directory.open_run(path, with_checkpoints=True)
    journal = Journal(old.journal)
    experiment = larger_experiment(old, journal, overrides)
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    journal.check_data(corpus.sha256)
    _check_checkpoints(old, journal)
    check_search(experiment.search, experiment.space)
    earlier = read_earlier(experiment, corpus.sha256)
    with directory.held(old, display.say), _stoppable() as interrupted:
        display.say(f"{old.path.name}: starting Ray")
        with ray_session(address, experiment.resources, load_libraries):
            slots = find_slots(experiment.resources)
            directory.write_experiment(old, experiment)
            return Session(experiment, corpus, old, slots, display, started, interrupted, earlier).run()


def larger_experiment(run: directory.RunDirectory, journal: Journal, overrides: Sequence[str]) -> Experiment:
    """What a run is to go on with; InputError for overrides with which it cannot."""
    before = Experiment.of_run(run.experiment)
    after = _with_larger_budget(before, overrides)
    final_experiment(after)  # raises InputError where its reports are too frequent
    _check_final(before, after, journal)
    return after


@contextmanager
def _stoppable() -> Iterator[Interrupt]:
    """`interrupts`, with an answer while Ray starts, which cannot be stopped half-way."""
    with interrupts() as interrupted:
        interrupted.answer = "\nStopping as soon as Ray has started.\n"
        yield interrupted


def _with_larger_budget(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    for override in overrides:
        key = override.partition("=")[0]
        if key not in ("budget.trials", "budget.hours") and not key.startswith("final."):
            rule = "only budget.trials and budget.hours can change when a study goes on, and what is below final"
            raise InputError(key, rule, "Begin a new study with `tune-rnn run` to change anything else.")
        if key == "budget.trials" and experiment.has_population:
            rule = "is the size of a population, which is trained together from the beginning"
            raise InputError(key, rule, "Begin a new study with `tune-rnn run` to train a larger one.")
    larger = experiment.with_overrides(overrides)
    _check_wanted(overrides, larger)
    for name in ("trials", "hours"):
        before, after = getattr(experiment.budget, name), getattr(larger.budget, name)
        if before is not None and after is not None and after < before:
            raise InputError(f"budget.{name}", f"was {before:g}; a budget can only grow", "", after)
    return larger


def _check_wanted(overrides: Sequence[str], larger: Experiment) -> None:
    """Refuse to change a final stage that is switched off."""
    keys = [override.partition("=")[0] for override in overrides if override.startswith("final.")]
    if keys and "final.top_k" not in keys and larger.final is None:
        raise InputError(keys[0], "there is no final stage, as final.top_k is 0", "Add final.top_k=3.")


def _check_checkpoints(run: directory.RunDirectory, journal: Journal) -> None:
    """Refuse a copy of a run without checkpoints, as it comes back from a cluster."""
    saved = [
        path for trial in journal.trials.values() for path in (trial.checkpoint, *trial.checkpoints.values()) if path
    ]
    if saved and not any((run.path / path).exists() for path in saved):
        remedy = "Go on where it was run: `tune-rnn submit CLUSTER --resume STUDY`, if that was a cluster."
        raise InputError(run.place, "has no checkpoints to go on from", remedy)


def _check_final(before: Experiment, after: Experiment, journal: Journal) -> None:
    """Refuse fewer seeds for a final stage that has begun, and another length of its trainings: these are compared."""
    if after.final is None or not journal.in_stage(FINAL):
        return
    if before.final is not None and after.final.seeds < before.final.seeds:
        rule = f"was {before.final.seeds}, and the final stage has begun with so many; it can only grow"
        raise InputError("final.seeds", rule, "", after.final.seeds)
    new = after.final.amount(after.budget)
    ended = [trial.spent for trial in journal.in_stage(FINAL) if trial.outcome == "completed"]
    old = max(ended, default=new) if before.final is None else before.final.amount(before.budget)
    if old != new:
        rule = f"was {old:g}, and the final stage has begun with that"
        raise InputError(f"final.{after.budget.unit}", rule, "Leave it as it was.", new)


def _resolve_on_a_worker(
    experiment: Experiment, slots: Slots, display: Display, interrupted: Interrupt, until: float | None
) -> str:
    """`_resolve_precision` where trials get GPUs and this machine has none, as a cluster's head: in a trial's place.

    Raises StudyFailed where there is no such machine `until` the study's time is over.
    """
    import ray

    @ray.remote(num_cpus=slots.cpu, num_gpus=slots.gpu, max_retries=LOOKS)
    def resolve() -> str | InputError:
        try:
            return _resolve_precision(experiment)
        except InputError as error:
            return error

    display.say("Looking at a machine with a GPU, which may have to be started")
    answer = resolve.remote()
    while not ray.wait([answer], timeout=0.5)[0]:
        if interrupted.is_set():
            ray.cancel(answer)
            return "fp32"
        if until is not None and time.time() > until:
            ray.cancel(answer)
            raise StudyFailed(
                "No machine with a GPU came up within budget.hours, and nothing was written. On the head `ray status` "
                "says what is waited for, and /tmp/ray/session_latest/logs/monitor.log why."
            )
    try:
        found: str | InputError = ray.get(answer)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        reason = str(error).splitlines()[0]
        raise StudyFailed(f"The look at a machine with a GPU was cut off {LOOKS} times and more: {reason}") from error
    if isinstance(found, InputError):
        raise found
    return found


def _resolve_precision(experiment: Experiment) -> str:
    """Resolve `precision: auto`, with torch only where that has more to say than fp32."""
    load_libraries()
    (precision,) = experiment.extremes("training.precision")
    may_use_gpu = experiment.resources.may_use_gpu and may_have_gpu()
    if precision == "fp32" or (precision == "auto" and not may_use_gpu and not computes_bf16()):
        return "fp32"
    import torch

    from tune_rnn.precision import resolve_precision

    torch.set_num_threads(1)
    device = torch.device("cuda" if experiment.resources.may_use_gpu and torch.cuda.is_available() else "cpu")
    hidden = max(experiment.extremes("model.hidden_size"))
    return resolve_precision(precision, device, experiment.extremes("model.cell"), hidden)
