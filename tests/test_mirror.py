"""Runs on object storage: against a server on loopback that speaks S3."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tune_rnn.errors import InputError, StudyFailed
from tune_rnn.results import mirror
from tune_rnn.results.mirror import Copy, Mirror, below, is_remote, mirrored, pull


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An address that speaks S3, with the credentials that go with it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        made = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        made.start()
        host, port = made.get_host_and_port()
        yield f"{host}:{port}"
        made.stop()


@pytest.fixture
def copy(server: str, request: pytest.FixtureRequest) -> Copy:
    """The place of a run in a bucket of its own."""
    bucket = f"bucket-{abs(hash(request.node.nodeid)) % 10**9}"
    boto3.client("s3", endpoint_url=f"http://{server}", region_name="us-east-1").create_bucket(Bucket=bucket)
    return Copy(f"s3://{bucket}/results/run?endpoint_override={server}&scheme=http&region=us-east-1")


def a_run(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "experiment.yaml").write_text("name: run")
    (path / "trials.jsonl").write_text("one\n")
    (path / "ray/1/trial_0000/checkpoint_000001").mkdir(parents=True)
    (path / "ray/1/trial_0000/checkpoint_000001/checkpoint.pt").write_bytes(b"weights")
    (path / "lock.json").write_text("{}")
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_is_remote() -> None:
    assert is_remote("s3://bucket/results")
    assert not is_remote("results")
    assert below("s3://bucket/results/?region=eu", "run") == "s3://bucket/results/run?region=eu"
    assert below("s3://bucket/results", "run") == "s3://bucket/results/run"


def test_a_run_is_copied_as_it_changes_and_brought_back(copy: Copy, tmp_path: Path) -> None:
    run, said = a_run(tmp_path / "run"), list[str]()
    with mirrored(run, copy.url, said.append):
        deadline = time.monotonic() + 20
        while copy.get("trials.jsonl") != b"one\n":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert json.loads(copy.get("lock.json") or b"{}")["pid"], "others see that somebody works on it"
        (run / "trials.jsonl").write_text("one\ntwo\n")
        second = run / "ray/1/trial_0000/checkpoint_000002"
        second.mkdir()
        (second / "checkpoint.pt").write_bytes(b"more weights")
        (run / "ray/1/trial_0000/checkpoint_000001/checkpoint.pt").unlink()
    assert said == []
    pull(copy, tmp_path / "other")
    expected = contents(run)
    del expected["lock.json"]
    assert contents(tmp_path / "other") == expected
    pull(copy, tmp_path / "third", without="ray/")
    assert "ray" not in {path.name for path in (tmp_path / "third").iterdir()}


def test_the_journal_is_copied_after_the_checkpoints_that_it_names(copy: Copy, tmp_path: Path) -> None:
    run, order = a_run(tmp_path / "run"), list[str]()

    class Watched(Copy):
        def put(self, name: str, content: bytes) -> None:
            order.append(name)
            super().put(name, content)

        def delete(self, name: str) -> None:
            order.append(f"without {name}")
            super().delete(name)

    one = Mirror(run, Watched(copy.url), print)
    one.round()
    assert order[-1] == "trials.jsonl"
    assert order.index("ray/1/trial_0000/checkpoint_000001/checkpoint.pt") < order.index("trials.jsonl")
    order.clear()
    one.round()
    assert order == [], "nothing has changed"
    (run / "ray/1/trial_0000/checkpoint_000001/checkpoint.pt").unlink()
    (run / "trials.jsonl").write_text("one\ntwo\n")
    one.round()
    assert order == ["trials.jsonl", "without ray/1/trial_0000/checkpoint_000001/checkpoint.pt"]


def test_a_journal_that_the_storage_has_not_yet_is_not_overwritten(copy: Copy, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    Mirror(run, copy, print).round()
    (run / "trials.jsonl").write_text("one\nthis machine alone knows\n")
    pull(copy, run)
    assert (run / "trials.jsonl").read_text() == "one\nthis machine alone knows\n"
    (run / "trials.jsonl").write_text("something else\n")
    pull(copy, run)
    assert (run / "trials.jsonl").read_text() == "one\n", "another machine has worked on it since"


def test_a_storage_that_refuses_for_a_while(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, said, refuses = a_run(tmp_path / "run"), list[str](), [True]
    put = Copy.put

    def sometimes(self: Copy, name: str, content: bytes) -> None:
        if refuses[0]:
            raise OSError("When uploading: 503 Slow Down")
        put(self, name, content)

    monkeypatch.setattr(Copy, "put", sometimes)
    monkeypatch.setattr(mirror, "EVERY_S", 0.05)
    monkeypatch.setattr(mirror, "PATIENCE_S", 0.3)
    with mirrored(run, copy.url, said.append):
        time.sleep(0.3)
        refuses[0] = False
    assert said[0].startswith("The storage cannot be written (When uploading: 503 Slow Down); the study goes on")
    assert said[1:] == ["The storage can be written again."]
    assert copy.get("trials.jsonl") == b"one\n"
    refuses[0] = True
    refused = pytest.raises(StudyFailed, match=r"cannot be written\. All there is, is in .*run")
    with refused, mirrored(run, copy.url, said.append):
        (run / "trials.jsonl").write_text("one\ntwo\n")


def test_a_run_that_another_machine_works_on_is_refused(copy: Copy, tmp_path: Path) -> None:
    held: dict[str, Any] = {"host": "elsewhere", "pid": 7, "time": time.time()}
    copy.put("lock.json", json.dumps(held).encode())
    refused = pytest.raises(InputError, match=r"is in use by process 7 on elsewhere, heard of 0 s ago")
    with refused, mirrored(a_run(tmp_path / "run"), copy.url, print):
        pass
    copy.put("lock.json", json.dumps(held | {"time": time.time() - mirror.STALE_S}).encode())
    with mirrored(tmp_path / "run", copy.url, print):
        pass
    assert copy.get("lock.json") is None


def test_who_was_taken_for_dead_leaves_the_run_to_who_took_it_over(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "EVERY_S", 0.05)
    monkeypatch.setattr(mirror, "BEAT_S", 0.1)
    said: list[str] = []
    run = a_run(tmp_path / "run")
    text = r"^elsewhere has taken over .* What was done here since is in .*run alone\."
    failed = pytest.raises(StudyFailed, match=text)
    with failed, mirrored(run, copy.url, said.append):
        held = {"host": "elsewhere", "pid": 7, "id": "another", "time": time.time()}
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:  # again and again, as holders do
            copy.put("lock.json", json.dumps(held).encode())
            time.sleep(0.05)
        copy.put("trials.jsonl", b"theirs\n")
        (run / "trials.jsonl").write_text("one\ntwo\n")
        time.sleep(0.2)
    assert [line.partition(" with ")[0] for line in said] == [f"elsewhere has taken over {copy.url}"]
    assert copy.get("trials.jsonl") == b"theirs\n"
    assert json.loads(copy.get("lock.json") or b"")["id"] == "another"


def test_a_takeover_that_is_noticed_at_the_end_is_no_success(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that cannot be written until the run is another's."""
    monkeypatch.setattr(mirror, "EVERY_S", 0.05)
    monkeypatch.setattr(mirror, "BEAT_S", 0.0)
    run, put, refusals = a_run(tmp_path / "run"), Copy.put, [0]

    def refuse(self: Copy, name: str, content: bytes) -> None:
        refusals[0] += 1
        if refusals[0] == 3:
            held = {"host": "elsewhere", "pid": 7, "id": "another", "time": time.time()}
            put(self, "lock.json", json.dumps(held).encode())
        raise OSError("503")

    failed = pytest.raises(StudyFailed, match=r"^elsewhere has taken over ")
    monkeypatch.setattr(mirror.Mirror, "_work", lambda self: None)
    with failed, mirrored(run, copy.url, print):
        monkeypatch.setattr(Copy, "put", refuse)
    assert json.loads(copy.get("lock.json") or b"")["id"] == "another"


def test_a_run_that_changes_while_it_is_brought_here_is_refused(copy: Copy, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    Mirror(run, copy, print).round()
    pull(copy, tmp_path / "other")
    copy.put("trials.jsonl", b"one\ntwo\n")
    copy.delete("lock.json")
    refused = pytest.raises(InputError, match=r"has been worked on elsewhere while .* Give the same command again")
    with refused, mirrored(tmp_path / "other", copy.url, print):
        pass
    assert copy.get("trials.jsonl") == b"one\ntwo\n"
    assert copy.get("lock.json") is None


def test_a_storage_that_cannot_be_read_is_one_message(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*what: Any) -> None:
        raise OSError("When listing: ACCESS_DENIED\nfurther lines")

    run = a_run(tmp_path / "run")
    monkeypatch.setattr(Copy, "sizes", refuse)
    message = r"^s3://.*: cannot be read \(When listing: ACCESS_DENIED\)\. The network must reach it"
    with pytest.raises(InputError, match=message):
        pull(copy, tmp_path / "other")
    with pytest.raises(InputError, match=message), mirrored(run, copy.url, print):
        pass


def test_looks_at_the_test_split_from_any_machine_are_brought_here(copy: Copy, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    Mirror(run, copy, print).round()
    for log in (b"one look\n", b"one look\nanother\n"):
        copy.put("test_evaluations.jsonl", log)
        pull(copy, run)
        assert (run / "test_evaluations.jsonl").read_bytes() == log
    (run / "trials.jsonl").write_text("one\nthis machine alone knows\n")
    copy.put("test_evaluations.jsonl", b"one look\nanother\na third\n")
    pull(copy, run)
    assert (run / "test_evaluations.jsonl").read_bytes().endswith(b"a third\n")
    copy.delete("lock.json")
    with mirrored(run, copy.url, print):
        copy.put("test_evaluations.jsonl", b"one look\nanother\na third\nmeanwhile\n")
    assert (copy.get("test_evaluations.jsonl") or b"").endswith(b"meanwhile\n"), "who looks writes it there himself"


def test_a_directory_that_goes_meanwhile_does_no_harm(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, scandir = a_run(tmp_path / "run"), os.scandir
    gone = run / "ray/1/trial_0000/checkpoint_000001"

    def scan(path: Any) -> Any:
        if Path(path) == gone:
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    Mirror(run, copy, print).round()
    assert copy.get("trials.jsonl") == b"one\n"


def test_a_run_that_is_taken_over_in_mid_round_is_left_as_it_is(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "BEAT_S", 0.0)
    run, put = a_run(tmp_path / "run"), Copy.put
    one = Mirror(run, copy, lambda text: None)
    one.round()

    def taken_over(self: Copy, name: str, content: bytes) -> None:
        put(self, name, content)
        if name == "experiment.yaml":
            held = {"host": "elsewhere", "pid": 7, "id": "another", "time": time.time()}
            put(self, "lock.json", json.dumps(held).encode())

    monkeypatch.setattr(Copy, "put", taken_over)
    (run / "experiment.yaml").write_text("name: run, changed")
    (run / "trials.jsonl").write_text("one\ntwo\n")
    (run / "ray/1/trial_0000/checkpoint_000001/checkpoint.pt").unlink()
    one.round()
    assert copy.get("trials.jsonl") == b"one\n"
    assert copy.get("ray/1/trial_0000/checkpoint_000001/checkpoint.pt") == b"weights"


def test_a_process_of_this_machine_holds_the_run_while_it_lives(copy: Copy, tmp_path: Path) -> None:
    """Two ways to write one address have two working directories, and no lock in common."""
    run = a_run(tmp_path / "run")
    with mirrored(run, copy.url, print):
        refused = pytest.raises(InputError, match=r"is in use by process \d+ on ")
        with refused, mirrored(a_run(tmp_path / "other"), f"{copy.url}&allow_bucket_creation=false", print):
            pass
    held = {"host": socket.gethostname(), "pid": 2**22 + 1, "time": time.time()}
    copy.put("lock.json", json.dumps(held).encode())
    with mirrored(run, copy.url, print):
        pass


def test_checkpoints_that_are_there_are_not_copied_again(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, order, put = a_run(tmp_path / "run"), list[str](), Copy.put
    with mirrored(run, copy.url, print):
        pass

    def watched(self: Copy, name: str, content: bytes) -> None:
        order.append(name)
        put(self, name, content)

    monkeypatch.setattr(Copy, "put", watched)
    with mirrored(run, copy.url, print):
        pass
    assert order == ["lock.json", "lock.json", "experiment.yaml", "trials.jsonl"]


def test_a_storage_that_cannot_be_written_is_refused(server: str) -> None:
    url = f"s3://no-such-bucket/results?endpoint_override={server}&scheme=http&region=us-east-1"
    with pytest.raises(InputError, match=r"^storage: 's3://no-such-.*cannot be written \(.*The bucket must be there"):
        Copy(url).check_writable()


@pytest.mark.parametrize("url", ["ftp://somewhere/else", "s3://"])
def test_no_place_to_write_to(url: str) -> None:
    with pytest.raises(InputError, match=r"^storage: '.*is no place to write to"):
        Copy(url).check_writable()


def test_what_is_no_run_and_what_leads_out_of_one(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        pull(copy, tmp_path / "run")
    copy.put("trials.jsonl", b"")
    with pytest.raises(InputError, match="is not a run"):
        pull(copy, tmp_path / "run")
