"""Ray Tune's manager of actors, for which a lost process is a lost process, however Ray puts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.exceptions
from ray.air.execution._internal import RayActorManager
from ray.tune.execution import tune_controller

from tune_rnn.study.reasons import NO_MEMORY


class ActorManager(RayActorManager):
    """Takes for the loss of a process what Ray's manager does not expect, and what would end the study therefore.

    What has more than 100 kB, such as a checkpoint, stays on the machine where it was made until it is fetched, and may
    be lost with it. And a process that Ray itself kills because memory runs out has an error of its own.
    """

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, _as_death(exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        exception = _as_death(exception)
        known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = ray.exceptions.ActorUnavailableError(str(exception), None)
        super()._actor_task_failed(tracked_actor_task, exception)


def _as_death(exception: Exception) -> Exception:
    if isinstance(exception, ray.exceptions.OutOfMemoryError):
        return ray.exceptions.RayActorError(error_msg=f"{NO_MEMORY}: {exception}")
    return exception


@contextmanager
def processes_may_be_lost() -> Iterator[None]:
    """Have Tune use this manager; it has no setting for it."""
    vars(tune_controller)["RayActorManager"] = ActorManager
    try:
        yield
    finally:
        vars(tune_controller)["RayActorManager"] = RayActorManager
