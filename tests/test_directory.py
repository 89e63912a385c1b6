"""Run directories: never overwritten, one writer at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import RunDirectory, create, locked, open_run, write_atomically, write_experiment

HOLD = """
import sys
from tune_rnn.results.directory import locked, open_run
with locked(open_run(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = create(str(tmp_path), "study")
    made.experiment.write_text("name: study\n")
    return made


def lock_of(run: RunDirectory) -> Path:
    return run.path / "lock.json"


def leave_lock(run: RunDirectory, **changes: Any) -> None:
    """The lock of a process that is gone, or, with `changes`, of another one."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    holder = {"host": socket.gethostname(), "pid": gone.pid}
    lock_of(run).write_text(json.dumps(holder | changes))


@contextmanager
def held_by_another_process(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_the_same_name_gets_a_number_and_nothing_is_overwritten(tmp_path: Path) -> None:
    made = []
    for number in range(3):
        run = create(str(tmp_path / "deep" / "results"), "study")
        write_atomically(run.summary, str(number))
        made.append(run)
    assert [run.path.name for run in made] == ["study", "study-2", "study-3"]
    assert [run.summary.read_text() for run in made] == ["0", "1", "2"]


def test_a_file_of_that_name_counts_too(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("mine")
    assert create(str(tmp_path), "study").path == tmp_path / "study-2"
    assert (tmp_path / "study").read_text() == "mine"


def test_paths_are_absolute_and_know_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert create("results", "study").path == tmp_path / "results" / "study"
    assert create("~/results", "study").path == tmp_path / "home" / "results" / "study"


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        ("a-file", r"a-file is not a directory"),
        ("a-file/below", r"a-file is not a directory"),
        ("dangling", r"File exists"),
        ("x" * 300, r"File name too long"),
        ("~no-such-user-here/results", r"there is no such user"),
        ("/proc/results", r"/proc: No such file or directory|/proc: Permission denied"),
    ],
)
def test_storage_that_cannot_be_written(
    storage: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for root, who may write anywhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(InputError, match=rf"^storage: .*cannot be written \(.*({reason})\)\. Give a directory"):
        create(storage, "study")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file", "dangling"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        create(str(tmp_path / "results"), "study")


@pytest.mark.parametrize("where", ["", "nothing", "a-file"])
def test_what_is_no_run(where: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(InputError, match=r"(is not a run directory|does not exist).*tune-rnn run"):
        open_run(tmp_path / where)


def test_each_session_of_ray_has_a_directory_of_its_own(run: RunDirectory) -> None:
    assert run.session() == run.ray / "1"
    for name in ("1", "2", "10", "notes"):
        (run.ray / name).mkdir(parents=True)
    assert run.session() == run.ray / "11"


def test_a_lock_is_there_while_it_is_held(run: RunDirectory) -> None:
    with locked(run):
        holder = json.loads(lock_of(run).read_text())
        assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())
    assert not lock_of(run).exists()
    with pytest.raises(RuntimeError), locked(run):
        raise RuntimeError
    assert not lock_of(run).exists(), "given back after an error too"


def test_a_live_holder_is_refused_and_a_killed_one_is_not(run: RunDirectory) -> None:
    with held_by_another_process(run) as holder:
        message = rf"{run.path}: is in use by process {holder.pid} on this host"
        with pytest.raises(InputError, match=message), locked(run):
            pass
        assert json.loads(lock_of(run).read_text())["pid"] == holder.pid, "the lock is still its holder's"
        holder.kill()
        holder.wait()
        with locked(run):
            assert json.loads(lock_of(run).read_text())["pid"] == os.getpid()


def test_a_zombie_holds_nothing(run: RunDirectory) -> None:
    """A killed process whose parent has not yet asked for its status."""
    with held_by_another_process(run) as holder:
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        with locked(run):
            pass


def test_the_lock_of_a_process_that_is_gone_is_taken_over(run: RunDirectory) -> None:
    leave_lock(run, pid=os.getpid())  # whatever process has that number now
    with locked(run):
        assert json.loads(lock_of(run).read_text())["pid"] == os.getpid()


def test_only_one_of_many_gets_a_stale_lock(run: RunDirectory) -> None:
    """Every process finds the lock of a dead one; none may delete what another has just taken."""
    script = (
        "import sys, pathlib\n"
        "from tune_rnn.errors import InputError\n"
        "from tune_rnn.results.directory import RunDirectory, locked\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    with locked(RunDirectory(pathlib.Path(sys.argv[1]))):\n"
        "        print('mine', flush=True)\n"
        "        sys.stdin.readline()\n"
        "except InputError:\n"
        "    print('refused', flush=True)\n"
    )
    leave_lock(run)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", script, str(run.path)]
    processes: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(8)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate("end\n")
    assert sorted(answers) == ["mine"] + ["refused"] * 7


@pytest.mark.parametrize("text", ["", '{"host": "h', "{}", "[1]", "null"])
def test_a_lock_that_was_cut_off_is_taken_over(run: RunDirectory, text: str) -> None:
    lock_of(run).write_text(text)
    with locked(run):
        pass


def test_a_holder_on_another_host_is_refused_with_a_remedy(run: RunDirectory) -> None:
    leave_lock(run, host="another-host")
    message = rf"is in use by process \d+ on another-host\. If that process is gone, delete {lock_of(run)}\."
    with pytest.raises(InputError, match=message), locked(run):
        pass
    assert lock_of(run).exists()


def test_a_run_that_cannot_be_written_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written \(No such file"), locked(RunDirectory(tmp_path / "gone")):
        pass


def test_a_text_is_replaced_in_one_step(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(run.summary, "first ü\n")
    assert run.summary.read_text("utf-8") == "first ü\n"

    def crash(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tune_rnn.results.directory.os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(run.summary, "second")
    assert run.summary.read_text("utf-8") == "first ü\n"
    monkeypatch.undo()
    write_atomically(run.summary, "third")
    assert run.summary.read_text("utf-8") == "third"
    assert {path.name for path in run.path.iterdir()} == {"experiment.yaml", "summary.json"}


@pytest.mark.parametrize(
    "task",
    [
        {"corpus": "text.txt"},
        {"corpus": ["text.txt", "more.txt"], "documents": "joined"},
        {"files": {"train": ["text.txt", "more.txt"], "validation": "more.txt"}},
        {"corpus": "pydoc"},
    ],
)
def test_a_run_knows_where_its_data_lie(run: RunDirectory, task: dict[str, Any], tmp_path: Path) -> None:
    """The experiment as run lies elsewhere than the experiment file beside which the data were found."""
    beside = tmp_path / "beside"
    beside.mkdir()
    for name in ("text.txt", "more.txt"):
        (beside / name).write_text("text")
    experiment = Experiment(name="study", budget={"epochs": 1}, task=task, beside=beside)
    write_experiment(run, experiment)
    written = Experiment.load(run.experiment).task.model_dump(mode="json", exclude_none=True)
    expected = json.loads(
        json.dumps(task).replace("text.txt", f"{beside}/text.txt").replace("more.txt", f"{beside}/more.txt")
    )
    assert written == {"kind": "char_lm", "documents": "separate", "minimum_count": 1, **expected}
