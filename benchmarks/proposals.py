"""What a proposal costs: processor time of each search that learns, by the number of trials that it knows.

    python benchmarks/proposals.py [--trials 30 150 1000] [--repeats 9]

Protocol: the space of the black box `noisy`, seven hyperparameters; trials drawn at random, a report each, some of
which diverge, and eight more that have only begun. A first proposal, which imports, is not counted; the others differ
by their place alone, and a cost is the median of theirs.
"""

from __future__ import annotations

import argparse
import statistics
import time

import hardware
import numpy as np

from tune_rnn.schema import Search
from tune_rnn.search import Searcher, build_searcher
from tune_rnn.simulation import Synthetic
from tune_rnn.space import Space

SEARCHES = ("hyperopt", "optuna", "forest", "gp")
BEGUN = 8


def searcher_that_knows(search: str, trials: int) -> Searcher:
    """A searcher told of so many trials, the same ones for all searches."""
    box, generator = Synthetic("noisy"), np.random.default_rng(0)
    space = Space(box.space, {})
    searcher = build_searcher(Search.model_validate({"algorithm": search}), space)
    for number in range(trials + BEGUN):
        assignment = space.sample(generator)
        searcher.began(number, assignment)
        if number < trials:
            searcher.reported(number, 1.0, box.curve(assignment)[-1])
            searcher.ended(number)
    return searcher


def cost_s(search: str, trials: int, repeats: int) -> float:
    """Processor seconds of a proposal, with that many trials known; the median."""
    searcher, costs = searcher_that_knows(search, trials), []
    for repeat in range(repeats + 1):
        begun = time.process_time()
        searcher.propose(trials + BEGUN + repeat)
        costs.append(time.process_time() - begun)
    return statistics.median(costs[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", nargs="+", default=SEARCHES, choices=SEARCHES)
    parser.add_argument("--trials", nargs="+", type=int, default=[30, 150, 1000])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(hardware.head("cpu"))
    print("| search |" + "".join(f" {trials:,} trials |" for trials in options.trials))
    print("|---|" + "---|" * len(options.trials))
    for search in options.searches:
        costs = [cost_s(search, trials, options.repeats) for trials in options.trials]
        print(f"| `{search}` |" + "".join(f" {cost:.3f} s |" for cost in costs), flush=True)


if __name__ == "__main__":
    main()
