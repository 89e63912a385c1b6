"""A run's best model by nanoGPT's protocol, beside the loss by ours.

    python benchmarks/nanogpt_protocol.py RUN [RUN …] [--batches 200]

Protocol: the run's validation split (the last 10 % of the characters with `task.split: [0.9, 0.1, 0]`), in nats per
character. Ours reads it once from beginning to end and carries the state. nanoGPT (`estimate_loss` in its train.py,
with the sizes of its train_shakespeare_char.py) takes the mean over 200 batches of 64 windows of 256 characters that
begin anywhere; a window knows nothing of what stands before it, so its state begins with zeros here. They are drawn
with seed 0, and "error" is the standard error of the mean over batches.
"""

from __future__ import annotations

import argparse
import math
import statistics

import numpy as np

import tune_rnn
from tune_rnn.data import Split, load_corpus
from tune_rnn.precision import prepare_process

WINDOW, BATCH = 256, 64


def windows(split: Split, count: int, generator: np.random.Generator) -> Split:
    """`count` windows, each with its last target, as documents of their own: no state comes from one into the next."""
    start_W1 = generator.integers(len(split) - WINDOW, size=(count, 1))
    tokens = split.tokens[start_W1 + np.arange(WINDOW + 1)]
    return Split(tokens.ravel(), np.arange(count, dtype=np.int64) * (WINDOW + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--batches", type=int, default=200)
    options = parser.parse_args()
    print("| run | state carried | random windows of 256 characters | error |\n|---|---|---|---|")
    for run in options.runs:
        experiment, trained = tune_rnn.Experiment.load(f"{run}/experiment.yaml"), tune_rnn.load_model(run)
        prepare_process(trained.metadata["threads"])
        split = load_corpus(experiment.task, beside=experiment.beside).validation
        generator = np.random.default_rng(0)
        losses = [trained.evaluate(windows(split, BATCH, generator)) for _ in range(options.batches)]
        error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
        cells = [trained.evaluate(split, experiment.task.documents), statistics.fmean(losses), error]
        print(f"| {run} | {' | '.join(f'{cell:.4f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
