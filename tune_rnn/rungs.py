"""Rungs: the budgets at which trials are compared. Training reports there, and schedulers decide there."""

from __future__ import annotations

import math

from tune_rnn.schema import Scheduler as Settings


def rungs_of(settings: Settings, amount: float) -> list[float]:
    """The budgets at which alone a scheduler compares trials; none where it does so at every report, or never."""
    first = settings.first_rung or 1.0
    match settings.algorithm:
        case "asha" | "hyperband":
            return rungs(first, settings.reduction_factor, amount)
        case "pbt":
            return [first * number for number in range(1, math.ceil(round(amount / first, 9)))]
        case "median" | "none":
            return []


def rungs(first: float, factor: float, amount: float) -> list[float]:
    """The budgets below `amount` at which trials are compared: first, first × factor, first × factor² …"""
    count = math.ceil(round(math.log(amount / first, factor), 9))
    return [first * factor**exponent for exponent in range(count)]
