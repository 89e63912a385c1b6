"""Keeps `best/` and a text sample up to date while a study runs, in one background thread of the driver.

The trial slots never wait for it. At most one model is written every 30 seconds, and the last one for certain.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.checkpoint_folder import is_whole
from tune_rnn.data import Corpus
from tune_rnn.errors import InputError, StudyFailed
from tune_rnn.kinds import KINDS
from tune_rnn.results.journal import TrialRecord
from tune_rnn.schema import TrialConfig

EVERY_S = 30.0


@dataclass(frozen=True)
class Sample:
    """Text from a trial's best model, and how many tokens that model was trained with."""

    trial: int
    tokens: int
    text: str


class BestKeeper:
    """Exports the best model so far and draws a sample from it."""

    def __init__(self, directory: Path, corpus: Corpus, threads: int, device: str) -> None:
        self.directory, self.corpus, self.threads, self.device = directory, corpus, threads, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="best-model")
        self._running: Future[Sample] | None = None  # None once its sample is collected
        self._last: Future[Sample] | None = None
        self._started = -EVERY_S
        self._exported: tuple[int, int] | None = None

    def offer(self, trial: TrialRecord, checkpoint: Path) -> None:
        """Begin to export a trial's best model, unless that is done, cannot be, or the last export is too recent."""
        idle = self._running is None and time.monotonic() - self._started >= EVERY_S
        if idle and _identity(trial) != self._exported and is_whole(checkpoint.parent):
            self._begin(trial, self._export, checkpoint.read_bytes())

    def collect(self) -> Sample | None:
        """The sample of an export that has ended since the last call; raises what went wrong in it."""
        if self._running is None or not self._running.done():
            return None
        done, self._running = self._running, None
        return done.result()

    def finish(self, trial: TrialRecord, checkpoint: Path) -> Sample:
        """Export a trial's best model, unless the last export was just that, and wait for it.

        Raises StudyFailed where its checkpoint is lost, unless an earlier session has exported it.
        """
        last = self._last
        if last is not None:
            last.result()
        if last is None or _identity(trial) != self._exported:
            if is_whole(checkpoint.parent):
                last = self._begin(trial, self._export, checkpoint.read_bytes())
            elif self._is_there(trial):
                last = self._begin(trial, self._sample)
            else:
                lost = f"The checkpoint of the best trial, {trial.number}, is missing or damaged: {checkpoint}."
                again = f"`tune-rnn train --from {self.directory.parent}:{trial.number}` trains it again"
                raise StudyFailed(f"{lost} Resume the study when that is back; or {again}.")
        self._running = None
        return last.result()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _begin(self, trial: TrialRecord, work: Callable[..., Sample], *checkpoint: bytes) -> Future[Sample]:
        """Have the thread work: on what is known of the trial and its checkpoint now, as the trial goes on."""
        self._started, self._exported = time.monotonic(), _identity(trial)
        self._running = self._last = self._thread.submit(work, *checkpoint, self._metadata(trial))
        return self._last

    def _is_there(self, trial: TrialRecord) -> bool:
        """Whether an earlier session has exported just this model."""
        from tune_rnn.exported import load_model

        ours = self._metadata(trial)
        with suppress(InputError):
            there = load_model(self.directory).metadata
            return all(there.get(key) == ours[key] for key in ("trial", "seed", "metrics"))
        return False

    def _export(self, checkpoint: bytes, metadata: dict[str, Any]) -> Sample:
        from tune_rnn.checkpoint import best_parameters  # torch not before it is needed: no study waits for it
        from tune_rnn.exported import export
        from tune_rnn.training import sizes_of

        parameters = best_parameters(io.BytesIO(checkpoint))
        sizes = sizes_of(TrialConfig.model_validate(metadata["config"]), self.corpus.vocabulary.size)
        export(self.directory, sizes, parameters, self.corpus.vocabulary, metadata)
        return self._sample(metadata)

    def _sample(self, metadata: dict[str, Any]) -> Sample:
        import torch

        from tune_rnn.exported import load_model

        torch.set_num_threads(1)  # the others are the slots'
        length = KINDS[metadata["kind"]].sample_length
        text = load_model(self.directory).sample(length=length, temperature=0.8, seed=metadata["seed"])
        return Sample(metadata["trial"], metadata["metrics"]["tokens"], text)

    def _metadata(self, trial: TrialRecord) -> dict[str, Any]:
        best = trial.best
        assert best is not None
        return {
            "trial": trial.number,
            "seed": trial.seed,
            "metrics": best_metrics(trial),
            "precision": trial.config["training"]["precision"],
            "threads": self.threads,
            "device": self.device,
            "kind": trial.config["task"]["kind"],
            "data": {"name": self.corpus.name, "sha256": self.corpus.sha256},
            "config": trial.best_stretch.config,
        }


def best_metrics(trial: TrialRecord) -> dict[str, Any]:
    """Validation metrics of a trial at its lowest loss, as summary and export give them."""
    best, kind = trial.best, KINDS[trial.config["task"]["kind"]]
    assert best is not None
    assert best.validation_loss is not None
    return {
        "validation_loss": best.validation_loss,
        kind.metric: kind.of_loss(best.validation_loss),
        "train_loss": best.train_loss,
        "spent": best.spent,
        "tokens": best.tokens,
    }


def _identity(trial: TrialRecord) -> tuple[int, int]:
    return trial.number, trial.best.step if trial.best else 0
