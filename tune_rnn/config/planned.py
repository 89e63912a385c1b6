"""How many trials a study has, as far as its configuration says."""

from __future__ import annotations

from tune_rnn.schema import Budget, Search
from tune_rnn.space import Space


def planned_trials(budget: Budget, search: Search, space: Space) -> int | None:
    """How many trials the search has; None where only time ends it."""
    limits = budget.trials, grid_points(search, space)
    return min((limit for limit in limits if limit is not None), default=None)


def grid_points(search: Search, space: Space) -> int | None:
    """How many proposals a grid has, its starting points and all seeds included; None for another search.

    What searches nothing is a grid of one point.
    """
    if search.algorithm != "grid" and not space.is_empty:
        return None
    return len(search.start) + space.grid_size() * search.seeds
