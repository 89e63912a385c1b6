"""The run directory `<storage>/<name>/`: where things are in it, how it is made, who may write to it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tune_rnn.data import absolute_paths
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment

CLOCK_S = 5.0
"""Start times of one process may differ by this much: they move when the clock is set."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def journal(self) -> Path:
        return self.path / "trials.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def ray(self) -> Path:
        """Ray Tune's own state, a sub-directory per session; checkpoints are in it."""
        return self.path / "ray"

    @property
    def test_log(self) -> Path:
        """One line for each look at the test split."""
        return self.path / "test_evaluations.jsonl"

    def trial(self, number: int) -> Path:
        """TensorBoard's event files of a trial, and its traceback if it failed."""
        return self.path / trial_name(number)

    def session(self) -> Path:
        """A directory for Ray that no earlier session of this run has used."""
        numbers = [int(entry.name) for entry in self.ray.glob("*") if entry.name.isdigit()]
        return self.ray / str(max(numbers, default=0) + 1)


def trial_name(number: int) -> str:
    return f"trial_{number:04d}"


def create(storage: str, name: str) -> RunDirectory:
    """Make `<storage>/<name>`, or `<name>-2`, `-3` … where that exists: nothing is ever overwritten."""
    root = check_storage(storage)
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = root / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                path.mkdir()
                return RunDirectory(path)
            number += 1
    except OSError as error:
        raise _unwritable(storage, error.strerror or str(error)) from error


def check_storage(storage: str) -> Path:
    """The directory that `storage` means, which need not exist yet; refuses one that cannot be written."""
    try:
        root = Path(storage).expanduser().absolute()
    except RuntimeError as error:  # ~somebody
        raise _unwritable(storage, "there is no such user") from error
    existing = next(folder for folder in (root, *root.parents) if os.path.exists(folder))
    if not existing.is_dir():
        raise _unwritable(storage, f"{existing} is not a directory")
    if not os.access(existing, os.W_OK):
        raise _unwritable(storage, f"no permission to write in {existing}")
    return root


def _unwritable(storage: str, reason: str) -> InputError:
    remedy = "Give a directory that you may write to: storage=PATH."
    return InputError("storage", f"cannot be written ({reason})", remedy, storage)


def open_run(path: str | Path) -> RunDirectory:
    """An existing run."""
    run = RunDirectory(Path(path).absolute())
    if not run.experiment.is_file():
        remedy = "Give a directory that `tune-rnn run` made."
        raise InputError(str(path), "is not a run directory (it has no experiment.yaml)", remedy)
    return run


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock; a live holder is refused, a dead one's lock is taken over.

    The lock names host, process id and the process's start time, so a recycled process id is not mistaken for the
    holder. On another host it cannot be told whether the holder lives: then the message says what to do.
    """
    lock = run.path / "lock.json"
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    while True:
        try:
            with open(lock, "x", encoding="utf-8") as file:
                json.dump(mine, file)
            break
        except FileExistsError:
            _refuse_if_alive(lock)
            lock.unlink(missing_ok=True)
        except OSError as error:
            remedy = "Make it writable, or copy it to where you may write."
            raise InputError(str(run.path), f"cannot be written ({error.strerror})", remedy) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _refuse_if_alive(lock: Path) -> None:
    try:
        holder = json.loads(lock.read_text("utf-8"))
        host, pid, started = holder["host"], holder["pid"], holder["started"]
    except (OSError, ValueError, KeyError):
        return  # gone meanwhile, or cut off by a crash: nobody holds it
    if host != socket.gethostname():
        remedy = f"If that process is gone, delete {lock}."
        raise InputError(str(lock.parent), f"is in use by process {pid} on {host}", remedy)
    alive_since = _started(pid)
    if alive_since is not None and abs(alive_since - started) < CLOCK_S:
        raise InputError(str(lock.parent), f"is in use by process {pid} on this host", "Wait for it, or stop it.")


def _started(pid: int) -> float | None:
    """Start time of a live process, in seconds since the epoch."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.NoSuchProcess:
        return None


def write_experiment(run: RunDirectory, experiment: Experiment) -> None:
    """Write `experiment.yaml`, with absolute paths of the data: the run finds it wherever it is read from."""
    for key, paths in absolute_paths(experiment.task, experiment.beside).items():
        experiment = experiment.replace(key, paths)
    write_atomically(run.experiment, experiment.to_yaml())


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one step, so that a reader or a crash never meets half of it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
