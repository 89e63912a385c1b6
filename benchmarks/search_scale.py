"""What searcher, scheduler and bookkeeping cost where a thousand workers report to one process.

    python benchmarks/search_scale.py [--workers 1000] [--trials 20000] [--search hyperopt] [--scheduler asha]

Protocol: one simulated study (`tune_rnn.simulate`) on a member of the synthetic family "noisy", without training and
without Ray; its time ends with the last of `--trials` trials. Counted is the processor time of this process, on one
core, from the study's beginning, HyperOpt's import included, to its end, less that of the black box, which works out
the learning curves. The limit is a second for each 50 results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import hardware

import tune_rnn
from tune_rnn.simulation import Synthetic

RESULTS_PER_S = 50
"""At least so many results are to be dealt with in a second."""


class Timed(Synthetic):
    """A black box that knows how much processor time its curves took."""

    seconds = 0.0

    def curve(self, config: Mapping[str, Any]) -> list[float]:
        began = time.process_time()
        curve = super().curve(config)
        self.seconds += time.process_time() - began
        return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--search", default="hyperopt")
    parser.add_argument("--scheduler", default="asha")
    options = parser.parse_args()
    box = Timed("noisy", 0)
    began = time.process_time()
    history = tune_rnn.simulate(
        options.search, options.scheduler, box, options.workers, budget=2 * options.trials, trials=options.trials
    )
    seconds = time.process_time() - began - box.seconds
    results = len(history.events)
    print(hardware.head("cpu"))
    print("| search | scheduler | workers | trials | results | s of processor time | limit, s | results a second |")
    print("|---|---|---|---|---|---|---|---|")
    study = f"{options.search} | {options.scheduler} | {options.workers:,} | {len(history.trials):,}"
    rate = results / max(seconds, 1e-9)
    print(f"| {study} | {results:,} | {seconds:,.1f} | {results / RESULTS_PER_S:,.0f} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
