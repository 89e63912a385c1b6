"""Whole studies on object storage: complete there at every moment, and gone on with from there alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from object_storage import CREDENTIALS, ObjectStorage

from tune_rnn.results.journal import Journal
from tune_rnn.results.mirror import Copy, below

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectStorage]:
    with ObjectStorage() as made, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield made


def begin(machine: Path, *arguments: str) -> subprocess.Popen[str]:
    """`tune-rnn` on a machine of its own: it has nothing of what others keep in their caches."""
    environment = os.environ | {"TUNE_RNN_CACHE": str(machine)}
    command = [sys.executable, "-m", "tune_rnn", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def wait_for(copy: Copy, reports: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while (copy.get("trials.jsonl") or b"").count(b'"report":') < reports:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the study does not report"
        time.sleep(0.3)


def test_a_study_is_gone_on_with_from_the_storage_alone(storage: ObjectStorage, corpus: Path, tmp_path: Path) -> None:
    url = storage.bucket("first")
    (tmp_path / "study.yaml").write_text(tiny.STUDY.format(corpus=corpus, storage=url))
    run = below(url, "study")
    process = begin(tmp_path / "one", "run", str(tmp_path / "study.yaml"))
    wait_for(Copy(run), 8, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    Copy(run).put("lock.json", b"{}")  # else another host would have to wait until it is taken for dead
    said = end(begin(tmp_path / "two", "resume", run))
    assert "begun before" in said
    summary = json.loads(Copy(run).get("summary.json") or b"")
    assert (summary["status"], summary["trials"]["total"]) == ("completed", 6)
    third = tmp_path / "three"
    assert f"{summary['best']['metrics']['validation_loss']:.6f} nats" in end(begin(third, "evaluate", run))
    assert len(end(begin(third, "sample", run, "--length", "20"))) >= 20
    assert "study-2" in end(begin(third, "run", str(tmp_path / "study.yaml"), "budget.trials=1", "budget.epochs=1"))
    names = Copy(run).sizes()
    kept = {name.split("/")[2] for name in names if name.startswith("ray/") and name.endswith("checkpoint.pt")}
    assert len(kept) >= 6, f"each trial's last checkpoint is there: {names}"


def test_a_storage_refuses_for_a_while(storage: ObjectStorage, corpus: Path, tmp_path: Path) -> None:
    url = storage.bucket("second")
    (tmp_path / "study.yaml").write_text(tiny.STUDY.format(corpus=corpus, storage=url))
    process = begin(tmp_path / "one", "run", str(tmp_path / "study.yaml"), "budget.epochs=20")
    run = Copy(below(url, "study"))
    wait_for(run, 4, process)
    storage.refuses = True
    time.sleep(15)
    storage.refuses = False
    said = end(process)
    assert "The storage cannot be written (" in said
    assert "The storage can be written again." in said
    summary = json.loads(run.get("summary.json") or b"")
    assert (summary["status"], summary["trials"]["total"], summary["trials"]["failed"]) == ("completed", 6, 0)
    (tmp_path / "trials.jsonl").write_bytes(run.get("trials.jsonl") or b"")
    journal = Journal(tmp_path / "trials.jsonl")
    assert all(trial.outcome for trial in journal.trials.values())
    best = journal.best_trial
    assert best is not None
    assert (best.number, best.best_loss) == (
        summary["best"]["trial"],
        summary["best"]["metrics"]["validation_loss"],
    )
