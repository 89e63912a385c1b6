"""One trial inside a Ray actor: Tune's class interface around a `Worker`.

An actor is kept and trains one trial after another (`reset_config`), so its imports and its memory-mapped data
are paid for once. The study's own process needs this class, but none of torch.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune

from tune_rnn.data import Split
from tune_rnn.report import Report

if TYPE_CHECKING:
    from tune_rnn.study.worker import Worker

SCORE = "score"
"""What search and early stopping compare (minimise): see `Report.score`."""


REPORT, CHECKPOINT, PLACE = "report", "checkpoint", "place"
"""Where a result has the trial's report as it is, the checkpoint (`Saved`) that belongs to it and, a trial's first in a
process, the machine's name with the numbers of the GPUs that Ray has given the process."""


class TrialTrainable(tune.Trainable):
    """Reports what a worker's steps return.

    A step ends with a checkpoint, of which Ray knows nothing: were it Ray that asks for one, each report would take two
    calls instead of one, and Ray would write down the state of all trials, however many there are, whenever it has one
    of them delete a checkpoint. Its `save`, which copies files to the storage from elsewhere, takes five times as long.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """`shared`: splits as arrays from the object store (one copy a node), budgets, threads, device, run, holder."""
        self.shared = shared
        self.worker: Worker | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; Tune calls this instead of starting a new process."""
        self.trial = new_config
        self.place: tuple[str, list[Any]] | None = (platform.node(), ray.get_gpu_ids())
        self.begun: bytes | None = None
        if self.worker is not None:
            self.worker.take(self.trial)
        return True

    def go_on_from(self, checkpoint: bytes) -> None:
        """The content of the checkpoint that the next trial goes on from, for a machine that may not see it."""
        self.begun = checkpoint

    def step(self) -> dict[str, Any]:
        if self.worker is None:
            self.worker = self.start_worker()
            self.worker.take(self.trial)
        begun, self.begun = self.begun, None
        report, saved = self.worker.step(begun)
        result = result_of(report) | {CHECKPOINT: saved, "done": bool(report.finished)}
        if self.place:
            result[PLACE], self.place = self.place, None
        return result

    def start_worker(self) -> Worker:
        """In a step, so that what fails in it fails like any training, and not as an actor that could not be made."""
        from tune_rnn.study.worker import start_worker

        return start_worker(self.shared)


def result_of(report: Report) -> dict[str, Any]:
    """A report as Tune passes it on: one object, and beside it only what is compared, as Tune walks through that."""
    return {REPORT: report, SCORE: report.score, "spent": report.spent, "finished": report.finished}


def shared_arrays(split: Split) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What a split consists of, for the object store."""
    return np.asarray(split.tokens), np.asarray(split.document_starts)
