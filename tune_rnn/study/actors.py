"""Ray Tune's manager of actors, for which a result that is lost with its machine is a process that is lost with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.exceptions
from ray.air.execution._internal import RayActorManager
from ray.tune.execution import tune_controller


class ActorManager(RayActorManager):
    """What has more than 100 kB, such as a checkpoint, stays on the machine where it was made until it is fetched.

    If that machine is lost just then, Ray's manager meets with an error that it does not expect, and ends the study.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = ray.exceptions.ActorUnavailableError(str(exception), None)
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def results_may_be_lost() -> Iterator[None]:
    """Have Tune use this manager; it has no setting for it."""
    vars(tune_controller)["RayActorManager"] = ActorManager
    try:
        yield
    finally:
        vars(tune_controller)["RayActorManager"] = RayActorManager
