"""The run directory `<storage>/<name>/`: where things are in it, how it is made, who may write to it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.mirror import TEST_LOG, Copy, below, is_remote, mirrored, pull, working_directory
from tune_rnn.results.packing import pack, paths_of

NOTE = "TUNE_RNN_NOTE_RUN"
"""Names a file in which the place of a run is to be noted as soon as it is made."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run. `url`: where its copy on object storage is; "" where the directory itself is the run."""

    path: Path
    url: str = ""

    @property
    def place(self) -> str:
        """How a person names it."""
        return self.url or str(self.path)

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
        return self.path / TEST_LOG

    def trial(self, number: int) -> Path:
        """TensorBoard's event files of a trial, and its traceback if it failed."""
        return self.path / trial_name(number)

    def session(self) -> Path:
        """A directory for Ray that no earlier session of this run has used."""
        numbers = [int(entry.name) for entry in self.ray.glob("*") if entry.name.isdigit()]
        return self.ray / str(max(numbers, default=0) + 1)


def name_after(run: RunDirectory, suffix: str) -> str:
    """A name for a run that comes of another one; people rename directories to what is no name."""
    allowed = re.sub(r"[^A-Za-z0-9._-]", "-", run.path.name)
    return f"{allowed[:80]}-{suffix}"


def trial_name(number: int) -> str:
    return f"trial_{number:04d}"


def create(storage: str, name: str) -> RunDirectory:
    """Make `<storage>/<name>`, or `<name>-2`, `-3` … where that exists: nothing is ever overwritten."""
    try:
        while True:
            run = free_run(storage, name)
            run.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process was faster
                run.path.mkdir()
                if note := os.environ.get(NOTE):
                    write_atomically(Path(note), json.dumps({"path": str(run.path), "url": run.url}))
                return run
    except OSError as error:
        raise _unwritable(storage, error.strerror or str(error)) from error


def free_run(storage: str, name: str) -> RunDirectory:
    """The run that `create` would make."""
    root = check_storage(storage)
    if not is_remote(storage):
        return RunDirectory(free_path(root, name))
    runs = (RunDirectory(root / one, below(storage, one)) for one in _names(name) if not os.path.lexists(root / one))
    return next(run for run in runs if not Copy(run.url).is_there)


def free_path(root: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3` … that is not there."""
    return next(root / one for one in _names(name) if not os.path.lexists(root / one))


def _names(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def check_storage(storage: str) -> Path:
    """The directory that `storage` means, which need not exist yet; refuses one that cannot be written.

    Of object storage it is where runs are worked on here.
    """
    if is_remote(storage):
        Copy(storage).check_writable()
        return working_directory(storage)
    try:
        root = Path(storage).expanduser().absolute()
    except RuntimeError as error:  # ~somebody
        raise _unwritable(storage, "there is no such user") from error
    existing = next(folder for folder in (root, *root.parents) if os.path.exists(folder))
    if not existing.is_dir():
        raise _unwritable(storage, f"{existing} is not a directory")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".tune-rnn-", dir=existing))
    except OSError as error:
        raise _unwritable(storage, f"no directory can be made in {existing}: {error.strerror}") from error
    return root


def _unwritable(storage: str, reason: str) -> InputError:
    remedy = "Give a directory that you may write to: storage=PATH."
    return InputError("storage", f"cannot be written ({reason})", remedy, storage)


def open_run(path: str | Path, with_checkpoints: bool = False) -> RunDirectory:
    """An existing run; one on object storage is copied here first, without checkpoints unless they are wanted."""
    if is_remote(str(path)):
        return _brought_here(str(path), with_checkpoints)
    run = RunDirectory(Path(path).absolute())
    if not run.experiment.is_file():
        rule = "is not a run directory (it has no experiment.yaml)" if run.path.exists() else "does not exist"
        raise InputError(str(path), rule, "Give a directory that `tune-rnn run` made.")
    return run


def _brought_here(url: str, with_checkpoints: bool) -> RunDirectory:
    address, mark, query = url.partition("?")
    storage, _, name = address.rstrip("/").rpartition("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not name.strip("."):
        raise InputError(url, "does not end in a run's name", "Write for example s3://bucket/results/char-lm.")
    run = RunDirectory(working_directory(f"{storage}{mark}{query}") / name, url)
    run.path.mkdir(parents=True, exist_ok=True)
    pull(Copy(url), run.path, without="" if with_checkpoints else "ray/")
    return run


@contextmanager
def held(run: RunDirectory, say: Callable[[str], None]) -> Iterator[None]:
    """Work on a run: locked, and with its copy on object storage kept up to date; `say` hears what goes wrong there."""
    with locked(run), mirrored(run.path, run.url, say) if run.url else nullcontext():
        yield


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock, `lock.json`; refuses where another process holds it.

    The file is locked by the operating system, which lets go of it when its holder dies; it names host and process for
    the message. A file system may not share locks between hosts: another host's file is believed as it stands.
    """
    path = _lock(run)
    try:
        lock = _open_locked(path)
    except OSError as error:
        remedy = "Make it writable, or copy it to where you may write."
        raise InputError(str(run.path), f"cannot be written ({error.strerror})", remedy) from error
    with lock:
        host = _holder(lock).get("host", "")
        if host not in ("", socket.gethostname()):
            raise _in_use(path, lock, f"If that process is gone, delete {path}.")
        lock.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}, lock)
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(run: RunDirectory) -> Path:
    return run.path / "lock.json"


def holder(run: RunDirectory) -> str:
    """What a run's lock says, which no other lock does; empty where there is none, or the run is not to be seen."""
    try:
        return _lock(run).read_text("utf-8")
    except OSError:
        return ""


def _open_locked(path: Path) -> TextIO:
    """Open and lock the file that is at `path` when the lock is had: its last holder may just have deleted it."""
    while True:
        lock = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closing it gives the lock back)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with lock:
                raise _in_use(path, lock, "Wait for it, or stop it.") from None
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
        lock.close()


def _in_use(path: Path, lock: TextIO, remedy: str) -> InputError:
    holder = _holder(lock)
    here = "this host" if holder.get("host") == socket.gethostname() else holder.get("host", "this host")
    return InputError(str(path.parent), f"is in use by process {holder.get('pid', 'unknown')} on {here}", remedy)


def _holder(lock: TextIO) -> dict[str, Any]:
    """What the lock's file says; nothing where a crash has cut it off."""
    lock.seek(0)
    try:
        holder = json.loads(lock.read())
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def write_experiment(run: RunDirectory, experiment: Experiment) -> None:
    """Write `experiment.yaml`, with absolute paths of data and of earlier runs: found wherever it is read from.

    On object storage they are copied into the run, so that it can be gone on with elsewhere.
    """
    if run.url:
        experiment = pack(experiment, run.path)
    else:
        for key, value in paths_of(experiment).items():
            experiment = experiment.replace(key, value)
    write_atomically(run.experiment, experiment.to_yaml())


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one step, so that a reader or a crash never meets half of it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
