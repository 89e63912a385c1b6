"""A trial's checkpoints as files; what is in them is the business of `tune_rnn.checkpoint`, which needs torch."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from tune_rnn.errors import TrialFailed
from tune_rnn.report import CHECKPOINT

KEPT = 2
"""Checkpoints that a study keeps of a trial: the last one, and the one before, should that prove damaged."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint: its directory, and its content where that has yet to be written there.

    A process on a machine that does not see the run's directory hands over the content.
    """

    directory: Path
    content: bytes | None = None


class CheckpointFolder:
    """Checkpoints of one training, a directory for each, of which the last `kept` ones stay."""

    def __init__(self, folder: Path, kept: int = 1) -> None:
        self.folder, self.kept = folder, kept
        self.saved: deque[Path] = deque()

    def directory(self, reports: int) -> Path:
        """Where the checkpoint belongs that is saved after so many reports."""
        return self.folder / f"checkpoint_{reports:06d}"

    def put(self, directory: Path, content: bytes) -> Path:
        """Write another one beside those that are there, return its directory, and only then delete the oldest."""
        write(directory, content)
        self.saved.append(directory)
        if len(self.saved) > self.kept:
            shutil.rmtree(self.saved.popleft(), ignore_errors=True)  # a population may have been there first
        return directory


def write(directory: Path, content: bytes) -> None:
    """Write a checkpoint, whole or not at all; TrialFailed where the disk is full."""
    file = directory / CHECKPOINT
    fresh = file.with_suffix(".new")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        os.replace(fresh, file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrialFailed(f"no space left on the disk for a checkpoint in {directory}") from error
        raise


def is_whole(directory: Path) -> bool:
    """Whether a checkpoint is there and as it was written: torch's files are zip archives, with checksums."""
    try:
        with zipfile.ZipFile(directory / CHECKPOINT) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError):  # the last: what its flags say it is not
        return False
