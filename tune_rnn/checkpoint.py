"""A training's state in a directory, and back. Nothing is executed on loading: tensors and plain values only."""

from __future__ import annotations

import errno
import io
import shutil
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tune_rnn.errors import TrialFailed
from tune_rnn.model import Parameters
from tune_rnn.report import CHECKPOINT
from tune_rnn.training import Training


class Checkpoints:
    """A training's checkpoints in a folder, a directory for each, of which the last `kept` ones stay."""

    def __init__(self, folder: Path, kept: int = 1) -> None:
        self.folder, self.kept = folder, kept
        self.saved: deque[Path] = deque()

    def save(self, training: Training) -> Path:
        """Write another one beside those that are there, return its directory, and only then delete the oldest."""
        directory = self.folder / f"checkpoint_{training.reports:06d}"
        directory.mkdir(parents=True)
        save(training, directory)
        self.saved.append(directory)
        if len(self.saved) > self.kept:
            shutil.rmtree(self.saved.popleft(), ignore_errors=True)  # a population may have been there first
        return directory


def save(training: Training, directory: Path) -> None:
    """Write a training's state into a checkpoint directory; TrialFailed where the disk is full."""
    content = io.BytesIO()  # torch, writing to the file itself, hides a full disk behind a RuntimeError of its own
    torch.save(training.state_dict(), content)
    try:
        (directory / CHECKPOINT).write_bytes(content.getbuffer())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrialFailed(f"no space left on the disk for a checkpoint in {directory}") from error
        raise


def load(training: Training, directory: Path) -> None:
    """Take over the state that `save` wrote for the same configuration, data and seed."""
    training.load_state_dict(_read(directory / CHECKPOINT))


def best_parameters(file: Path | BinaryIO) -> Parameters:
    """The parameters of the lowest validation loss in a checkpoint file."""
    saved = _read(file)
    best: Parameters = saved["parameters"] if saved["best_parameters"] is None else saved["best_parameters"]
    return best


def _read(file: Path | BinaryIO) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return saved
