"""One trial in this process, without Ray: to debug, to profile, to run a trial again or a winner longer."""

from __future__ import annotations

import shlex
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tune_rnn.advice import check_batches
from tune_rnn.checkpoint import packed
from tune_rnn.checkpoint_folder import CheckpointFolder
from tune_rnn.constraints import check_fixed_model
from tune_rnn.data import load_corpus
from tune_rnn.display import Display, plural
from tune_rnn.errors import InputError, TrialFailed, is_disk_full
from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import final_experiment
from tune_rnn.precision import prepare_process, resolve_precision
from tune_rnn.report import TrialBudget
from tune_rnn.results import directory
from tune_rnn.results.conclusion import carry_out
from tune_rnn.results.journal import FINAL, Journal
from tune_rnn.results.mirror import is_remote
from tune_rnn.results.recorder import Plan, Recorder
from tune_rnn.results.summary import Result
from tune_rnn.search import trial_seed
from tune_rnn.signals import sigterm_as_ctrl_c
from tune_rnn.training import Training, TrainingData


@dataclass(frozen=True)
class Rerun:
    """A trial of a finished run, to be trained again: its experiment with every value fixed, and its seed."""

    experiment: Experiment
    seed: int

    @classmethod
    def of(cls, where: str, overrides: Sequence[str] = ()) -> Rerun:
        """`where` is RUN (its best trial) or RUN:TRIAL, in a URL before its query; `overrides` come after its values.

        Raises InputError where there is no such trial, and where the run's data have changed (unless `overrides`
        give other data).
        """
        path, number = _run_and_trial(where)
        run = directory.open_run(path)
        journal = Journal(run.journal)
        if number and not (number.isdecimal() and int(number) in journal.trials):
            there = f"It has trials 0 to {len(journal.trials) - 1}." if journal.trials else "It has none."
            raise InputError(where, "the run has no such trial", there)
        trial = journal.trials[int(number)] if number else journal.best_trial
        if trial is None:
            raise InputError(where, "the run has no best trial", "Name one: RUN:TRIAL.")
        if trial.earlier:
            count = plural(len(trial.earlier) + 1, "configuration")
            rule = f"trial {trial.number} went on from another's weights: {count}, which cannot be run again one by one"
            values = shlex.join(f"{key}={value}" for key, value in trial.assignment.items())
            anew = f"`tune-rnn train {shlex.quote(str(run.experiment))} {values}` trains its last one from the start"
            raise InputError(where, rule, f"The best model is in {run.best}; {anew}.")
        studied = Experiment.of_run(run.experiment)
        studied = final_experiment(studied) if trial.stage == FINAL else studied.without_final()
        experiment = studied.replace("name", directory.name_after(run, directory.trial_name(trial.number)))
        experiment = experiment.fixed_at(trial.assignment)
        changed = experiment.with_overrides(overrides)
        if changed.task == experiment.task:
            journal.check_data(load_corpus(changed.task, beside=changed.beside).sha256)
        return cls(changed, trial.seed)


def _run_and_trial(where: str) -> tuple[str, str]:
    """RUN and TRIAL, "" where there is none; directories, addresses and queries may have colons of their own."""
    address, mark, query = where.partition("?") if is_remote(where) else (where, "", "")
    run, colon, trial = address.rpartition(":")
    if not colon or "/" in trial or Path(where).exists():
        return where, ""
    return f"{run}{mark}{query}", trial


def train(
    experiment: Experiment,
    seed: int | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Result:
    """Train the one model that an experiment without distributions describes, into a run directory of its own.

    A final stage is left out: it takes a study, and is what `tune_rnn.run` does with such an experiment.
    `seed`: the trial's; by default that of a study's first trial. Raises InputError where something is left to
    search, StudyInterrupted after Ctrl-C (`tune-rnn resume` goes on), StudyFailed if the trial diverges.
    """
    _check_fixed(experiment)
    experiment = experiment.without_final()
    started = started or time.time()
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    check_batches(experiment, corpus)
    check_fixed_model(experiment, corpus)
    threads = max(1, int(experiment.resources.per_trial.cpu))
    prepare_process(threads)
    device = _device(experiment)
    config = experiment.trial_config({})
    cells, hidden = [config.model.cell], config.model.hidden_size
    precision = resolve_precision(config.training.precision, torch.device(device), cells, hidden)
    experiment = experiment.replace("training.precision", precision)
    config = experiment.trial_config({})
    seed = trial_seed(experiment.search.seed, 0) if seed is None else seed
    data = TrainingData(corpus.vocabulary.size, corpus.train, corpus.validation, experiment.task.documents)
    training = Training(config, data, TrialBudget.of(experiment), seed, device)
    run = directory.create(experiment.storage, experiment.name)
    display = display or Display()
    with directory.held(run, display.say), sigterm_as_ctrl_c():
        directory.write_experiment(run, experiment)
        journal = Journal(run.journal)
        journal.open_session(corpus.sha256, 1, started)
        plan = Plan(1, threads, device, 1, experiment.budget.amount)
        recorder = Recorder(run, journal, experiment, corpus, plan, display)
        recorder.proposed(0, seed, {}, config.to_dict())
        header = f"{run.path.name}: one model, in this process; results in {run.place}"
        return carry_out(lambda: _train(training, recorder), recorder, corpus, header)


def _check_fixed(experiment: Experiment) -> None:
    """Refuse an experiment in which something is still to be searched."""
    keys = experiment.unfixed
    if keys:
        others = f", and so do {', '.join(keys[1:])}" if keys[1:] else ""
        values = " ".join(f"{key}=NAME" if key == "one_of" else f"{key}=VALUE" for key in keys)
        remedy = f"Fix them all ({values}), or search with `tune-rnn run`."
        raise InputError(keys[0], f"still has a distribution{others}; `train` trains one model", remedy)


def _train(training: Training, recorder: Recorder) -> str:
    """Train and record; returns the status. Ctrl-C and SIGTERM stop between any two instructions."""
    try:
        checkpoints = CheckpointFolder(recorder.run.path / "checkpoints")
        recorder.started(0)
        for report in training.run():
            recorder.reported(0, report)
            directory = checkpoints.directory(training.reports)
            recorder.checkpointed(0, checkpoints.put(directory, packed(training)))
            recorder.tick()
        recorder.ended(0)
    except KeyboardInterrupt:
        return "interrupted"
    except (OSError, TrialFailed) as error:
        if not is_disk_full(error):
            raise
        recorder.failed(0, str(error), traceback.format_exc())
        return "failed"
    return "completed"


def _device(experiment: Experiment) -> str:
    resources = experiment.resources
    if resources.may_use_gpu and torch.cuda.is_available():
        return "cuda:0"
    if resources.device == "cuda":
        remedy = "Install a CUDA build of torch, or set resources.device: cpu."
        raise InputError("resources.device", f"torch {torch.__version__} sees no GPU", remedy, "cuda")
    return "cpu"
