"""Runs on object storage (`storage: s3://…`, `gs://…`): a directory of this machine, copied there as it changes.

All that works on a run works on files; so a run on object storage has a working directory here (in the cache), of which
`Mirror` keeps the storage's copy whole at every moment: a journal is copied after the checkpoints that it names, and a
checkpoint is deleted after a journal that does not name it. Another machine goes on from the copy alone. Only a trial
that saves twice within one round of copying may miss the checkpoint that is named, and begins anew.

An object appears when all of it is written, or not at all: what pyarrow writes before an error it would publish, so
objects are written in one piece.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tune_rnn.data.cache import cache_folders, first_writable
from tune_rnn.errors import InputError, StudyFailed
from tune_rnn.report import CHECKPOINT

EVERY_S = 2.0
BEAT_S, STALE_S = 30.0, 120.0
"""How often a run's holder says that it is alive, and how long after its last word it is taken for dead."""

PATIENCE_S = 600.0
"""How long a study that has ended waits for a storage that refuses to be written."""

JOURNAL, LOCK, TEST_LOG = "trials.jsonl", "lock.json", "test_evaluations.jsonl"
APART = (LOCK, TEST_LOG)
"""What is no part of the copy: whoever has something to say writes it there himself."""


def is_remote(storage: str) -> bool:
    """Whether a storage is none of this machine's directories."""
    return "://" in storage


def working_directory(storage: str) -> Path:
    """Where runs of a remote storage are worked on here."""
    place = hashlib.sha256(storage.rstrip("/").encode()).hexdigest()[:16]
    return first_writable(cache_folders(None)) / "runs" / place


@dataclass
class Copy:
    """The copy of a run directory on object storage. `url`: as the user writes it."""

    url: str
    _place: tuple[Any, str] | None = field(default=None, repr=False)

    @property
    def place(self) -> tuple[Any, str]:
        """The file system and the path on it."""
        if self._place is None:
            self._place = _open(self.url)
        return self._place

    def put(self, name: str, content: bytes) -> None:
        files, root = self.place
        with files.open_output_stream(f"{root}/{name}") as stream:
            stream.write(content)

    def get(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        files, root = self.place
        with suppress(FileNotFoundError), files.open_input_stream(f"{root}/{name}") as stream:
            content: bytes = stream.readall()
            return content
        return None

    def delete(self, name: str) -> None:
        files, root = self.place
        with suppress(FileNotFoundError):
            files.delete_file(f"{root}/{name}")

    def sizes(self) -> dict[str, int]:
        """All objects, by their path below the run's, and their bytes."""
        from pyarrow.fs import FileSelector, FileType

        files, root = self.place
        found = files.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
        return {one.path.removeprefix(f"{root}/"): one.size for one in found if one.type == FileType.File}

    @property
    def is_there(self) -> bool:
        """Whether there is a run at all."""
        with _readable(self):
            return self.get("experiment.yaml") is not None

    def check_writable(self) -> None:
        """Write and delete an object; InputError where that fails."""
        name = f".tune-rnn-{socket.gethostname()}-{os.getpid()}"
        try:
            self.put(name, b"")
            self.delete(name)
        except OSError as error:
            remedy = "The bucket must be there, and the credentials must allow writing to it."
            raise InputError("storage", f"cannot be written ({_reason(error)})", remedy, self.url) from error


def _open(url: str) -> tuple[Any, str]:
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    remedy = "Write for example storage: s3://bucket/results?region=eu-central-1."
    try:
        files, path = FileSystem.from_uri(url)
    except (ArrowInvalid, OSError) as error:
        raise InputError("storage", f"is no place to write to ({_reason(error)})", remedy, url) from error
    if not path.strip("/"):
        raise InputError("storage", "is no place to write to (there is no bucket)", remedy, url)
    return files, path.rstrip("/")


def below(url: str, name: str) -> str:
    """The URL of something below another one's, which may end in a query (`?region=…`)."""
    path, mark, query = url.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:300]


def pull(copy: Copy, to: Path, without: str = "") -> None:
    """Bring a copy's files here, all but those below `without`; what is here and not there stays.

    A journal here that goes on where the copy's ends is kept, with all else: this machine was the last to work on the
    run, and the storage has not been written since.
    """
    with _readable(copy):
        names = copy.sizes()
        journal = copy.get(JOURNAL) or b""
    if "experiment.yaml" not in names:
        rule = "is not a run (there is no experiment.yaml)" if names else "does not exist"
        raise InputError(copy.url, rule, "Give a run that `tune-rnn run` made.")
    log = to / TEST_LOG
    if names.get(TEST_LOG, 0) > (log.stat().st_size if log.exists() else 0):  # any machine adds to it, at any time
        with _readable(copy):
            log.write_bytes(copy.get(TEST_LOG) or b"")
    ours = (to / JOURNAL).read_bytes() if (to / JOURNAL).exists() else b""
    if ours.startswith(journal) and len(ours) > len(journal):
        return
    for name in names:
        target = to / name
        if not target.resolve().is_relative_to(to.resolve()):
            raise InputError(copy.url, f"has an object with the name {name!r}, which leads out of the run")
        known = ours == journal and target.exists()
        if not (known or name in APART or (without and name.startswith(without))):
            with _readable(copy):
                content = copy.get(name)
            if content is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


@contextmanager
def _readable(copy: Copy) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "The network must reach it, and the credentials must allow reading it."
        raise InputError(copy.url, f"cannot be read ({_reason(error)})", remedy) from error


class Mirror:
    """Keeps a copy like a directory, in a thread of its own; `say` gets what a person should know."""

    def __init__(self, directory: Path, copy: Copy, say: Callable[[str], None]) -> None:
        self.directory, self.copy, self.say = directory, copy, say
        self._known: dict[str, tuple[int, int]] = {}  # size and time of each file as it was copied
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._failing = False
        self._id, self._next_beat, self._other = secrets.token_hex(8), 0.0, ""
        self._before = self._id  # who held the run before us

    def start(self) -> None:
        """Take the run over; InputError where it cannot be read, or is not as it was when it was brought here."""
        with _readable(self.copy):
            _refuse_if_held(self.copy)
            self._before = _lock_of(self.copy).get("id", self._id)
            with suppress(OSError):  # it is tried again
                self.copy.put(LOCK, self._beat())
            there, journal = self.copy.sizes(), self.copy.get(JOURNAL) or b""
        if not self._journal().startswith(journal):
            self._let_go()
            rule = "has been worked on elsewhere while it was brought here"
            raise InputError(self.copy.url, rule, "Give the same command again.")
        here = dict(self._states())
        for name, size in there.items():  # all but checkpoints is copied again; what is not here is deleted
            is_known = name.endswith(CHECKPOINT) and name in here and here[name][0] == size
            self._known[name] = here[name] if is_known else (-1, -1)
        self._thread.start()

    def finish(self) -> None:
        """Copy what is left; StudyFailed where the storage refuses it for long, or somebody else works on the run."""
        self._end.set()
        self._thread.join()
        deadline = time.monotonic() + PATIENCE_S
        while not (self._other or self._try()):
            if time.monotonic() > deadline:
                go_on = f"`tune-rnn resume {self.copy.url}` on this machine copies it there once that is possible."
                raise StudyFailed(f"The storage cannot be written. All there is, is in {self.directory}; {go_on}")
            time.sleep(EVERY_S)
        if self._other:
            raise StudyFailed(f"{self._other} What was done here since is in {self.directory} alone.")
        self._let_go()

    def _let_go(self) -> None:
        with suppress(OSError):  # it is stale soon
            self.copy.delete(LOCK)

    def _journal(self) -> bytes:
        file = self.directory / JOURNAL
        return file.read_bytes() if file.exists() else b""

    def _work(self) -> None:
        while not (self._end.wait(EVERY_S) or self._other):
            self._try()

    def _try(self) -> bool:
        """One round; whether it came to its end."""
        try:
            self.round()
        except OSError as error:
            if not self._failing:
                self.say(f"The storage cannot be written ({_reason(error)}); the study goes on, and tries again.")
            self._failing = True
            return False
        if self._failing:
            self.say("The storage can be written again.")
        self._failing = False
        return True

    def round(self) -> None:
        """Copy what has changed: the journal last, as it was before all else; then delete what is no more."""
        if not self._has_run():
            return
        gone = [name for name in self._known if name not in APART and not (self.directory / name).exists()]
        text = self._journal()
        for name, state in self._states():
            if self._known.get(name) != state and name != JOURNAL and self._has_run():
                with suppress(FileNotFoundError):  # a checkpoint that has been superseded meanwhile
                    self.copy.put(name, (self.directory / name).read_bytes())
                    self._known[name] = state
        if self._known.get(JOURNAL) != (len(text), 0) and self._has_run():
            self.copy.put(JOURNAL, text)
            self._known[JOURNAL] = (len(text), 0)
        for name in gone if self._has_run() else ():
            self.copy.delete(name)
            del self._known[name]

    def _has_run(self) -> bool:
        """Whether nobody else has taken the run over, which took us for dead; says now and then that we are not."""
        if time.monotonic() >= self._next_beat and not self._other:
            held = _lock_of(self.copy)
            if held.get("id", self._id) not in (self._id, self._before):
                self._other = f"{held['host']} has taken over {self.copy.url} with process {held['pid']}."
                self.say(f"{self._other} Stop this study: nothing of it is copied there any more.")
            else:
                self.copy.put(LOCK, self._beat())
                self._next_beat = time.monotonic() + BEAT_S
        return not self._other

    def _beat(self) -> bytes:
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "id": self._id}
        return json.dumps(holder | {"time": time.time()}).encode()

    def _states(self) -> Iterator[tuple[str, tuple[int, int]]]:
        files = (Path(folder, name) for folder, _, names in os.walk(self.directory) for name in names)
        for path in sorted(files):  # not rglob, which fails where a directory goes meanwhile
            name = path.relative_to(self.directory).as_posix()
            if name in APART or path.suffix == ".new":
                continue
            with suppress(FileNotFoundError):
                state = path.stat()
                yield name, (state.st_size, state.st_mtime_ns)


@contextmanager
def mirrored(directory: Path, url: str, say: Callable[[str], None]) -> Iterator[None]:
    """Keep the copy of a directory for as long as it is worked on; refuses where somebody else does."""
    mirror = Mirror(directory, Copy(url), say)
    mirror.start()
    try:
        yield
    finally:
        mirror.finish()


def _lock_of(copy: Copy) -> dict[str, Any]:
    """Who holds the run; nothing where nobody does."""
    try:
        held = json.loads(copy.get(LOCK) or b"{}")
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _refuse_if_held(copy: Copy) -> None:
    """Refuse a run whose holder has been heard of lately, unless it was a process of this machine that is gone."""
    held = _lock_of(copy)
    age = time.time() - held.get("time", 0.0)
    is_gone = held.get("host") == socket.gethostname() and not psutil.pid_exists(held["pid"])
    if age < STALE_S and not is_gone:
        rule = f"is in use by process {held['pid']} on {held['host']}, heard of {age:.0f} s ago"
        raise InputError(copy.url, rule, f"Wait for it, or stop it; after {STALE_S:.0f} s without a word it is dead.")
