"""Whether a cluster is fit for a study: each machine is asked, by a task that runs there, before it starts."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

PACKAGES = ("tune_rnn", "ray", "torch", "numpy")
SKEW_S = 60.0
FREE_BYTES = 1 << 30
ANSWER_S = 90.0

DASHBOARD = "http://127.0.0.1:8265"


def describe(has_gpu: bool) -> dict[str, Any]:
    """This machine: versions, clock, free disk, and the GPUs that torch sees where Ray counts some."""
    from tune_rnn.results.provenance import versions

    return {
        "host": platform.node(),
        "time": time.time(),
        "free_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
        "versions": versions(PACKAGES),
        "gpus": _gpus_seen() if has_gpu else 0,
    }


def _gpus_seen() -> int:
    """In a process of its own: Ray hides GPUs from a task that has asked for none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def ask_all() -> list[dict[str, Any]]:
    """What every machine of the running Ray says of itself, with its resources; this one's is the first."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    task = ray.remote(num_cpus=0, max_retries=0)(describe)
    asked = []
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        sent = time.time()
        asked.append((node, sent, task.options(scheduling_strategy=strategy).remote("GPU" in node["Resources"])))
    answers = []
    deadline = time.monotonic() + ANSWER_S
    for node, sent, reference in asked:
        resources = {kind: node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")}
        answer = {"address": node["NodeManagerAddress"], "resources": resources, "sent": sent}
        try:
            answer |= ray.get(reference, timeout=max(0.0, deadline - time.monotonic())) | {"answered": time.time()}
        except ray.exceptions.RayError as error:
            answer["error"] = str(error).splitlines()[0]
        answers.append(answer)
    return answers


def problems(answers: Sequence[Mapping[str, Any]], ours: Mapping[str, str], uses_gpus: bool) -> list[str]:
    """What is wrong with the machines, a sentence each; `ours`: the submitter's versions of packages.

    The submitter's Python may be another one; those of the machines must be the same.
    """
    found = []
    head = next((one["versions"]["python"] for one in answers if "error" not in one), "")
    for one in answers:
        where = f"{one.get('host', '?')} ({one['address']})"
        if "error" in one:
            found.append(f"{where} does not answer: {one['error']}")
            continue
        found += [
            f"{where} has {name} {one['versions'].get(name)}, here it is {version}"
            for name, version in ours.items()
            if not _same(one["versions"].get(name), version)
        ]
        if one["versions"]["python"] != head:
            found.append(f"{where} has Python {one['versions']['python']}, another has {head}")
        early, late = one["sent"] - SKEW_S, one["answered"] + SKEW_S
        if not early <= one["time"] <= late:
            found.append(f"{where} has a clock that is {abs(one['time'] - one['answered']):.0f} s off the head's")
        if one["free_bytes"] < FREE_BYTES:
            found.append(f"{where} has {one['free_bytes'] / (1 << 20):.0f} MiB of free disk for temporary files")
        counted = one["resources"]["GPU"]
        if uses_gpus and one["gpus"] < counted:
            found.append(f"{where} has {counted:g} GPUs for Ray, but torch sees {one['gpus']}")
    return found


def _same(one: str | None, other: str) -> bool:
    """The same version, whatever it was built for: 2.13.0+cpu here, 2.13.0+cu130 there."""
    return one is not None and one.partition("+")[0] == other.partition("+")[0]


def asks_for_token() -> bool:
    """Whether the head's Ray refuses who comes without the cluster's token."""
    try:
        urllib.request.urlopen(f"{DASHBOARD}/api/jobs/", timeout=10).close()
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    return False
