"""In what order a text should be learnt: in streams whose state is carried on, or in windows in random order.

    python benchmarks/windows.py [--seeds 3] [--epochs 6] [--corpus tinyshakespeare …] [--words ptb-word]

Protocol: an LSTM of 256 units with an embedding of 32 and output dropout 0.2, Adam, batch 32, windows of 64, on
Python's help topics and other corpora of characters; with `--words`, 200 units with an embedding of 200, dropout 0.2
and 0.3, batch 20, windows of 35. The learning rate stays, or falls by a cosine. Validation carries the state through
the text for both. Shown is the validation loss in nats after a third of the epochs and the lowest one, mean over seeds
(lowest to highest), and how much lower it is in windows in random order, by pairs of the same seed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from typing import Any

import hardware
from embedding import losses_of

import tune_rnn
from tune_rnn.precision import prepare_process

ORDERS = ("streams", "random")
CHARACTERS: dict[str, Any] = {"learning_rate": 4e-3, "batch_size": 32, "sequence_length": 64}
WORDS: dict[str, Any] = {"learning_rate": 2e-3, "batch_size": 20, "sequence_length": 35}


def experiment(corpus: str, words: bool, schedule: str, order: str, epochs: int) -> tune_rnn.Experiment:
    training = (WORDS if words else CHARACTERS) | {"schedule": schedule, "windows": order, "precision": "fp32"}
    dropout = {"input_dropout": 0.2, "output_dropout": 0.3} if words else {"output_dropout": 0.2}
    return tune_rnn.Experiment(
        name="windows",
        task={"kind": "word_lm" if words else "char_lm", "corpus": corpus},
        model={"embedding_size": 200, "hidden_size": 200} if words else {"embedding_size": 32, "hidden_size": 256},
        regularizers={**dropout, "clip_norm": 1.0},
        training=training,
        budget={"epochs": epochs, "trials": 1},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--corpus", nargs="*", default=["pydoc"])
    parser.add_argument("--words", nargs="*", default=[])
    options = parser.parse_args()
    prepare_process(1)
    print(hardware.head("cpu"))
    early = max(0, options.epochs // 3 - 1)
    print(f"| corpus, rate | order | after epoch {early + 1} | lowest of {options.epochs} |\n|---|---|---|---|")
    corpora = [(name, False) for name in options.corpus] + [(name, True) for name in options.words]
    for (corpus, words), schedule in itertools.product(corpora, ("constant", "cosine")):
        curves = {
            order: [
                losses_of(experiment(corpus, words, schedule, order, options.epochs), seed)
                for seed in range(options.seeds)
            ]
            for order in ORDERS
        }
        found = {order: [[of[early] for of in curves[order]], [min(of) for of in curves[order]]] for order in ORDERS}
        for order, cells in found.items():
            print(f"| {corpus}, {schedule} | {order} | {' | '.join(map(_spread, cells))} |", flush=True)
        lower = [[one - other for one, other in zip(*pair, strict=True)] for pair in zip(*found.values(), strict=True)]
        print(f"| {corpus}, {schedule} | lower | {' | '.join(map(_spread, lower))} |", flush=True)


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
