"""One trial inside a Ray actor: Tune's class interface around `training.Training`.

An actor is kept and trains one trial after another (`reset_config`), so its imports and its memory-mapped data
are paid for once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from tune_rnn.data import Split
from tune_rnn.errors import TrialFailed
from tune_rnn.precision import prepare_process
from tune_rnn.report import Report, TrialBudget
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData, load, save

SCORE = "score"
"""What search and early stopping compare (minimise): see `score`."""


class TrialTrainable(tune.Trainable):
    """Trains the configuration in `config["trial"]` and reports what `Training.run` yields."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """`shared`: splits as arrays from the object store (one copy a node), budget, threads, device."""
        prepare_process(shared["threads"])
        self.device = trial_device(shared["device"])
        self.budget: TrialBudget = shared["budget"]
        self.data = TrainingData(
            vocabulary_size=shared["vocabulary_size"],
            train=Split(*shared["train"]),
            validation=Split(*shared["validation"]),
            documents=shared["documents"],
        )
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; Tune calls this instead of starting a new process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        trial = TrialConfig.model_validate(config["trial"])
        self.training = Training(trial, self.data, self.budget, config["seed"], self.device)
        if config["resume_from"]:
            load(self.training, Path(config["resume_from"]))
        self.reports: Iterator[Report] = self.training.run()

    def step(self) -> dict[str, Any]:
        report = next(self.reports)
        result = report.to_dict() | {SCORE: score(report, self.data.baseline_loss)}
        return result | {"done": bool(report.finished), "device": describe_device(self.device)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save(self.training, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Tune passes a path
        load(self.training, Path(checkpoint_dir))
        self.reports = self.training.run()


def score(report: Report, baseline_loss: float) -> float:
    """The lowest validation loss so far, capped; a diverged trial's is worse than any cap.

    Finite, because ASHA's percentiles and HyperOpt's ranks cannot take NaN or infinity; it is never shown.
    """
    if report.finished == "diverged" or report.best_loss is None:
        return 3 * baseline_loss
    return min(report.best_loss, 2 * baseline_loss)


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


def describe_device(device: str) -> str:
    gpus = ray.get_gpu_ids()
    return f"GPU {gpus[0]}" if device != "cpu" and gpus else device


def shared_arrays(split: Split) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What a split consists of, for the object store."""
    return np.asarray(split.tokens), np.asarray(split.document_starts)
