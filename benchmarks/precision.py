"""Whether a shorter number format costs validation loss: the same trainings in each, with several seeds.

    TUNE_RNN_DATA=data python benchmarks/precision.py [--device cuda:0] [--seeds 4] [--precisions fp32 bf16] [--small]

`data` has the folders tinyshakespeare and ptb_char.

Protocol: an LSTM of two layers of 256 units, batch 64, window 64, dropout 0.2 at input and output, clipping at norm 1,
AdamW at 4e-3 with a cosine; tinyshakespeare for eight epochs, ptb-char for two; with `--small` one layer of 128 units,
and a quarter of the epochs. A cell is the mean of the best
validation loss over seeds, in nats, with its standard deviation; "difference" is the mean difference to fp32 with the
same seed, with its standard error; and the median time of a training.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import hardware

import tune_rnn
from tune_rnn.data import load_corpus
from tune_rnn.precision import prepare_process
from tune_rnn.report import TrialBudget
from tune_rnn.training import Training, TrainingData

EPOCHS = {"tinyshakespeare": 8.0, "ptb-char": 2.0}


def train(name: str, precision: str, seed: int, device: str, small: bool) -> tuple[float, float]:
    """The best validation loss of one training, and how many seconds it took."""
    hidden, layers, epochs = (128, 1, EPOCHS[name] / 4) if small else (256, 2, EPOCHS[name])
    experiment = tune_rnn.Experiment(
        name=name,
        task={"kind": "char_lm", "corpus": name},
        model={"cell": "lstm", "embedding_size": 64, "hidden_size": hidden, "layers": layers},
        regularizers={"input_dropout": 0.2, "output_dropout": 0.2, "clip_norm": 1.0, "weight_decay": 0.01},
        training={
            "optimizer": "adamw",
            "learning_rate": 4e-3,
            "schedule": "cosine",
            "batch_size": 64,
            "sequence_length": 64,
            "precision": precision,
        },
        budget={"epochs": epochs, "trials": 1},
    )
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    data = TrainingData(corpus.vocabulary.size, corpus.train, corpus.validation, experiment.task.documents)
    started = time.perf_counter()
    training = Training(experiment.trial_config({}), data, TrialBudget("epochs", (epochs / 2, epochs)), seed, device)
    for _ in training.run():
        pass
    return training.best_loss, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    prepare_process(1)
    print(hardware.head(options.device, "number formats as below"))
    print("| data | precision | validation loss | difference | seconds |\n|---|---|---|---|---|")
    for name in EPOCHS:
        exact: list[float] = []
        for precision in options.precisions:
            runs = [train(name, precision, seed, options.device, options.small) for seed in range(options.seeds)]
            losses, times = zip(*runs, strict=True)
            exact = exact or list(losses)
            differences = [loss - other for loss, other in zip(losses, exact, strict=True)]
            error = statistics.stdev(differences) / math.sqrt(len(differences))
            cells = f"{statistics.fmean(losses):.4f} ± {statistics.stdev(losses):.4f}"
            difference = f"{statistics.fmean(differences):+.4f} ± {error:.4f}"
            print(f"| {name} | {precision} | {cells} | {difference} | {statistics.median(times):.1f} |", flush=True)


if __name__ == "__main__":
    main()
