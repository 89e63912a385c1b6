"""What values an embedding should begin with: standard normal, or uniform in ±0.1 as in models of words.

    python benchmarks/embedding.py [--seeds 3] [--words FOLDER]

Protocol: LSTMs with an embedding of 32 and output dropout 0.2 on Python's help topics as characters, batch 32, window
64; with `--words`, an embedding of 128 on the words of FOLDER/train.txt and FOLDER/validation.txt, batch 20, window 35.
Shown is the validation loss in nats after the first and the last epoch (two; of words three), mean over seeds (lowest
to highest).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any

import hardware

import tune_rnn
from tune_rnn import model
from tune_rnn.data import load_corpus
from tune_rnn.precision import prepare_process
from tune_rnn.report import TrialBudget
from tune_rnn.training import Training, TrainingData

BEGINNINGS = {"normal": 10**9, "±0.1": 0}
"""`model.FEW_SYMBOLS` for each."""

CHARACTERS: dict[str, dict[str, Any]] = {
    "128, Adam 2e-3": {"optimizer": "adam", "learning_rate": 2e-3},
    "128, Adam 1e-2": {"optimizer": "adam", "learning_rate": 1e-2},
    "128, SGD 5": {"optimizer": "sgd", "learning_rate": 5.0},
    "2 × 128, Adam 5e-3": {"optimizer": "adam", "learning_rate": 5e-3, "layers": 2},
}
WORDS: dict[str, dict[str, Any]] = {
    "words, 128, Adam 2e-3": {"optimizer": "adam", "learning_rate": 2e-3},
    "words, 128, SGD 20": {"optimizer": "sgd", "learning_rate": 20.0},
    "words, tied 128, Adam 2e-3": {"optimizer": "adam", "learning_rate": 2e-3, "tied": True},
}


def experiment(case: dict[str, Any], words: Path | None) -> tune_rnn.Experiment:
    files = {part: str(words / f"{part}.txt") for part in ("train", "validation")} if words else None
    return tune_rnn.Experiment(
        name="embedding",
        task={"kind": "word_lm", "files": files} if words else {"corpus": "pydoc"},
        model={
            "embedding_size": 128 if words else 32,
            "hidden_size": 128,
            "layers": case.get("layers", 1),
            "tied": case.get("tied", False),
        },
        regularizers={"output_dropout": 0.2, "clip_norm": 0.25 if case["optimizer"] == "sgd" else 1.0},
        training={
            "optimizer": case["optimizer"],
            "learning_rate": case["learning_rate"],
            "batch_size": 20 if words else 32,
            "sequence_length": 35 if words else 64,
            "precision": "fp32",
        },
        budget={"epochs": 3 if words else 2, "trials": 1},
    )


def losses(made: tune_rnn.Experiment, few_symbols: int, seed: int) -> list[float]:
    model.FEW_SYMBOLS = few_symbols
    return losses_of(made, seed)


def losses_of(made: tune_rnn.Experiment, seed: int) -> list[float]:
    """Validation loss after each epoch of an experiment without a search."""
    corpus = load_corpus(made.task)
    data = TrainingData(corpus.vocabulary.size, corpus.train, corpus.validation, made.task.documents)
    training = Training(made.trial_config({}), data, TrialBudget.of(made), seed)
    return [report.validation_loss or float("nan") for report in training.run()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--words", type=Path)
    options = parser.parse_args()
    prepare_process(1)
    print(hardware.head("cpu"))
    print("| | beginning | after one epoch | after all |\n|---|---|---|---|")
    cases = [(name, case, None) for name, case in CHARACTERS.items()]
    cases += [(name, case, options.words) for name, case in WORDS.items()] if options.words else []
    for (name, case, words), (beginning, few) in itertools.product(cases, BEGINNINGS.items()):
        curves = [losses(experiment(case, words), few, seed) for seed in range(options.seeds)]
        cells = [[curve[at] for curve in curves] for at in (0, -1)]
        spread = [f"{statistics.fmean(cell):.3f} ({min(cell):.3f} to {max(cell):.3f})" for cell in cells]
        print(f"| {name} | {beginning} | {' | '.join(spread)} |", flush=True)


if __name__ == "__main__":
    main()
