"""Where a result comes from: versions, data, source revision, hardware, time."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from tune_rnn.data import Corpus
from tune_rnn.machine import processor_name

PACKAGES = ("tune_rnn", "ray", "torch", "hyperopt", "optuna", "smac", "numpy", "pyarrow", "tensorboard")


def provenance(corpus: Corpus, device: str = "cpu") -> dict[str, Any]:
    """What `summary.json` says of a run's origin; git's state is that of the current directory.

    The hardware is this machine's; its GPUs are named where `device`, the trials', is "cuda".
    """
    return {
        "versions": versions(PACKAGES),
        "data": {"name": corpus.name, "sha256": corpus.sha256, "files": list(corpus.files)},
        "git": git_state(Path.cwd()),
        "hardware": {
            "machine": platform.machine(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            **(_gpus() if device == "cuda" else {}),
        },
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Versions of Python and of some packages; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _gpus() -> dict[str, Any]:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"gpus": names, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository around `folder`, and whether its tracked files were unchanged; None outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "clean": _git(folder, "status", "--porcelain", "--untracked-files=no") == ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
