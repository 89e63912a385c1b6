"""Ray itself: start or join it quietly, see what it has, and say how many trials fit."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tune_rnn.errors import InputError
from tune_rnn.schema import Resources, Use
from tune_rnn.signals import kept_handlers
from tune_rnn.study.ahead import preloading, processes_at_hand

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the new default; the old one warns
    "RAY_AIR_NEW_OUTPUT": "0",  # its verbosity 0 still prints a table
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # one writer of event files: ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is handled by the study
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they go to a file each
    "TUNE_FORCE_TRIAL_CLEANUP_S": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # the state of all trials, which only Ray would read: at the end alone
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}

PRIVATE = "local"
"""The address that has Ray start one for this process alone."""

_PRIVATE_SETTINGS = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Its processes are this one's children: under `uv run` they need no environment built anew for each."""

PROMISED = "TUNE_RNN_CLUSTER_NODES"
"""Where a study on a cluster that grows finds what machines it may come to have: a JSON list of their resources."""

LOOK_EVERY_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time and what each gets."""

    count: int
    cpu: float
    gpu: float

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))


@contextmanager
def ray_session(address: str | None, resources: Resources, meanwhile: Callable[[], T]) -> Iterator[Future[T]]:
    """Ray for the duration of a study; yields the result to be of `meanwhile`, which a thread calls as Ray starts.

    A Ray that this process has already initialised is used and left running. Otherwise one is joined where
    `address` (or RAY_ADDRESS) says so, and else a private one is started and shut down.
    """
    named = address or os.environ.get("RAY_ADDRESS") or PRIVATE
    for name, value in (_SETTINGS | (_PRIVATE_SETTINGS if named == PRIVATE else {})).items():
        os.environ.setdefault(name, value)
    import ray  # with these settings

    if ray.is_initialized():
        if address:
            rule = "this process already uses a Ray, and can use one only"
            raise InputError("address", rule, "Leave the address out, or call ray.shutdown() before.", address)
        yield _in_a_thread(meanwhile)
        return
    _check_address(named)
    with _quiet_ray():
        result = _in_a_thread(meanwhile)
        try:
            if named == PRIVATE:
                with preloading(resources):
                    _start(named)
                with processes_at_hand():
                    yield result
            else:
                _start(named)
                yield result
        finally:
            ray.shutdown()


def _in_a_thread(job: Callable[[], T]) -> Future[T]:
    thread = ThreadPoolExecutor(1)
    future = thread.submit(job)
    thread.shutdown(wait=False)
    return future


def _start(address: str) -> None:
    import ray

    dashboard = False if address == PRIVATE else None
    try:
        with kept_handlers():
            ray.init(address=address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, TimeoutError, ValueError) as error:
        raise _no_cluster(address) from error


def _check_address(address: str) -> None:
    """Refuse an address where nothing answers: Ray itself would try for 80 seconds, and then end the process."""
    if address in (PRIVATE, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536) or "/" in host:
        rule = "must be auto or HOST:PORT"
        raise InputError("address", rule, "`ray start --head` prints it, for example 10.0.0.1:6379.", address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise _no_cluster(address) from error


def _no_cluster(address: str) -> InputError:
    remedy = "Start it with `ray start --head`, or leave the address out to run on this machine."
    return InputError("address", "no Ray cluster answers there", remedy, address)


@contextmanager
def _quiet_ray() -> Iterator[None]:
    """What a user can act on, the study says itself: no log lines of Ray's over the display.

    For the message with which Ray tells of a killed worker there is no setting.
    """
    from ray._private import worker

    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train")]
    levels, shown = [logger.level for logger in loggers], worker.print_to_stdstream

    def show(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
        if data.get("pid") != "raylet":
            shown(data, *arguments, **options)

    worker.print_to_stdstream = show
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        worker.print_to_stdstream = shown
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def find_slots(resources: Resources) -> Slots:
    """Slots on the Ray that is running. Refuses what the cluster cannot give before any trial starts."""
    return count_slots(resources, max(nodes(), _promised(), key=len))


class Room:
    """How many trials fit on a cluster whose machines come and go; `tell` hears of every change."""

    def __init__(self, slots: Slots, use: Use | None, tell: Callable[[int], None]) -> None:
        self.slots, self.use, self.tell = slots, use, tell
        self.count, self.next_look = slots.count, 0.0
        self.leaving: frozenset[str] = frozenset()
        """Addresses of machines that are about to be taken away."""

    def look(self) -> None:
        """Called often: looks every now and then. There is always room for one, if only to wait for a machine."""
        if (now := time.monotonic()) < self.next_look:
            return
        self.next_look = now + LOOK_EVERY_S
        self.leaving = frozenset(node["NodeManagerAddress"] for node in _alive(leaving=True))
        size = self.slots.cpu, self.slots.gpu, self.use
        count = max(1, _room(*size, nodes()), _room(*size, _promised()))
        if count != self.count:
            self.count = count
            self.tell(count)


def nodes() -> list[Mapping[str, float]]:
    """Resources of the machines that are there, and stay as far as is known."""
    return [node["Resources"] for node in _alive(leaving=False)]


def is_cluster() -> bool:
    """Whether there is more than one machine."""
    import ray

    return len([node for node in ray.nodes() if node["Alive"]]) > 1


def _alive(leaving: bool) -> list[Mapping[str, Any]]:
    """The machines that Ray has been told to drain, or all others."""
    import ray

    drained = ray._private.state.state.get_draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and (node["NodeID"] in drained) == leaving]


def _promised() -> list[Mapping[str, float]]:
    """Resources of the machines that a cluster grows to when there is work for them, as `tune-rnn submit` says."""
    promised: list[Mapping[str, float]] = json.loads(os.environ.get(PROMISED, "[]"))
    return promised


def count_slots(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> Slots:
    """Slots on nodes that have "CPU" processors and "GPU" GPUs each; InputError where not one trial fits."""
    processors = sum(node.get("CPU", 0.0) for node in nodes)
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    cpu, gpu = resources.per_trial.cpu, resources.per_trial.gpu
    use_cpu, use_gpu = (resources.use.cpu, resources.use.gpu) if resources.use else (None, None)
    if gpu == "auto":
        gpu = 1.0 if gpus and resources.may_use_gpu else 0.0
    if resources.device == "cpu":  # what the file says of GPUs is for machines that have some
        gpu = gpu if gpus else 0.0
        use_gpu = use_gpu if gpu else None
    if resources.device == "cuda" and gpu == 0:
        remedy = "Run where there are GPUs, set resources.per_trial.gpu, or set resources.device: cpu."
        raise InputError("resources.device", "no trial would get a GPU", remedy, "cuda")
    _check_enough("cpu", cpu, processors, use_cpu)
    _check_enough("gpu", gpu, gpus, use_gpu)
    room = _room(cpu, gpu, resources.use, nodes)
    if room == 0:
        remedy = "Lower them to what one node has."
        raise InputError("resources.per_trial", "no single node has that much", remedy, {"cpu": cpu, "gpu": gpu})
    return Slots(room, cpu, gpu)


def _room(cpu: float, gpu: float, use: Use | None, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials fit, each of them on one node: the cluster's sum is not enough."""
    fit = sum(min(_fit(cpu, node.get("CPU", 0.0)), _fit(gpu, node.get("GPU", 0.0))) for node in nodes)
    limits = ((cpu, use.cpu), (gpu, use.gpu)) if use else ()
    return int(min([fit, *(_fit(each, limit) for each, limit in limits if limit is not None)]))


def _check_enough(kind: str, each: float, there: float, use: float | None) -> None:
    """Refuse what the whole cluster, or what the study may use of it, does not have of one resource."""
    what = {"cpu": "processors", "gpu": "GPUs"}[kind]
    if use is not None and use > there:
        rule = f"the cluster has {there:g} {what}"
        remedy = f"Write {there:g} or less, or leave it out." if there else "Leave it out."
        raise InputError(f"resources.use.{kind}", rule, remedy, use)
    available = there if use is None else use
    if each > available:
        rule = f"the study has {available:g} {what}, too few for one trial"
        remedy = "Lower it, or run where there are more."
        if kind == "gpu":
            remedy = "Write 0 (or resources.device: cpu) to train on processors, or run where there are GPUs."
        raise InputError(f"resources.per_trial.{kind}", rule, remedy, each)


def _fit(each: float, available: float) -> float:
    """How many trials fit by one resource; infinitely many where they do not need it."""
    if each == 0:
        return math.inf
    if each >= 1:
        return int(available / each + 1e-9)
    whole, part = divmod(available, 1)  # trials that share a processor or a GPU do not span two
    return int(whole) * int(1 / each + 1e-9) + int(part / each + 1e-9)
