"""Ray itself: start or join it quietly, see what it has, and say how many trials fit."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tune_rnn.errors import InputError
from tune_rnn.schema import Resources

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the new default; the old one warns
    "RAY_AIR_NEW_OUTPUT": "0",  # its verbosity 0 still prints a table
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # one writer of event files: ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is handled by the study
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they go to a file each
    "TUNE_FORCE_TRIAL_CLEANUP_S": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}


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
def ray_session(address: str | None) -> Iterator[None]:
    """Ray for the duration of a study.

    A Ray that this process has already initialised is used and left running. Otherwise one is joined where
    `address` (or RAY_ADDRESS) says so, and else a private one is started and shut down.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.tune", "ray.train"):  # what a user can act on, the study says itself
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    dashboard = False if address == "local" else None
    try:
        ray.init(
            address=address,
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except (ConnectionError, TimeoutError) as error:
        remedy = "Start it with `ray start --head`, or leave the address out to run on this machine."
        raise InputError("address", "no Ray cluster answers there", remedy, address) from error
    try:
        yield
    finally:
        ray.shutdown()


def find_slots(resources: Resources) -> Slots:
    """Slots on the Ray that is running. Refuses what the cluster cannot give before any trial starts."""
    import ray

    slots = count_slots(resources, ray.cluster_resources())
    _check_one_node(slots)
    return slots


def count_slots(resources: Resources, total: Mapping[str, float]) -> Slots:
    """Slots where there are `total["CPU"]` processors and `total["GPU"]` GPUs; InputError where there is none."""
    gpus = 0.0 if resources.device == "cpu" else total.get("GPU", 0.0)
    cpu, gpu = resources.per_trial.cpu, resources.per_trial.gpu
    use_cpu, use_gpu = (resources.use.cpu, resources.use.gpu) if resources.use else (None, None)
    if resources.device == "cpu":
        use_gpu = None
    if not resources.may_use_gpu:
        gpu = 0.0
    elif gpu == "auto":
        gpu = 1.0 if gpus else 0.0
    if resources.device == "cuda" and gpu == 0:
        remedy = "Run where there are GPUs, set resources.per_trial.gpu, or set resources.device: cpu."
        raise InputError("resources.device", "no trial would get a GPU", remedy, "cuda")
    counts = [_fit("cpu", cpu, total.get("CPU", 0.0), use_cpu), _fit("gpu", gpu, gpus, use_gpu)]
    return Slots(min(count for count in counts if count is not None), cpu, gpu)


def _fit(kind: str, each: float, there: float, use: float | None) -> int | None:
    """How many trials fit by one resource; None where they do not need it."""
    what = {"cpu": "processors", "gpu": "GPUs"}[kind]
    if use is not None and use > there:
        rule = f"the cluster has {there:g} {what}"
        raise InputError(f"resources.use.{kind}", rule, f"Write {there:g} or less, or leave it out.", use)
    if each == 0:
        return None
    available = there if use is None else use
    if each > available:
        rule = f"the study has {available:g} {what}, too few for one trial"
        remedy = "Lower it, or run where there are more."
        if kind == "gpu":
            remedy = "Write 0 (or resources.device: cpu) to train on processors, or run where there are GPUs."
        raise InputError(f"resources.per_trial.{kind}", rule, remedy, each)
    if each >= 1:
        return int(available / each + 1e-9)
    whole, part = divmod(available, 1)  # trials that share a processor or a GPU do not span two
    return int(whole) * int(1 / each + 1e-9) + int(part / each + 1e-9)


def _check_one_node(slots: Slots) -> None:
    """A trial runs on one node: the cluster's sum is not enough."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= slots.cpu and node.get("GPU", 0) >= slots.gpu for node in nodes):
        given = {"cpu": slots.cpu, "gpu": slots.gpu}
        remedy = "Lower them to what one node has."
        raise InputError("resources.per_trial", "no single node has that much", remedy, given)
