"""What trains in a slot's process, one trial after another: the side of a study that needs torch.

The study's own process sends a `TrialTrainable` here, and does not load this module.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import torch

from tune_rnn.checkpoint import load, packed
from tune_rnn.checkpoint_folder import KEPT, CheckpointFolder, Saved
from tune_rnn.data import Split
from tune_rnn.errors import TrialFailed
from tune_rnn.precision import prepare_process
from tune_rnn.report import Report, TrialBudget
from tune_rnn.results.directory import holder
from tune_rnn.results.journal import FINAL
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData


class Worker:
    """Trains the configuration in `trial["trial"]`, a text in JSON: a step is one training iteration and a checkpoint.

    A trial is built by its first step, so that what fails in building it fails like any training error.
    """

    def __init__(
        self, data: TrainingData, budget: TrialBudget, final_budget: TrialBudget, device: str, sees_run: bool = True
    ) -> None:
        self.data, self.budget, self.final_budget, self.device = data, budget, final_budget, device
        self.sees_run = sees_run

    def take(self, trial: Mapping[str, Any]) -> None:
        """The next trial."""
        self.trial, self.checkpoints = trial, CheckpointFolder(Path(trial["folder"]), KEPT)
        self.training: Training | None = None
        self.reports: Iterator[Report] = iter(())  # no generator of the last trial's keeps its tensors alive

    def step(self, begun: bytes | None = None) -> tuple[Report, Saved]:
        """Train until the next report; with it the checkpoint that belongs to it.

        `begun`: the checkpoint that a trial goes on from, for its first step on a machine that may not see that.
        """
        if self.training is None:
            self.training = self._build(begun)
            self.reports = self.training.run()
        report = next(self.reports)
        directory, content = self.checkpoints.directory(self.training.reports), packed(self.training)
        if not self.sees_run:
            return report, Saved(directory, content)
        return report, Saved(self.checkpoints.put(directory, content))

    def _build(self, begun: bytes | None) -> Training:
        config = TrialConfig.model_validate(json.loads(self.trial["trial"]))
        budget = self.final_budget if self.trial.get("stage") == FINAL else self.budget
        training = Training(config, self.data, budget, self.trial["seed"], trial_device(self.device))
        if self.trial["resume_from"]:
            load(training, Path(self.trial["resume_from"]) if begun is None else io.BytesIO(begun))
        return training


def start_worker(shared: Mapping[str, Any]) -> Worker:
    """Prepare this process, and take over what all trials share: `tuning` lists it."""
    prepare_process(shared["threads"])
    data = TrainingData(
        vocabulary_size=shared["vocabulary_size"],
        train=Split(*shared["train"]),
        validation=Split(*shared["validation"]),
        documents=shared["documents"],
    )
    sees_run = holder(shared["run"]) == shared["holder"]
    return Worker(data, shared["budget"], shared["final_budget"], shared["device"], sees_run)


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
