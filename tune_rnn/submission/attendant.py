"""Beside Ray on a cluster's worker: tells Ray when the cloud is about to take the machine back, and clears up after it.

    python -m tune_rnn.submission.attendant [aws | gcp] [--before-ray]

A study has trials leave a machine that Ray drains, each from its next checkpoint. The attendant is started before Ray,
which is never without it, and ends with Ray. Then it ends all processes that Ray has started there: agents, and what
passes logs on, would stay for long where Ray's head is gone. With `--before-ray` it only asks, and exits with 1 where
there is a notice: Ray's autoscaler would start Ray again on a machine that has been drained and is about to go.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

METADATA = "http://169.254.169.254"
"""Where a machine of either cloud is told about itself, and nobody else."""

LOOK_EVERY_S = 5.0
RAY_STARTS_S = 600.0
"""So long Ray may take to start."""

GOOGLE_NOTICE_S = 30.0


def of_amazon() -> float | None:
    """Seconds until a spot instance is taken back; None where no such thing is known.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html: two minutes before.
    """
    token = _ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    action = _ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token or ""})
    if action is None:
        return None
    at = datetime.fromisoformat(json.loads(action)["time"])
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def of_google() -> float | None:
    """The same of a spot or preemptible machine.

    https://cloud.google.com/compute/docs/instances/create-use-preemptible: half a minute before.
    """
    said = _ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GOOGLE_NOTICE_S if said == "TRUE" else None


NOTICES: dict[str, Callable[[], float | None]] = {"aws": of_amazon, "gcp": of_google, "": lambda: None}


def _ask(path: str, headers: Mapping[str, str], method: str = "GET") -> str | None:
    """What the metadata service answers; None where there is nothing under that path."""
    request = urllib.request.Request(METADATA + path, headers=dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def drain(node: Mapping[str, str], seconds: float) -> None:
    """Have Ray put nothing new on this machine; `node`: the options that its raylet was started with."""
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", node["gcs-address"]]
    command += ["--node-id", node["node_id"], "--deadline-remaining-seconds", str(int(seconds))]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the cloud takes the machine back"]
    subprocess.run(command, check=True)


def attend(cloud: str) -> None:
    """Look for a notice until this machine's Ray, which is about to start, has ended, and clear up."""
    deadline = time.monotonic() + RAY_STARTS_S
    logs, ray = _wait_for("log_monitor.py", deadline), _wait_for("raylet", deadline)  # in this order they are started
    left = [logs] if logs else []
    with suppress(psutil.NoSuchProcess):
        left += _attend(cloud, ray) if ray else []
    for process in left:
        with suppress(psutil.Error):
            process.kill()  # an agent may be waiting for its head, deaf to anything else
    if ray is None:
        sys.exit("no Ray runs here")


def _attend(cloud: str, ray: psutil.Process) -> list[psutil.Process]:
    """Look for a notice until Ray has ended; returns the last children that it had."""
    node = dict(word.removeprefix("--").split("=", 1) for word in ray.cmdline() if re.match("--.*=", word))
    has_notice, children = False, list[psutil.Process]()
    while True:
        has_notice = has_notice or _pass_on(cloud, node)
        with suppress(psutil.Error):
            children = ray.children() or children  # none: it may be ending
        if psutil.wait_procs([ray], timeout=LOOK_EVERY_S)[0]:
            return children


def refuse(cloud: str) -> None:
    """Exit with 1 where the cloud is about to take the machine back."""
    seconds = _seconds_left(cloud)
    if seconds is not None:
        sys.exit(f"The cloud takes this machine back in {seconds:.0f} s: Ray is not started.")


def _seconds_left(cloud: str) -> float | None:
    try:
        return NOTICES[cloud]()
    except Exception as error:  # asked again soon
        _log(f"{type(error).__name__}: {error}")
        return None


def _pass_on(cloud: str, node: Mapping[str, str]) -> bool:
    """Whether there is a notice, and Ray knows of it. What goes wrong is tried again later."""
    seconds = _seconds_left(cloud)
    if seconds is None:
        return False
    try:
        drain(node, seconds)
    except (OSError, subprocess.CalledProcessError) as error:
        _log(f"{type(error).__name__}: {error}")
        return False
    _log(f"taken back in {seconds:.0f} s")
    return True


def _log(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


def _wait_for(name: str, deadline: float) -> psutil.Process | None:
    while (process := _own_process(name)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return process


def _own_process(name: str) -> psutil.Process | None:
    """The newest of this user's processes whose program, or first argument that is a file, has this name."""
    found = []
    for process in psutil.process_iter(["cmdline", "uids", "create_time"]):
        words = [Path(word).name for word in (process.info["cmdline"] or ())[:3]]
        if name in words and process.info["uids"].real == os.getuid():
            found.append(process)
    return max(found, key=lambda one: float(one.info["create_time"]), default=None)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cloud", nargs="?", default="", choices=NOTICES)
    parser.add_argument("--before-ray", action="store_true")
    options = parser.parse_args(arguments)
    (refuse if options.before_ray else attend)(options.cloud)


if __name__ == "__main__":
    main(sys.argv[1:])
