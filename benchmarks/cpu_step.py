"""Training on a processor, one thread: our whole loop, a bare PyTorch loop, and the loop people write from tutorials.

    python benchmarks/cpu_step.py [--rows 1 2 3 4] [--pairs 5] [--seconds 2] [--precision fp32] [--tutorials slices]

Protocol: LSTM language models of four sizes on random symbols (`regularizer_cost.ROWS`), fp32 unless stated. "bare" is
`nn.Embedding`, `nn.LSTM`, `nn.Linear`, cross-entropy and fused Adam on windows cut beforehand, with a carried state and
nothing else. "ours" is `Training.train_step` with its data, schedule, clipping by norm and sums of loss and gradient
norm, regularisers off. The others are loops as tutorials have them, with a module, clipping, Adam as it comes, and
`.item()` each step: "slices" has a `Dataset` that returns one window, cut from a tensor, and a `DataLoader`; "lists"
the same of a list of numbers, made a tensor for each window; "symbols" is "slices", but gives the module one symbol of
each window at a time. They take turns of `--seconds` in random order, `--pairs` turns each after a warm-up: shown are
medians of tokens/s, and of the ratios turn by turn (lowest to highest). With `--least` the exit status is 1 where ours
is slower than so many bare loops.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import hardware
import numpy as np
import torch
from peers.tutorial import LanguageModel, Windows
from regularizer_cost import ROWS
from torch.utils.data import DataLoader

from tune_rnn.data import Split
from tune_rnn.precision import autocast, prepare_process
from tune_rnn.report import TrialBudget
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData

CPU = torch.device("cpu")
WINDOWS = 50

Step = Callable[[], object]


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def bare(row: int, precision: str) -> Step:
    """A loop as short as it can be."""
    vocabulary, embedding, hidden, layers, batch, window, _ = ROWS[row]
    model = LanguageModel(vocabulary, embedding, hidden, layers, batch_first=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    text = torch.randint(1, vocabulary, (WINDOWS * window + 1, batch))
    numbers = itertools.cycle(range(WINDOWS))
    state = [torch.zeros(layers, batch, hidden) for _ in range(2)]

    def step() -> None:
        first = next(numbers) * window
        with autocast(CPU, precision):
            logits, after = model(text[first : first + window], tuple(state))
        loss_of(logits, text[first + 1 : first + window + 1]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state[:] = [part.detach().float() for part in after]

    return step


def ours(row: int, precision: str) -> Step:
    """A step of a study's training."""
    vocabulary, embedding, hidden, layers, batch, window, _ = ROWS[row]
    tokens = np.random.default_rng(0).integers(1, vocabulary, size=batch * window * WINDOWS + 1, dtype=np.uint16)
    split = Split(tokens, np.zeros(1, dtype=np.int64))
    config = TrialConfig.model_validate(
        {
            "model": {"embedding_size": embedding, "hidden_size": hidden, "layers": layers},
            "regularizers": {"clip_norm": 1.0},
            "training": {"batch_size": batch, "sequence_length": window, "precision": precision},
        }
    )
    data = TrainingData(vocabulary, split, split, "separate")
    training = Training(config, data, TrialBudget("epochs", (1000.0,)), seed=0)
    sums = torch.zeros(2)
    return lambda: sums.add_(torch.stack(training.train_step()))


def tutorial(kind: str, row: int, precision: str) -> Step:
    """What tutorials lead to; windows are independent."""
    vocabulary, embedding, hidden, layers, batch, window, _ = ROWS[row]
    model = LanguageModel(vocabulary, embedding, hidden, layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    text = torch.randint(1, vocabulary, (WINDOWS * window * batch + 1,))
    items = text.tolist() if kind == "lists" else text
    loader = DataLoader(Windows(items, window), batch, shuffle=True, drop_last=True)
    losses = list[float]()

    def forever() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    batches = forever()

    def loss_by_symbol(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        state, loss = None, torch.zeros(())
        for at in range(window):
            logits, state = model(inputs[:, at : at + 1], state)
            loss = loss + loss_of(logits, targets[:, at])
        return loss / window

    def step() -> None:
        inputs, targets = next(batches)
        optimizer.zero_grad()
        with autocast(CPU, precision):
            loss = loss_by_symbol(inputs, targets) if kind == "symbols" else loss_of(model(inputs)[0], targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    return step


def steps_per_second(step: Step, turn_s: float) -> float:
    """Steps in a turn over its time, at least three."""
    done, started = 0, time.perf_counter()
    while done < 3 or time.perf_counter() - started < turn_s:
        step()
        done += 1
    return done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--tutorials", nargs="*", default=["slices"], choices=["slices", "lists", "symbols"])
    parser.add_argument("--least", type=float, default=0.0)
    options = parser.parse_args()
    prepare_process(1)
    makes: dict[str, Callable[[int, str], Step]] = {"bare": bare, "ours": ours}
    makes |= {kind: partial(tutorial, kind) for kind in options.tutorials}
    others = [name for name in makes if name != "ours"]
    print(hardware.head("cpu", options.precision))
    print(" | ".join(["| row", *(f"{name}, tokens/s" for name in makes), *(f"ours / {name}" for name in others)]), "|")
    print("|---" * (1 + len(makes) + len(others)) + "|")
    to_bare = {}
    for row in options.rows:
        variants = {name: make(row, options.precision) for name, make in makes.items()}
        for step in variants.values():
            steps_per_second(step, options.seconds / 4)
        speeds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.pairs):
            for name in random.sample(list(variants), len(variants)):
                speeds[name].append(steps_per_second(variants[name], options.seconds))
        tokens = ROWS[row][4] * ROWS[row][5]
        cells = [f"{tokens * statistics.median(speeds[name]):,.0f}" for name in variants]
        for other in others:
            ratios = [own / theirs for own, theirs in zip(speeds["ours"], speeds[other], strict=True)]
            cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
            if other == "bare":
                to_bare[f"row {row}, ours / bare"] = statistics.median(ratios)
        print(f"| {row} | {' | '.join(cells)} |", flush=True)
    hardware.require(to_bare, options.least)


if __name__ == "__main__":
    main()
