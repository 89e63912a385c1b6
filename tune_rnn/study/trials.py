"""Ray Tune's trials, made with less ado than Ray makes them: that takes as long as all the rest of a short trial.

For each trial Ray fetches the trainable's class from its store three times, reads the experiment as if it came from a
command line, and has the process say twice who it is, which nobody asks here.
"""

from __future__ import annotations

import time
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.search import Searcher
from ray.tune.search.search_generator import SearchGenerator

from tune_rnn.study.trainable import CHECKPOINT


class StudyTrial(Trial):
    """A trial of a class that is given, and not looked up by its name."""

    def __init__(self, name: str, trainable: type, **given: Any) -> None:
        super().__init__(name, stub=True, **given)  # a stub's name is not looked up
        self.stub, self.trainable = False, trainable
        self.met: BaseException | None = None

    def get_trainable_cls(self) -> type:
        return self.trainable

    def set_ray_actor(self, ray_actor: Any) -> None:
        """Without asking the process for what a trial has as its result before its first one."""
        self.temporary_state.ray_actor = ray_actor

    def update_last_result(self, result: dict[str, Any]) -> None:
        """Without averages of its metrics: Ray keeps each trial for good, and they would be most of its memory."""
        self.run_metadata.last_result, self.run_metadata.last_result_time = _slim(result), time.time()

    def handle_error(self, exc: Any = None) -> None:
        """Remember what the trial has met with, for `LostTrials`."""
        self.met = exc
        super().handle_error(exc)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        del state["trainable"], state["met"]  # Ray writes the one down by its name
        return state


def _slim(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its checkpoint, which has been taken care of, and may be large."""
    return {key: value for key, value in result.items() if key != CHECKPOINT}


class TrialMaker(SearchGenerator):
    """Makes trials of what a searcher suggests."""

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(searcher)
        self.trainable: type | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to keep, as of the searcher."""
        return {}

    def create_trial_if_possible(self, experiment_spec: dict[str, Any]) -> Trial | None:
        identity = Trial.generate_id()
        config: Any = self.searcher.suggest(identity)  # or FINISHED, a text
        if config == Searcher.FINISHED:
            self._finished = True
        if config is None or self._finished:
            return None
        self.trainable = self.trainable or get_trainable_cls(experiment_spec["run"])
        self._counter += 1
        return StudyTrial(
            experiment_spec["run"],
            self.trainable,
            config=config,
            trial_id=identity,
            experiment_tag=str(self._counter),
            storage=experiment_spec["storage"],
            checkpoint_config=experiment_spec["checkpoint_config"],
            trial_name_creator=experiment_spec["trial_name_creator"],
            trial_dirname_creator=experiment_spec["trial_dirname_creator"],
        )
