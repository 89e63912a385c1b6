"""What both scripts on Ray Tune share: HyperOptSearch and ASHAScheduler as Ray's PyTorch tutorial sets them."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.hyperopt import HyperOptSearch


def tune_config(seed: int, seconds: float, epochs: int, **more: Any) -> tune.TuneConfig:
    """Trials of at most so many epochs until the time is over."""
    return tune.TuneConfig(
        metric="loss",
        mode="min",
        search_alg=HyperOptSearch(random_state_seed=seed),
        scheduler=ASHAScheduler(max_t=epochs, grace_period=1, reduction_factor=2),
        num_samples=-1,
        time_budget_s=seconds,
        **more,
    )
