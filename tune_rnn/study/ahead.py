"""What is done ahead of need while a private Ray starts, so that a study's first step comes soon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import tune_rnn
from tune_rnn.machine import may_have_gpu
from tune_rnn.schema import Resources

PRELOAD, PATH = "RAY_preload_python_modules", "PYTHONPATH"

WORTH_IT = 0.5
"""Processes load ahead where at least this part of them will train."""


def load_libraries() -> None:
    """Import what this process needs as soon as Ray is there.

    For a thread beside `ray.init`, so nothing of Ray's: two threads that import parts of it could wait for each other.
    """
    for name in ("pandas", "scipy.stats"):  # Tune, the searchers
        import_module(name)


@contextmanager
def preloading(resources: Resources) -> Iterator[None]:
    """Have the processes that a Ray started meanwhile keeps ready load what trains (`tune_rnn.study.preload`).

    Ray tells a process of this one's path only with its first task: till then PYTHONPATH says whose code it is.
    """
    changes = {}
    if _is_worth_it(resources):
        modules = [*filter(None, [os.environ.get(PRELOAD)]), "tune_rnn.study.preload"]
        changes[PRELOAD] = ",".join(modules)
        root = Path(tune_rnn.__file__).parents[1]
        if root.name not in ("site-packages", "dist-packages"):  # which are on the path, after Python's own library
            changes[PATH] = os.pathsep.join([str(root), *filter(None, [os.environ.get(PATH)])])
    with _environment(changes):
        yield


def _is_worth_it(resources: Resources) -> bool:
    """Ray starts a process for each processor, and they stay; a machine with GPUs has many, and few slots."""
    if resources.may_use_gpu and may_have_gpu():
        return False
    there = os.cpu_count() or 1
    usable = there if resources.use is None or resources.use.cpu is None else min(there, resources.use.cpu)
    return usable / resources.per_trial.cpu >= WORTH_IT * there


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def processes_at_hand() -> Iterator[None]:
    """Have Tune's actors use the processes that a private Ray has started already.

    Tune passes environment variables on to its actors, for which Ray would prepare an environment and start other
    processes: two seconds. A private Ray's processes have all of this one's environment anyway.
    """
    from ray.tune.execution import class_cache

    names = ("DEFAULT_ENV_VARS", "ENV_VARS_TO_PROPAGATE")
    before = {name: value for name in names if (value := getattr(class_cache, name, None)) is not None}
    for name, value in before.items():
        setattr(class_cache, name, type(value)())
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(class_cache, name, value)
