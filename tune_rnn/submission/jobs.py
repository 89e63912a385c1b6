"""What is written down of submitted studies, on the cluster's head: a directory `~/tune_rnn/jobs/<id>` for each.

In it: `experiment.yaml`, `data/` (corpora that came with it), `job.json` (what the submitter said), `log` (all that the
study prints), `ray_job` (Ray's id of its process), `run.json` (where its run is) and, once it has ended,
`outcome.json`. `starting` and `held` are locked while it is started and while it runs.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tune_rnn.errors import InputError
from tune_rnn.results.directory import RunDirectory, write_atomically

JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """What the submitter says of a study.

    `paths`: where its data lies on the submitter's machine, by dotted key. `storage`: where the result is brought back
    to there. `promised`: machines that the cluster may come to have.
    """

    id: str
    name: str
    data_sha256: str
    paths: dict[str, Any] = field(default_factory=dict)
    storage: str = "results"
    promised: tuple[dict[str, float], ...] = ()

    def write(self, folder: Path) -> None:
        write_atomically(folder / JOB, json.dumps(asdict(self), indent=2))


@dataclass(frozen=True)
class JobDirectory:
    """One job's files on the head."""

    path: Path

    @classmethod
    def of(cls, root: Path, identity: str) -> JobDirectory:
        """The directory of a job, or of the latest one of an experiment's name; InputError where there is none."""
        return cls.named(root, identity)[0]

    @classmethod
    def named(cls, root: Path, identity: str) -> list[JobDirectory]:
        """The job of that id, or all of an experiment's name, the latest first; InputError where there is none."""
        there = cls.all(root)
        found = [one for one in there if one.path.name == identity] or [one for one in there if one.name == identity]
        if not found:
            known = ", ".join(one.path.name for one in there[-5:]) or "none"
            raise InputError(identity, "is no study that was submitted to this cluster", f"The latest are: {known}.")
        return found[::-1]

    @classmethod
    def all(cls, root: Path) -> list[JobDirectory]:
        """All jobs, the oldest first."""
        found = [cls(file.parent) for file in (root / "jobs").glob(f"*/{JOB}")]
        return sorted(found, key=lambda one: (one.path / JOB).stat().st_mtime)

    @property
    def job(self) -> Job:
        return Job(**json.loads((self.path / JOB).read_text("utf-8")))

    @property
    def name(self) -> str:
        """The experiment's, of whichever version the job is."""
        return str(json.loads((self.path / JOB).read_text("utf-8"))["name"])

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def run(self) -> RunDirectory | None:
        """The study's run; None where there is none yet."""
        found = json.loads(self.run_note.read_text("utf-8")) if self.run_note.exists() else None
        return RunDirectory(Path(found["path"]), found["url"]) if found else None

    @property
    def run_note(self) -> Path:
        return self.path / "run.json"

    @property
    def ray_job(self) -> Path:
        """Has Ray's id of the study's process; there is none before it was first started."""
        return self.path / "ray_job"

    def held(self) -> AbstractContextManager[None]:
        """While the study's process is at work: the operating system lets go of it when that dies."""
        return _locked(self.path / "held")

    def starting(self) -> AbstractContextManager[None]:
        """While the study's process is being started, by one who asked for it at a time."""
        return _locked(self.path / "starting")

    @property
    def is_held(self) -> bool:
        return _is_locked(self.path / "held")

    @property
    def is_starting(self) -> bool:
        return _is_locked(self.path / "starting")

    @property
    def exit_status(self) -> int | None:
        """What the study's command ended with; None where it has not, or was killed."""
        file = self.path / "outcome.json"
        return int(json.loads(file.read_text("utf-8"))["exit_status"]) if file.exists() else None

    def note_exit(self, status: int) -> None:
        write_atomically(self.path / "outcome.json", json.dumps({"exit_status": status}))

    def forget_exit(self) -> None:
        (self.path / "outcome.json").unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_locked(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
