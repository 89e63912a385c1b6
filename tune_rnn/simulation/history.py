"""What happened in a simulated study."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import NamedTuple

from tune_rnn.space import Assignment


class Event(NamedTuple):
    """A trial's report. Time is in units of the resource: a trial needs 1 for each; loss is that at the resource."""

    time: float
    trial: int
    resource: int
    loss: float


@dataclass
class History:
    """Every report of a simulated study in the order of time; a diverged trial's last loss is NaN or inf.

    `trials` has what each tried, by number; `max_resource` is that of a trial that runs to its end.
    """

    workers: int
    max_resource: int
    events: list[Event] = field(default_factory=list)
    trials: list[Assignment] = field(default_factory=list)

    @property
    def incumbent(self) -> list[float]:
        """For every event the lowest loss so far, at whatever resource; inf before there is one."""
        return _lowest(event.loss for event in self.events)

    @property
    def finished_incumbent(self) -> list[float]:
        """For every event the lowest loss of a trial at the end of its whole resource; inf before one has ended."""
        ended = (event.loss if event.resource == self.max_resource else math.inf for event in self.events)
        return _lowest(ended)

    def finished_loss_at(self, time: float) -> float:
        """The lowest loss, at a whole resource's end, of the trials that had reached it by `time`; inf if none had."""
        losses = [e.loss for e in self.events if e.time <= time and e.resource == self.max_resource]
        return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)

    @property
    def best(self) -> Event | None:
        """The event of the lowest loss."""
        return min((e for e in self.events if math.isfinite(e.loss)), key=lambda e: e.loss, default=None)

    def count_finished(self) -> int:
        """How many trials ran to the end of their whole resource."""
        return sum(event.resource == self.max_resource for event in self.events)

    def to_json(self) -> str:
        """All of it as JSON; losses that are not finite become null."""
        rows = [[e.time, e.trial, e.resource, e.loss if math.isfinite(e.loss) else None] for e in self.events]
        return json.dumps({**asdict(self), "events": rows})


def _lowest(losses: object) -> list[float]:
    finite = (loss if math.isfinite(loss) else math.inf for loss in losses)  # type: ignore[attr-defined]
    return list(accumulate(finite, min))
