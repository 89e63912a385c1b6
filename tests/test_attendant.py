"""What is beside Ray on a cluster's worker: notices of the clouds, passed on, and Ray's last process ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tune_rnn.submission import attendant


class Service(BaseHTTPRequestHandler):
    """The metadata services of both clouds, as far as is asked; Amazon's wants a token."""

    taken_back = ""

    def do_PUT(self) -> None:
        self.answer(200 if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60" else 400, "token")

    def do_GET(self) -> None:
        if self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            self.answer(200, "TRUE" if self.taken_back else "FALSE")
        elif (
            self.path != "/latest/meta-data/spot/instance-action" or self.headers["X-aws-ec2-metadata-token"] != "token"
        ):
            self.answer(401, "")
        elif not self.taken_back:
            self.answer(404, "")
        else:
            self.answer(200, f'{{"action": "terminate", "time": "{self.taken_back}"}}')

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *what: object) -> None: ...


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(attendant, "METADATA", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(Service, "taken_back", "")
        yield
        server.shutdown()


@pytest.mark.usefixtures("service")
def test_both_clouds_say_when_a_machine_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attendant.of_amazon() is None
    assert attendant.of_google() is None
    at = datetime.now(UTC) + timedelta(seconds=120)
    monkeypatch.setattr(Service, "taken_back", f"{at:%Y-%m-%dT%H:%M:%SZ}")
    seconds = attendant.of_amazon()
    assert seconds is not None
    assert 110 < seconds <= 120
    assert attendant.of_google() == 30
    monkeypatch.setattr(Service, "taken_back", "2017-09-18T08:22:00Z")
    assert attendant.of_amazon() == 0


@pytest.mark.usefixtures("service")
def test_a_notice_is_passed_on_once_and_what_ray_leaves_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raylet, logs = tmp_path / "raylet", tmp_path / "log_monitor.py"
    shutil.copy(sys.executable, raylet)
    logs.write_text("import time\ntime.sleep(60)\n")
    with_agent = "import subprocess; subprocess.run(['sleep', '60'])"
    sleep = ["-S", "-c", with_agent, "--node_id=1234", "--gcs-address=10.0.0.1:6379"]
    ray = psutil.Popen([raylet, *sleep], env={"PYTHONHOME": sys.base_prefix})
    passer = psutil.Popen([sys.executable, "-u", logs])
    deadline = time.monotonic() + 20
    while not ray.children() and time.monotonic() < deadline:
        time.sleep(0.01)
    agent = ray.children()[0]
    said: list[list[str]] = []

    def run(command: list[str], check: bool) -> None:
        said.append(command)
        if len(said) == 1:
            raise subprocess.CalledProcessError(1, command)
        ray.terminate()
        ray.wait()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(attendant, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(Service, "taken_back", "2017-09-18T08:22:00Z")
    attendant.attend("aws")
    assert passer.wait(10) != 0
    agent.wait(10)
    assert len(said) == 2, "what went wrong is tried again"
    assert {"drain-node", "10.0.0.1:6379", "1234"} <= set(said[1])
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2].partition(":")[0] for line in printed] == ["CalledProcessError", "taken back in 0 s"]


@pytest.mark.usefixtures("service")
def test_ray_is_not_started_on_a_machine_that_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    attendant.main(["aws", "--before-ray"])
    attendant.main(["--before-ray"])
    monkeypatch.setattr(Service, "taken_back", "2017-09-18T08:22:00Z")
    attendant.main(["--before-ray"])
    for cloud in ("aws", "gcp"):
        with pytest.raises(SystemExit, match="The cloud takes this machine back"):
            attendant.main([cloud, "--before-ray"])
    monkeypatch.setattr(attendant, "METADATA", "http://127.0.0.1:1")
    attendant.main(["aws", "--before-ray"])


def test_it_waits_for_ray_which_is_started_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    ray: Any = SimpleNamespace(cmdline=lambda: ["raylet"], children=list)
    logs: Any = SimpleNamespace(kill=lambda: killed.append("logs"))
    found = iter([None, None, logs, None, ray])
    asked: list[str] = []

    def own_process(name: str) -> Any:
        asked.append(name)
        return next(found)

    monkeypatch.setattr(attendant, "_own_process", own_process)
    monkeypatch.setattr(psutil, "wait_procs", lambda processes, timeout: (processes, []))
    attendant.attend("")
    assert asked == ["log_monitor.py"] * 3 + ["raylet"] * 2
    assert killed == ["logs"]


def test_without_ray_there_is_only_what_was_started_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    logs = SimpleNamespace(kill=lambda: killed.append("logs"))
    monkeypatch.setattr(attendant, "RAY_STARTS_S", 0.0)
    monkeypatch.setattr(attendant, "_own_process", lambda name: logs if name == "log_monitor.py" else None)
    with pytest.raises(SystemExit, match="no Ray runs here"):
        attendant.attend("")
    monkeypatch.setattr(attendant, "_own_process", lambda name: None)
    with pytest.raises(SystemExit, match="no Ray runs here"):
        attendant.attend("")
    assert killed == ["logs"]
