"""Who has no token gets nothing: every port of every machine, asked by a host that is not the cluster's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bed import Bed, Host
from studies import SubmittedStudy, all_answer, wait

PROBE = Path(__file__).with_name("probe.py")
TOKENS = {"without a token": "", "with a wrong token": "0" * 64}

REFUSALS = ("401", "403", "404", "405", "UNAUTHENTICATED", "UNIMPLEMENTED")
HARMLESS = {"/grpc.health.v1.Health/Check", "GET /api/local_raylet_healthz"}
"""What may be answered: that something is alive."""


@pytest.fixture(scope="module")
def study(bed: Bed, cluster: str) -> Iterator[SubmittedStudy]:
    """A study at work, which ends as if nothing had happened."""
    wait(lambda: all_answer(bed), 240, "a machine is missing")
    made = SubmittedStudy(bed, cluster, "secret-study", epochs=2000)
    made.wait_for_reports(6)
    yield made
    bed.laptop.run(f"tune-rnn stop {cluster}")
    made.finish(60, status=130)


def ports_of(host: Host) -> list[int]:
    """Every TCP port on which somebody may be let in from elsewhere, SSH's aside."""
    said = host.run("ss -Hltn", check=True).stdout
    found = {line.split()[3].rpartition(":") for line in said.splitlines()}
    return sorted({int(port) for address, _, port in found if "127.0.0.1" not in address} - {22})


def ask(bed: Bed, hosts: Sequence[Host], token: str) -> list[dict[str, list[dict[str, Any]]]]:
    """What the ports of each host answer; all hosts are asked at once."""
    ports = [",".join(map(str, ports_of(host))) for host in hosts]
    asking = [
        bed.laptop.start_command(f"python {PROBE} {host.address} {those} {token}")
        for host, those in zip(hosts, ports, strict=True)
    ]
    return [json.loads(process.communicate()[0]) for process in asking]


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_no_port_lets_a_stranger_in(bed: Bed, study: SubmittedStudy, token: str) -> None:
    answered = 0
    hosts = bed.head, bed.workers[0]
    for host, found in zip(hosts, ask(bed, hosts, token), strict=True):
        assert 8265 not in ports_of(host), "the dashboard is the head's own"
        for port, answers in found.items():
            kinds = sorted({f"{one['asked']}: {one['status']}" for one in answers})
            print(host.name, port, "; ".join(kinds) or "no answer")
            for one in answers:
                answered += 1
                is_metrics = one["said"].startswith("# HELP")  # figures of processes: exporters know nothing else
                harmless = one["asked"] in HARMLESS or is_metrics
                assert harmless or one["status"] in REFUSALS, (host.name, port, one)
                assert "secret-study" not in one["said"], (host.name, port, one)
        assert host.run("ls /tmp/ray/broken-in").returncode != 0, "somebody ran code"
    assert answered > 20, "the ports do answer"
    assert study.command.poll() is None, "the study goes on"


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_stranger_neither_joins_nor_submits_nor_asks(bed: Bed, study: SubmittedStudy, token: str) -> None:
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    address = bed.head.address
    commands = (
        f"ray status --address {address}:6379",
        f"ray job submit --address http://{address}:8265 -- touch /tmp/ray/broken-in",
        f"""python -c 'import ray; ray.init("ray://{address}:10001"); print(ray.nodes())'""",
        f"ray start --address {address}:6379 --block",
    )
    for process in [bed.laptop.start_command(f"timeout 40 {command}", env=given) for command in commands]:
        said, _ = process.communicate()
        assert process.returncode != 0, said
        assert "NodeID" not in said
    assert bed.head.run("ls /tmp/ray/broken-in").returncode != 0
    assert "3 machines" in bed.laptop.run(f"tune-rnn status {study.cluster}", check=True).stdout


def test_the_token_is_in_its_file_and_nowhere_else(bed: Bed, study: SubmittedStudy) -> None:
    for host in (bed.head, *bed.workers):
        mode = host.run("stat -c %a ~/.ray/auth_token", check=True).stdout.strip()
        assert mode == "600"
        found = host.run("grep -rlFf ~/.ray/auth_token ~/ /tmp/ray --exclude-dir=.venv").stdout.split()
        assert [re.sub(r".*/", "", file) for file in found] == ["auth_token"], found
        shown = host.run("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -cFf ~/.ray/auth_token").stdout.strip()
        assert shown == "0", "it is in the list of processes"
    token = (bed.head.home / ".ray/auth_token").read_text()
    (bed.laptop.home / "token").write_text(token)
    brought = bed.laptop.run("grep -rlFf ~/token ~/ --exclude=token").stdout.split()
    (bed.laptop.home / "token").unlink()
    assert brought == [], "it came to the laptop"
