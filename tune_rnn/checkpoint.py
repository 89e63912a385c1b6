"""A training's state in a directory, and back. Nothing is executed on loading: tensors and plain values only."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tune_rnn.checkpoint_folder import write
from tune_rnn.model import Parameters
from tune_rnn.report import CHECKPOINT
from tune_rnn.training import Training


def packed(training: Training) -> bytes:
    """A training's state, as `load` takes it."""
    content = io.BytesIO()
    torch.save(training.state_dict(), content)
    return content.getvalue()


def save(training: Training, directory: Path) -> None:
    """Write a training's state into a checkpoint directory; TrialFailed where the disk is full."""
    write(directory, packed(training))


def load(training: Training, source: Path | BinaryIO) -> None:
    """Take over the state that `save` wrote for the same configuration, data and seed: a directory, or its content."""
    training.load_state_dict(_read(source / CHECKPOINT if isinstance(source, Path) else source))


def best_parameters(file: Path | BinaryIO) -> Parameters:
    """The parameters of the lowest validation loss in a checkpoint file."""
    saved = _read(file)
    best: Parameters = saved["parameters"] if saved["best_parameters"] is None else saved["best_parameters"]
    return best


def _read(file: Path | BinaryIO) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return saved
