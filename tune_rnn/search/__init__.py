"""Searchers by name: what to try next, given what was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tune_rnn.config.resolution import check_branches
from tune_rnn.schema import Search
from tune_rnn.search.designs import Grid, Random, Sobol
from tune_rnn.search.evidence import Evidence
from tune_rnn.search.forest import Forest
from tune_rnn.search.observed import Observed
from tune_rnn.search.packages import check_packages
from tune_rnn.search.proposals import Proposal, trial_seed
from tune_rnn.search.searcher import Algorithm, Searcher
from tune_rnn.search.surrogates import GaussianProcess, OptunaTPE
from tune_rnn.search.tpe import HyperOpt
from tune_rnn.space import Assignment, Space

__all__ = [
    "Algorithm",
    "Assignment",
    "Evidence",
    "Observed",
    "Proposal",
    "Searcher",
    "build_searcher",
    "check_search",
    "trial_seed",
]

ALGORITHMS: dict[str, Callable[[Space, int], Algorithm]] = {
    "random": Random,
    "sobol": Sobol,
    "hyperopt": HyperOpt,
    "optuna": OptunaTPE,
    "gp": GaussianProcess,
    "forest": Forest,
}


def build_searcher(search: Search, space: Space, earlier: Iterable[Observed] = ()) -> Searcher:
    """The searcher that the section `search` of an experiment describes; `earlier`: what `warm_start` has told.

    Raises InputError as `check_search` does.
    """
    check_search(search, space)
    if search.algorithm == "grid" or space.is_empty:
        return Searcher(space, Grid(space, search.seed, search.seeds), search.seed, search.start)
    return Searcher(space, ALGORITHMS[search.algorithm](space, search.seed), search.seed, search.start, earlier)


def check_search(search: Search, space: Space) -> None:
    """Raise InputError where an algorithm cannot search the space, or needs a package that is not installed."""
    check_branches(search.algorithm, space)
    if not space.is_empty:
        check_packages(search.algorithm)
