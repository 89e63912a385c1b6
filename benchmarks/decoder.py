"""How long a decoder takes, forward and backward: softmax whole, softmax in blocks as we train it, adaptive softmax.

    python benchmarks/decoder.py [--words 10000 50000 250000] [--repeats 7] [--device cuda:0]

Protocol: 700 positions of 200 units, targets by Zipf's law, one thread, fp32. The three take turns; medians of their
times, and each one's over that of the whole softmax. "logits" is what the whole softmax holds of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import hardware
import torch

from tune_rnn import decoder
from tune_rnn.precision import prepare_process

POSITIONS, UNITS = (35, 20), 200


def cases(words: int, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    """For each decoder its loss on the same outputs and targets."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(*POSITIONS, UNITS, generator=generator).to(device).requires_grad_()
    drawn = torch.multinomial(1 / torch.arange(1.0, words + 1), outputs[..., 0].numel(), True, generator=generator)
    targets = drawn.view(POSITIONS).to(device)
    parameters = {
        kind: {
            "embedding.weight": torch.empty(words, 0, device=device),
            **{
                name: (0.1 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
                for name, shape in decoder.shapes(kind, words, UNITS).items()
            },
        }
        for kind in ("softmax", "adaptive")
    }
    whole, adaptive = parameters["softmax"], parameters["adaptive"]
    return {
        "whole": lambda: decoder.of_logits(decoder.logits(whole, outputs), targets),
        "in blocks": lambda: decoder.cross_entropy(whole, outputs, targets)[1],
        "adaptive": lambda: decoder.cross_entropy(adaptive, outputs, targets)[1],
    }


def seconds(loss: Callable[[], torch.Tensor], device: str) -> float:
    started = time.perf_counter()
    loss().backward()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, nargs="+", default=[10_000, 50_000, 250_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    prepare_process(1)
    print(hardware.head(options.device))
    print("| words | logits | whole | in blocks | adaptive |\n|---|---|---|---|---|")
    for words in options.words:
        losses = cases(words, options.device)
        times: dict[str, list[float]] = {name: [] for name in losses}
        for repeat in range(options.repeats + 1):
            for name, loss in losses.items():
                taken = seconds(loss, options.device)
                times[name] += [taken] if repeat else []  # the first one warms up
        medians = {name: statistics.median(values) for name, values in times.items()}
        cells = [f"{1000 * value:,.0f} ms, {value / medians['whole']:.2f}" for value in medians.values()]
        size = POSITIONS[0] * POSITIONS[1] * words * 4 / 2**20
        print(f"| {words:,} | {size:,.0f} MiB | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
