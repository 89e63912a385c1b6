"""What each regulariser costs: time of a training step with it, relative to one with none, in the same run.

    python benchmarks/regularizer_cost.py [--rows 1 2 3 4] [--seconds 20] [--device cuda:0] [--only all]

Protocol: language models of four sizes on random symbols, one thread, fp32, Adam (SGD for NT-ASGD). Two trainings stand
side by side, one with and one without the regulariser; they take turns of a few steps in random order for `--seconds`
seconds, after a warm-up. A cost is the median over turns of the one's time over the other's, minus one, with the
quartiles. "nothing" compares two equal trainings, and so shows the error of the measurement.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import hardware
import numpy as np

from tune_rnn.data import Split
from tune_rnn.precision import prepare_process
from tune_rnn.report import TrialBudget
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData

TURN_S = 0.1
"""About how long each of the two goes on before it is the other's turn, a step at least."""

# vocabulary, embedding, hidden, layers, batch, window, largest cost of ALL in per cent
ROWS = {
    1: (65, 32, 128, 1, 32, 64, 25),
    2: (65, 64, 256, 2, 64, 64, 15),
    3: (65, 64, 512, 2, 64, 64, 15),
    4: (10_000, 200, 200, 2, 20, 35, 25),
}
ALL: dict[str, Any] = {
    "input_dropout": 0.2,
    "hidden_dropout": 0.2,
    "output_dropout": 0.2,
    "embedding_dropout": 0.1,
    "weight_drop": 0.3,
    "l1": 1e-7,
    "l2": 1e-7,
    "activation": 1.0,
    "temporal_activation": 1.0,
    "label_smoothing": 0.1,
    "weight_decay": 1e-3,
    "clip_norm": 0.25,
}
CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "all": ALL,
    **{name: {name: strength} for name, strength in ALL.items()},
    "locked_dropout": {"input_dropout": 0.2, "output_dropout": 0.2, "locked_dropout": False},
    "zoneout_hidden": {"zoneout_hidden": 0.1},
    "zoneout_cell": {"zoneout_cell": 0.1},
    "layer_norm: between": {"model": {"layer_norm": "between"}},
    "layer_norm: cell": {"model": {"layer_norm": "cell"}},
    "clip_value": {"clip_value": 0.1},
    "state_reset": {"state_reset": 0.1},
    "fraternal_dropout": {"fraternal_dropout": 0.1, "output_dropout": 0.2},
    "gradient_noise": {"gradient_noise": 1e-4},
    "max_norm": {"max_norm": 1.0},
    "ema": {"ema": 0.99},
    "swa": {"swa": 0.999},
    "nt_asgd": {"nt_asgd": 1},
}


def training(row: int, case: dict[str, Any], device: str, optimizer: str) -> Training:
    """A training of a row's model with a case's regularisers, whose average has begun if there is one."""
    regularizers = {key: value for key, value in case.items() if key != "model"}
    vocabulary, embedding, hidden, layers, batch, window, _ = ROWS[row]
    tokens = np.random.default_rng(0).integers(1, vocabulary, size=batch * window * 50, dtype=np.uint16)
    split = Split(tokens, np.zeros(1, dtype=np.int64))
    config = TrialConfig.model_validate(
        {
            "model": {"embedding_size": embedding, "hidden_size": hidden, "layers": layers, **case.get("model", {})},
            "regularizers": regularizers,
            "training": {"batch_size": batch, "sequence_length": window, "precision": "fp32", "optimizer": optimizer},
        }
    )
    data = TrainingData(vocabulary, split, split, "separate")
    one = Training(config, data, TrialBudget("epochs", (1000.0,)), seed=0, device=device)
    if {"ema", "swa", "nt_asgd"} & case.keys():
        one.averaging.first_step = 0
    return one


def seconds(one: Training, steps: int) -> float:
    """Time of a few steps."""
    started = time.perf_counter()
    for _ in range(steps):
        loss, _ = one.train_step()
    loss.item()  # waits for a GPU
    return time.perf_counter() - started


def cost(row: int, case: dict[str, Any], device: str, limit_s: float) -> tuple[float, float, float]:
    """Quartiles of the extra time of a step, in per cent."""
    optimizer = "sgd" if "nt_asgd" in case else "adam"
    with_it, without = (training(row, regularizers, device, optimizer) for regularizers in (case, {}))
    for one in (with_it, without):
        seconds(one, 1)
    steps = max(1, round(TURN_S / seconds(without, 1)))
    ratios: list[float] = []
    end = time.perf_counter() + limit_s
    while time.perf_counter() < end or len(ratios) < 5:
        if random.random() < 0.5:
            first = seconds(with_it, steps)
            ratios.append(first / seconds(without, steps))
        else:
            first = seconds(without, steps)
            ratios.append(seconds(with_it, steps) / first)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return tuple(100 * (ratio - 1) for ratio in (low, middle, high))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    prepare_process(1)
    print(hardware.head(options.device))
    print("| regulariser | " + " | ".join(f"row {row}" for row in options.rows) + " |")
    print("|---|" + "---|" * len(options.rows))
    for name in options.only:
        cells = []
        for row in options.rows:
            low, middle, high = cost(row, CASES[name], options.device, options.seconds)
            limit = f", limit {ROWS[row][-1]}" if name == "all" else ""
            cells.append(f"{middle:+.1f} % ({low:+.1f} to {high:+.1f}{limit})")
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
