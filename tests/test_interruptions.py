"""The command, killed, interrupted, out of time, out of disk: what was done is kept, and `resume` goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny

from tune_rnn.results.directory import RunDirectory
from tune_rnn.results.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def study_file(corpus: Path, tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(tiny.STUDY.format(corpus=corpus, storage=tmp_path / "results"))
    return file


@pytest.fixture
def run_directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "results" / "study")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `tune-rnn` with some arguments; whatever still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tune_rnn", *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, start_new_session=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_reports(run: RunDirectory, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if run.journal.exists() and run.journal.read_text().count('"report"') >= 2 * count:  # twice in a line
            return
        time.sleep(0.05)
    pytest.fail("the study does not report")


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def ray_processes_of(session: int) -> list[str]:
    """Ray processes that a command left behind; two small agents, which take a minute to notice, do not count."""
    lines = [
        " ".join(process.info["cmdline"] or []).strip()[:80]
        for process in psutil.process_iter(["cmdline"])
        if _session(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    ]
    return [line for line in lines if line not in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def losses(run: RunDirectory) -> dict[int, list[float | None]]:
    return {number: [r.validation_loss for r in trial.reports] for number, trial in Journal(run.journal).trials.items()}


def test_a_study_killed_with_sigkill_is_resumed(
    study_file: Path, run_directory: RunDirectory, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("run", study_file)
    wait_for_reports(run_directory, 8)
    process.kill()
    process.wait()
    finished_before = {
        number: [report.validation_loss for report in trial.reports]
        for number, trial in Journal(run_directory.journal).trials.items()
        if trial.outcome
    }
    deadline = time.monotonic() + 30
    while (left := ray_processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, "Ray outlived the command"

    status, out, err = finish(start("resume", run_directory.path))
    assert status == 0, err
    assert "Best configuration" in out
    summary = json.loads(run_directory.summary.read_text())
    assert summary["trials"]["total"] == 6
    assert summary["trials"]["unfinished"] == 0
    after = losses(run_directory)
    assert {number: after[number] for number in finished_before} == finished_before


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_says_how_to_go_on(
    study_file: Path,
    run_directory: RunDirectory,
    start: Callable[..., subprocess.Popen[str]],
    signal_number: signal.Signals,
) -> None:
    process = start("run", study_file)
    wait_for_reports(run_directory, 4)
    if signal_number == signal.SIGINT:
        os.killpg(process.pid, signal_number)  # as a terminal does: Ray's processes get it too
    else:
        process.send_signal(signal_number)
    status, _, err = finish(process)
    assert status == 130
    assert f"tune-rnn resume {run_directory.path}" in err
    assert "Traceback" not in err
    summary = json.loads(run_directory.summary.read_text())
    assert summary["status"] == "interrupted"
    assert (run_directory.best / "model.safetensors").exists()

    status, out, err = finish(start("resume", run_directory.path))
    assert status == 0, err
    assert json.loads(run_directory.summary.read_text())["status"] == "completed"
    assert "Traceback" not in out + err


@pytest.mark.parametrize("after_s", [2.0, 3.5, 5.0])
def test_ctrl_c_while_ray_starts_ends_the_command_cleanly(
    study_file: Path, start: Callable[..., subprocess.Popen[str]], after_s: float
) -> None:
    process = start("run", study_file)
    time.sleep(after_s)
    for _ in range(3):  # people press it more than once
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    status, out, err = finish(process)
    assert status == 130
    assert "nterrupted" in err
    assert "Traceback" not in out + err
    deadline = time.monotonic() + 30
    while (left := ray_processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, "Ray outlived the command"


def test_a_resumed_trial_ends_as_it_would_have(
    study_file: Path, run_directory: RunDirectory, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    fixed = ["search.algorithm=random", "scheduler.algorithm=none", "budget.trials=2", "training.windows=random"]
    assert finish(start("run", study_file, *fixed, "name=straight"))[0] == 0
    process = start("run", study_file, *fixed)
    wait_for_reports(run_directory, 5)
    process.kill()
    process.wait()
    assert finish(start("resume", run_directory.path))[0] == 0
    assert losses(run_directory) == losses(RunDirectory(tmp_path / "results" / "straight"))


def test_the_study_is_over_when_its_hours_are(
    study_file: Path, run_directory: RunDirectory, start: Callable[..., subprocess.Popen[str]]
) -> None:
    seconds = 40
    began = time.monotonic()
    limits = [f"budget.hours={seconds / 3600}", "budget.trials=null", "budget.epochs=400"]
    status, out, err = finish(start("run", study_file, *limits))
    assert status == 0, err
    assert time.monotonic() - began < seconds
    assert "Best configuration" in out
    summary = json.loads(run_directory.summary.read_text())
    assert summary["status"] == "completed"
    assert summary["time"]["wall_s"] < seconds


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_ends_the_study_which_can_be_resumed(
    study_file: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        larger = ["model.hidden_size=96", "budget.trials=8", f"storage={disk}"]
        status, out, err = finish(start("run", study_file, *larger))
        assert status == 1
        assert "disk is full" in err
        assert "Traceback" not in out + err
        run = RunDirectory(disk / "study")
        failed = [trial for trial in Journal(run.journal).trials.values() if trial.outcome == "failed"]
        assert all("no space left" in trial.reason.lower() for trial in failed)

        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        status, _, err = finish(start("resume", run.path))
        assert status == 0, err
        assert json.loads(run.summary.read_text())["trials"]["failed"] == 0
    finally:
        subprocess.run(["umount", str(disk)], check=False)
