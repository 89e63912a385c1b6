"""GRU and plain RNN on a processor, one thread: ours, PyTorch's, and how far both are behind the LSTM per FLOP.

    python benchmarks/cells.py [--pairs 7] [--least 0]

Protocol: one layer, forward and backward pass over a window, fp32, in the shapes of the first layers of
`regularizer_cost.ROWS`. Ours is `tune_rnn.unrolled`, PyTorch's `nn.GRU` and `nn.RNN`, the LSTM `nn.LSTM` (oneDNN). They
take turns of two windows, `--pairs` turns each after a warm-up. Shown are medians in milliseconds, the ratio to
PyTorch's, and the time per FLOP over the LSTM's (a GRU has 3/4 of its FLOPs, an RNN 1/4), each turn by turn (lowest to
highest). With `--least` the exit status is 1 where PyTorch's time is less than so many of ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import hardware
import torch
from regularizer_cost import ROWS

from tune_rnn.precision import prepare_process
from tune_rnn.recurrence import GATES, fused

MODULES = {"gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def variants(cell: str, row: int) -> dict[str, Callable[[], None]]:
    """A forward and backward pass of each."""
    _, inputs, hidden, _, streams, steps, _ = ROWS[row]
    module, lstm = MODULES[cell](inputs, hidden), torch.nn.LSTM(inputs, hidden)
    names = ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
    weights = dict(zip(names, module.parameters(), strict=True))
    values = torch.randn(steps, streams, inputs, requires_grad=True)
    state, towards = torch.zeros(1, streams, hidden), torch.randn(steps, streams, hidden)
    return {
        "ours": lambda: fused(cell, weights, values, (state,))[0].backward(towards),
        "torch": lambda: module(values, state)[0].backward(towards),
        "lstm": lambda: lstm(values, (state, state))[0].backward(towards),
    }


def seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(2):
        run()
    return (time.perf_counter() - started) / 2


def with_range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--least", type=float, default=0.0)
    options = parser.parse_args()
    gains = {}
    prepare_process(1)
    print(hardware.head("cpu"))
    print("| cell, row | ours, ms | PyTorch, ms | LSTM, ms | PyTorch / ours | ours per FLOP | PyTorch per FLOP |")
    print("|---|---|---|---|---|---|---|")
    for cell in MODULES:
        for row in ROWS:
            runs = variants(cell, row)
            for run in runs.values():
                run()
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(options.pairs):
                for name, run in runs.items():
                    times[name].append(seconds(run))
            share = GATES[cell] / GATES["lstm"]
            medians = [f"{1e3 * statistics.median(times[name]):.1f}" for name in runs]
            gain = [theirs / own for own, theirs in zip(times["ours"], times["torch"], strict=True)]
            gains[f"{cell}, row {row}, PyTorch / ours"] = statistics.median(gain)
            behind = [
                with_range([one / lstm / share for one, lstm in zip(times[name], times["lstm"], strict=True)])
                for name in ("ours", "torch")
            ]
            print(f"| {cell}, {row} | {' | '.join([*medians, with_range(gain), *behind])} |", flush=True)
    hardware.require(gains, options.least)


if __name__ == "__main__":
    main()
