"""One trial inside a Ray actor: Tune's class interface around `training.Training`.

An actor is kept and trains one trial after another (`reset_config`), so its imports and its memory-mapped data
are paid for once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from tune_rnn.checkpoint import Checkpoints, load
from tune_rnn.data import Split
from tune_rnn.errors import TrialFailed
from tune_rnn.precision import prepare_process
from tune_rnn.report import Report, TrialBudget
from tune_rnn.results.journal import FINAL
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData

SCORE = "score"
"""What search and early stopping compare (minimise): see `Report.score`."""


REPORT, CHECKPOINT = "report", "checkpoint"
"""Where a result has the trial's report as it is, and the directory of the checkpoint that belongs to it."""

KEPT = 2
"""Checkpoints of a trial that are kept: the last one, and the one before while the study may still read it."""


class TrialTrainable(tune.Trainable):
    """Trains the configuration in `config["trial"]`, a text in JSON, and reports what `Training.run` yields.

    A trial is built by its first step, so that what fails in building it fails like any training error, with its
    traceback, and not as an actor that could not be made. A step ends with a checkpoint, of which Ray knows nothing:
    were it Ray that asks for one, each report would take two calls instead of one, and Ray would write down the state
    of all trials, however many there are, whenever it has one of them delete a checkpoint. Its `save`, which copies
    files to the storage from elsewhere, takes five times as long.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """`shared`: splits as arrays from the object store (one copy a node), budgets, threads, device."""
        prepare_process(shared["threads"])
        self.wanted_device: str = shared["device"]
        self.budget: TrialBudget = shared["budget"]
        self.final_budget: TrialBudget = shared.get("final_budget", self.budget)
        self.data = TrainingData(
            vocabulary_size=shared["vocabulary_size"],
            train=Split(*shared["train"]),
            validation=Split(*shared["validation"]),
            documents=shared["documents"],
        )
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; Tune calls this instead of starting a new process."""
        self.trial, self.checkpoints = new_config, Checkpoints(Path(new_config["folder"]), KEPT)
        self.training: Training | None = None
        self.reports: Iterator[Report] = iter(())  # no generator of the last trial's keeps its tensors alive
        return True

    def step(self) -> dict[str, Any]:
        if self.training is None:
            self.training = self._build()
            self.reports = self.training.run()
        report = next(self.reports)
        saved = self.checkpoints.save(self.training)
        return result_of(report) | {CHECKPOINT: str(saved), "done": bool(report.finished)}

    def _build(self) -> Training:
        config = TrialConfig.model_validate(json.loads(self.trial["trial"]))
        device = trial_device(self.wanted_device)
        budget = self.final_budget if self.trial.get("stage") == FINAL else self.budget
        training = Training(config, self.data, budget, self.trial["seed"], device)
        if self.trial["resume_from"]:
            load(training, Path(self.trial["resume_from"]))
        return training


def result_of(report: Report) -> dict[str, Any]:
    """A report as Tune passes it on: one object, and beside it only what is compared, as Tune walks through that."""
    return {REPORT: report, SCORE: report.score, "spent": report.spent, "finished": report.finished}


def trial_device(wanted: str) -> str:
    """The device that Ray gave this trial. Refuses a GPU that torch cannot see, rather than train elsewhere."""
    gpus = [] if wanted == "cpu" else ray.get_gpu_ids()
    if not gpus:
        return "cpu"
    if not torch.cuda.is_available():
        raise TrialFailed(
            f"this trial was given GPU {gpus[0]}, but torch {torch.__version__} sees none there. "
            "Install a CUDA build of torch and a driver, or set resources.device: cpu."
        )
    return "cuda:0"  # Ray shows a process only its own GPUs


def shared_arrays(split: Split) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What a split consists of, for the object store."""
    return np.asarray(split.tokens), np.asarray(split.document_starts)
