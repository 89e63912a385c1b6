"""`tune-rnn submit`, `status` and `stop` without a cluster: what is refused, what is sent, and what is made of answers.

The head is stood in for by its own module, in this process; `tests/cluster` has real ones.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_rnn.errors import InputError, StudyFailed, StudyInterrupted, TuneRnnError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import RunDirectory, write_experiment
from tune_rnn.results.journal import Journal
from tune_rnn.submission import client, cluster_file, head, inspection, job
from tune_rnn.submission.cluster_file import read_cluster
from tune_rnn.submission.jobs import Job, JobDirectory
from tune_rnn.submission.remote import Remote

OURS = {"tune_rnn": "0.1.0", "torch": "2.13.0+cpu"}
PYTHON = {"python": "3.12.3"}
FINE: dict[str, Any] = {
    "host": "worker",
    "address": "10.0.0.2",
    "resources": {"CPU": 4.0, "GPU": 1.0},
    "sent": 1000.0,
    "time": 1030.0,
    "answered": 1040.0,
    "free_bytes": 10 << 30,
    "versions": PYTHON | {"tune_rnn": "0.1.0", "torch": "2.13.0+cu130"},
    "gpus": 1,
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"error": "The node is dead"}, "worker (10.0.0.2) does not answer: The node is dead"),
        ({"versions": PYTHON | OURS | {"torch": "2.9.0"}}, "worker (10.0.0.2) has torch 2.9.0, here it is 2.13.0+cpu"),
        ({"versions": PYTHON | {"torch": "2.13.0"}}, "worker (10.0.0.2) has tune_rnn None, here it is 0.1.0"),
        ({"versions": OURS | {"python": "3.11.2"}}, "worker (10.0.0.2) has Python 3.11.2, another has 3.12.3"),
        ({"time": 939.0}, "worker (10.0.0.2) has a clock that is 101 s off the head's"),
        ({"time": 1101.0}, "worker (10.0.0.2) has a clock that is 61 s off the head's"),
        ({"free_bytes": 5 << 20}, "worker (10.0.0.2) has 5 MiB of free disk for temporary files"),
        ({"gpus": 0}, "worker (10.0.0.2) has 1 GPUs for Ray, but torch sees 0"),
    ],
)
def test_what_is_wrong_with_a_machine_is_said(changed: dict[str, Any], expected: str | None) -> None:
    found = inspection.problems([FINE, FINE | changed], OURS, uses_gpus=True)
    assert found == ([expected] if expected else [])


def test_gpus_that_a_study_does_not_use_need_not_be_seen() -> None:
    assert inspection.problems([FINE | {"gpus": 0}], OURS, uses_gpus=False) == []


def a_cluster(folder: Path, **changed: Any) -> Path:
    given = {
        "cluster_name": "mine",
        "provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"]},
        "auth": {"ssh_user": "me", "ssh_private_key": "~/.ssh/key"},
    }
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(given | changed))
    return file


def test_a_cluster_s_file_says_how_its_head_is_reached(tmp_path: Path) -> None:
    cluster = read_cluster(a_cluster(tmp_path))
    assert (cluster.name, cluster.user, cluster.host, cluster.promised) == ("mine", "me", "10.0.0.1", ())
    assert cluster.key == str(Path("~/.ssh/key").expanduser())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"auth": None}, "has no section auth. Give a file for `ray up`, such as cluster/onprem.yaml."),
        ({"auth": {"ssh_user": "-oProxyCommand=sh"}}, "auth.ssh_user: '-oProxyCommand=sh': must be a text"),
        (
            {"provider": {"type": "local", "head_ip": "-oProxyCommand=sh"}},
            "provider.head_ip: '-oProxyCommand=sh': must",
        ),
        ({"provider": {"type": "local"}}, "provider.head_ip: None: must be the head's address"),
        ({"cluster_name": 7}, "cluster_name: 7: must be a text"),
    ],
)
def test_what_is_no_cluster_s_file_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_cluster(a_cluster(tmp_path, **changed))
    assert message in str(caught.value)


def test_a_missing_cluster_s_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: there is no such file\. Give a file for `ray up`"):
        read_cluster(tmp_path / "nowhere.yaml")


class Head:
    """Answers as told, and keeps what it was asked and sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.sent: dict[str, str] = {}
        self.answers = answers
        monkeypatch.setattr(Remote, "ask", lambda _, command, given=None: self.ask(command, given))
        monkeypatch.setattr(Remote, "send", lambda _, folder, to: self.send(folder))
        monkeypatch.setattr(Remote, "fetch", lambda _, path, to, without=(): self.fetch(to))
        monkeypatch.setattr(client, "_follow", lambda *what: None)

    def ask(self, command: str, given: Any) -> Any:
        self.asked.append((command, given))
        return self.answers.get(command, {})

    def send(self, folder: Path) -> None:
        self.sent = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}

    def fetch(self, to: Path) -> None:
        (to / "experiment.yaml").write_text(self.sent["experiment.yaml"])


MACHINES = [{"resources": {"CPU": 4.0, "GPU": 0.0}}]


def a_study(folder: Path, corpus: Path) -> Path:
    study = Experiment(name="small", task={"corpus": str(corpus)}, budget={"epochs": 1, "trials": 2})
    file = folder / "study.yaml"
    file.write_text(study.to_yaml())
    return file


def test_a_study_goes_with_its_text_and_comes_back_with_its_paths(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = Head(monkeypatch, inspect={"machines": MACHINES, "problems": []})
    cluster, file = a_cluster(tmp_path), a_study(tmp_path, corpus)
    outcome = {"id": "small-1", "exit_status": 0, "state": "ended", "run": "/home/me/tune_rnn/results/x"}
    paths = {"task.corpus": str(corpus)}
    job = {"id": "small-1", "name": "small", "storage": str(tmp_path / "results"), "paths": paths}
    head.answers["outcome"] = outcome | {"job": job}
    said = client.submit(str(cluster), str(file), ["budget.trials=3"])
    assert said == f"Brought back to {tmp_path / 'results' / 'small'}"
    assert [command for command, _ in head.asked] == ["inspect", "start", "outcome"]
    identity = head.asked[1][1]["id"]
    sent = Experiment.load(tmp_path / "results" / "small" / "experiment.yaml")
    assert sent.task.corpus == str(corpus), "here as it was"
    there = yaml.safe_load(head.sent["experiment.yaml"])
    assert (there["budget"]["trials"], there["storage"]) == (3, f"results/{identity}")
    assert corpus.read_text() in head.sent.values()
    assert client.follow(str(cluster), "small") == said, "a copy is brought up to date, and no other is made"
    head.answers["outcome"]["id"] = head.answers["outcome"]["job"]["id"] = "small-2"
    assert client.follow(str(cluster), "small-2").endswith("results/small-2")
    written = json.loads(head.sent["job.json"])
    assert (written["id"], written["storage"], written["paths"]) == (
        identity,
        str(tmp_path / "results"),
        {"task.corpus": str(corpus)},
    )


def test_nothing_is_sent_to_a_cluster_that_is_not_fit(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head(monkeypatch, inspect={"machines": MACHINES, "problems": ["this", "that"]})
    with pytest.raises(InputError, match=r"this; that\. `ray up .*` installs what is pinned"):
        client.submit(str(a_cluster(tmp_path)), str(a_study(tmp_path, corpus)), [])
    assert [command for command, _ in head.asked] == ["inspect"]
    assert not head.sent


@pytest.mark.parametrize(
    ("status", "state", "error", "message"),
    [
        (2, "ended", InputError, "was refused on the cluster"),
        (130, "ended", StudyInterrupted, "was interrupted"),
        (1, "ended", StudyFailed, "has failed"),
        (None, "died", StudyFailed, "was killed on the cluster"),
    ],
)
def test_how_a_study_ended_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    state: str,
    error: type[Exception],
    message: str,
) -> None:
    Head(monkeypatch, outcome={"id": "small-1", "exit_status": status, "state": state, "run": None})
    with pytest.raises(error, match=message):
        client.follow(str(a_cluster(tmp_path)), "small-1")


def test_a_dropped_connection_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Head(monkeypatch, outcome={"id": "small-1", "exit_status": 1, "state": "ended", "run": None})
    drops = [True, True, False]

    def ask(remote: Remote, command: str, given: Any = None) -> Any:
        if drops and drops.pop():
            error = remote.unreachable("Warning: no such key\nConnection timed out\n")
            assert "cannot be reached over SSH (Connection timed out). Run" in str(error)
            raise error
        return made.ask(command, given)

    monkeypatch.setattr(Remote, "ask", ask)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(StudyFailed, match="has failed"):
        client.follow(str(a_cluster(tmp_path)), "small-1")
    drops[:] = [True, False]
    monkeypatch.setattr(client, "PATIENCE_S", -1)
    with pytest.raises(
        TuneRnnError, match=r"cannot be reached any more\. `tune-rnn submit .* --follow small-1`"
    ) as caught:
        client.follow(str(a_cluster(tmp_path)), "small-1")
    assert caught.value.exit_status == 1


def test_the_latest_study_is_meant_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = [{"id": "old", "state": "running"}, {"id": "new", "state": "ended"}]
    head = Head(monkeypatch, status={"studies": studies}, stop={"id": "old", "state": "ended"})
    cluster = str(a_cluster(tmp_path))
    assert "--follow old" in client.stop(cluster, None), "the latest that runs"
    head.answers["status"] = {"studies": []}
    with pytest.raises(InputError, match="no study is running there"):
        client.stop(cluster, None)


def test_status_shows_machines_and_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = [
        {"alive": True, "resources": {"CPU": 4.0, "GPU": 2.0}},
        {"alive": True, "resources": {"CPU": 2.0}},
        {"alive": False, "resources": {"CPU": 8.0}},
    ]
    studies = [
        {"id": "one", "state": "running", "trials": 7, "ended": 3, "best_loss": 1.23456, "place": "/r/one"},
        {"id": "two", "state": "died", "place": None},
        *({"id": f"with {end}", "state": "ended", "exit_status": end, "place": None} for end in (0, 1, 130)),
    ]
    Head(monkeypatch, status={"machines": machines, "studies": studies})
    assert client.status(str(a_cluster(tmp_path))).splitlines() == [
        "mine: 2 machines, 6 processors, 2 GPUs",
        "  one: running, 3 of 7 trials ended, best loss 1.2346, in /r/one",
        "  two: died",
        "  with 0: finished",
        "  with 1: failed",
        "  with 130: stopped",
    ]


WORKER = {"resources": {"CPU": 4, "GPU": 1}}


@pytest.mark.parametrize(
    ("given", "workers"),
    [
        ({"max_workers": 3, "available_node_types": {"worker": WORKER | {"max_workers": 2}}}, 2),
        ({"max_workers": 3, "available_node_types": {"worker": WORKER | {"max_workers": 9}}}, 3),
        ({"max_workers": 3, "available_node_types": {"worker": WORKER}}, 3),
        ({"available_node_types": {"worker": WORKER}}, 2),
    ],
)
def test_how_far_a_cluster_grows(given: dict[str, Any], workers: int) -> None:
    types = {"head": {"resources": {"CPU": 0}}} | given["available_node_types"]
    found = cluster_file._promised(given | {"head_node_type": "head", "available_node_types": types})
    assert found == ({"CPU": 0.0}, *[{"CPU": 4.0, "GPU": 1.0}] * workers)


class Jobs:
    """Ray's client for jobs, which keeps what it is asked to start."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def submit_job(self, entrypoint: str) -> str:
        self.started.append(entrypoint)
        return f"job-{len(self.started)}"

    def get_job_info(self, identity: str) -> Any:
        raise RuntimeError("the dashboard does not answer")


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Jobs, JobDirectory]:
    """A head with one job that has been sent."""
    made, folder = Jobs(), tmp_path / "jobs" / "small-1"
    folder.mkdir(parents=True)
    Job("small-1", "small", "sha").write(folder)
    monkeypatch.setattr(head, "HOME", tmp_path)
    monkeypatch.setattr(head, "_client", lambda: made)
    monkeypatch.setattr(head, "_start", lambda directory: head._submit(directory, "run"))
    return made, JobDirectory(folder)


def test_a_study_is_started_once_however_often_the_connection_drops(jobs: tuple[Jobs, JobDirectory]) -> None:
    for _ in range(2):
        assert head.start({"id": "small-1"}) == {"id": "small-1"}
    assert len(jobs[0].started) == 1


def test_who_asks_again_while_a_study_is_started_waits_and_hears_why_it_cannot_be(
    jobs: tuple[Jobs, JobDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_fail = threading.Event(), threading.Event()
    heard: list[str] = []

    def start(directory: JobDirectory) -> Any:
        begun.set()
        may_fail.wait()
        raise InputError("task", "the data here is another one")

    def ask() -> None:
        try:
            head.start({"id": "small-1"})
        except InputError as error:
            heard.append(error.rule)

    monkeypatch.setattr(head, "_start", start)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    assert head.outcome({"id": "small-1"})["state"] == "running"
    may_fail.set()
    for thread in threads:
        thread.join()
    assert heard == ["the data here is another one"] * 2
    assert head.outcome({"id": "small-1"})["state"] == "died"


def test_a_study_that_cannot_go_on_keeps_what_it_has_ended_with(
    jobs: tuple[Jobs, JobDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_ray() -> Any:
        raise head._no_ray()

    jobs[1].note_exit(0)
    monkeypatch.setattr(head, "_client", no_ray)
    with pytest.raises(InputError, match="no Ray answers there"):
        head.resume({"id": "small-1", "overrides": []})
    assert jobs[1].exit_status == 0


def test_a_damaged_journal_of_one_study_hides_no_other(jobs: tuple[Jobs, JobDirectory]) -> None:
    _, directory = jobs
    directory.run_note.write_text(json.dumps({"path": str(directory.path), "url": ""}))
    directory.experiment.touch()
    (directory.path / "trials.jsonl").write_text('{"event": "report"}\n')
    answer = head.outcome({"id": "small-1"})
    assert (answer["state"], answer["run"], "trials" in answer) == ("died", str(directory.path), False)


def test_an_error_that_is_none_of_ours_is_a_failure_and_no_kill(
    jobs: tuple[Jobs, JobDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arguments: list[str]) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tune_rnn.cli.main", fail)
    monkeypatch.setattr(job, "_print_to", lambda log: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(RuntimeError, match="a bug"):
        job.main(str(jobs[1].path), "run")
    assert jobs[1].exit_status == 1


def test_a_study_runs_as_long_as_its_process_holds_its_directory(jobs: tuple[Jobs, JobDirectory]) -> None:
    head.start({"id": "small-1"})
    given = {"id": "small-1", "overrides": []}
    with jobs[1].held():
        assert head.outcome(given)["state"] == "running", "whatever the dashboard says"
        with pytest.raises(InputError, match="is running"):
            head.resume(given)
    assert head.outcome(given)["state"] == "died"
    jobs[1].note_exit(0)
    assert head.outcome(given)["state"] == "ended"


def test_of_a_name_s_studies_the_one_that_runs_is_stopped(
    jobs: tuple[Jobs, JobDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, older = jobs
    head.start({"id": "small-1"})
    newer = JobDirectory(older.path.with_name("small-2"))
    newer.path.mkdir()
    Job("small-2", "small", "sha").write(newer.path)
    newer.note_exit(2)
    stopped = []
    with ExitStack() as process:
        process.enter_context(older.held())

        def stop_job(identity: str) -> None:
            stopped.append(identity)
            process.close()

        monkeypatch.setattr(made, "stop_job", stop_job, raising=False)
        assert head.stop({"id": "small"})["id"] == "small-1"
    assert stopped == ["job-1"]
    assert head.stop({"id": "small"})["id"] == "small-2", "none runs"


def test_a_study_that_ended_before_its_first_trial_begins_again_with_what_is_changed(
    jobs: tuple[Jobs, JobDirectory],
) -> None:
    made, directory = jobs
    head.start({"id": "small-1"})
    directory.note_exit(130)
    directory.log.write_text("stopped\n")
    assert head.resume({"id": "small-1", "overrides": ["budget.trials=3"]})["printed"] == len("stopped\n")
    assert made.started[1].endswith("small-1 run budget.trials=3")
    assert directory.exit_status is None
    a_run_of(directory)
    head.resume({"id": "small-1", "overrides": []})
    assert made.started[2].endswith("small-1 resume")


def a_run_of(directory: JobDirectory) -> None:
    """A run beside the job's own files, whose study had three trials."""
    experiment = Experiment(name="small", task={"corpus": "pydoc"}, budget={"epochs": 1, "trials": 3})
    write_experiment(RunDirectory(directory.path), experiment)
    Journal(directory.path / "trials.jsonl").open_session("sha", 2, 1000.0)
    directory.run_note.write_text(json.dumps({"path": str(directory.path), "url": ""}))


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("budget.trials=2", "was 3; a budget can only grow"),
        ("training.learning_rate=1", "only budget.trials and budget.hours can change"),
        ("budget.trials=many", "budget.trials"),
    ],
)
def test_a_study_that_may_not_go_on_so_keeps_what_it_has_ended_with(
    jobs: tuple[Jobs, JobDirectory], override: str, refused: str
) -> None:
    made, directory = jobs
    directory.note_exit(0)
    a_run_of(directory)
    with pytest.raises(InputError, match=refused):
        head.resume({"id": "small-1", "overrides": [override]})
    assert (directory.exit_status, made.started) == (0, [])
    head.resume({"id": "small-1", "overrides": ["budget.trials=4"]})
    assert len(made.started) == 1


def test_a_study_goes_by_its_experiment_s_name_as_well(tmp_path: Path) -> None:
    for number, name in enumerate(("small", "small", "other")):
        folder = tmp_path / "jobs" / f"{name}-{number}"
        folder.mkdir(parents=True)
        Job(folder.name, name, "sha").write(folder)
        os.utime(folder / "job.json", (number, number))
    assert [one.path.name for one in JobDirectory.named(tmp_path, "small")] == ["small-1", "small-0"]
    named = {name: JobDirectory.of(tmp_path, name).path.name for name in ("small", "small-0", "other")}
    assert named == {"small": "small-1", "small-0": "small-0", "other": "other-2"}


@pytest.mark.parametrize("identity", ["../../etc", "unknown", ""])
def test_a_study_that_was_not_submitted_is_refused(tmp_path: Path, identity: str) -> None:
    folder = tmp_path / "jobs" / "small-1"
    folder.mkdir(parents=True)
    Job("small-1", "small", "sha").write(folder)
    with pytest.raises(InputError, match=r"The latest are: small-1\."):
        JobDirectory.of(tmp_path, identity)
