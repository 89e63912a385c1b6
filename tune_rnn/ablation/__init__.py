"""What each regulariser of a run's best configuration is worth: it is trained again without it, with several seeds.

A study of its own, on the same machinery: one branch for the whole configuration, one without each regulariser, one
without all; a grid, so that every branch is trained with the same seeds, and differences are taken seed by seed.
"""

from __future__ import annotations

from tune_rnn.ablation.effects import Effect, effects, is_finished, refuse_a_second, report
from tune_rnn.ablation.planning import active_regularizers, is_ablation, plan, size

__all__ = [
    "Effect",
    "active_regularizers",
    "effects",
    "is_ablation",
    "is_finished",
    "plan",
    "refuse_a_second",
    "report",
    "size",
]
