"""A training step on a GPU: ours, kernel by kernel and captured in a CUDA graph, beside a bare loop around cuDNN.

    python benchmarks/gpu_step.py [--hidden 128 256 512 1150] [--batch 20 32 128] [--pairs 5] [--seconds 0.1]

Needs torch, numpy and what `tune_rnn.training` imports; no Ray.

Protocol: language models of 65 symbols, two LSTM layers, windows of 64. The bare loop is `nn.Embedding`, `nn.LSTM`,
`nn.Linear` and fused Adam, with a carried state, on a tensor that lies on the GPU: no data to cut, no masks, no
clipping, no metrics; in fp32 also captured in a CUDA graph, as ours is and few people's loops are. Ours is
`Training.train_step` with data from a corpus on the GPU, input and output dropout, clipping by norm, weight decay, and
the sums of loss and gradient norm. All variants of one model stand side by side and take turns of `--seconds` in random
order, `--pairs` turns each after a warm-up. A cell is the median time of a step in milliseconds; the last columns are
the medians over turns of the bare fp32 loop's time over that of ours.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import hardware
import numpy as np
import torch

from tune_rnn.data import Split
from tune_rnn.precision import prepare_process, use_tf32
from tune_rnn.report import TrialBudget
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData

VOCABULARY, EMBEDDING, LAYERS, WINDOW = 65, 64, 2, 64
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
OURS = ("fp32", "tf32", "fp16")
DEVICE = torch.device("cuda:0")
WARM_UP = 6

Step = Callable[[], Any]


def bare(hidden: int, batch: int, precision: str, *, captured: bool = False) -> Step:
    """A loop as short as it can be; fp16 scales its loss, as `torch.amp` recommends."""
    embedding = torch.nn.Embedding(VOCABULARY, EMBEDDING).to(DEVICE)
    lstm = torch.nn.LSTM(EMBEDDING, hidden, LAYERS).to(DEVICE)
    decoder = torch.nn.Linear(hidden, VOCABULARY).to(DEVICE)
    modules = torch.nn.ModuleList([embedding, lstm, decoder])
    optimizer = torch.optim.Adam(modules.parameters(), lr=1e-3, fused=True, capturable=captured)
    tokens = torch.randint(1, VOCABULARY, (WINDOW + 1, batch), device=DEVICE)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    state = [torch.zeros(LAYERS, batch, hidden, device=DEVICE) for _ in range(2)]

    def step() -> None:
        use_tf32(precision != "fp32")
        with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            outputs, after = lstm(embedding(tokens[:-1]), tuple(state))
            logits = decoder(outputs)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[1:].flatten())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if captured:
            torch._foreach_copy_(state, [part.detach() for part in after])
        else:
            state[:] = [part.detach().float() for part in after]

    return replayed(step) if captured else step


def replayed(step: Step) -> Step:
    """The step in a CUDA graph, as PyTorch's documentation captures a whole network; it changes tensors in place."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Step = graph.replay
    return replay


def ours(hidden: int, batch: int, precision: str, *, captured: bool) -> Step:
    """One step of a study's training."""
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, size=batch * WINDOW * 50 + 1, dtype=np.uint8)
    split = Split(tokens, np.zeros(1, dtype=np.int64))
    config = TrialConfig.model_validate(
        {
            "model": {"embedding_size": EMBEDDING, "hidden_size": hidden, "layers": LAYERS},
            "regularizers": {"input_dropout": 0.2, "output_dropout": 0.2, "clip_norm": 1.0, "weight_decay": 1e-3},
            "training": {"batch_size": batch, "sequence_length": WINDOW, "precision": precision},
        }
    )
    data = TrainingData(VOCABULARY, split, split, "separate")
    training = Training(config, data, TrialBudget("epochs", (1000.0,)), seed=0, device=str(DEVICE))
    if not captured:
        training.captured = None
    sums = torch.zeros(2, device=DEVICE)

    def step() -> None:
        use_tf32(precision != "fp32")
        sums.add_(torch.stack(training.train_step()))

    return step


def seconds(step: Step, steps: int) -> float:
    """Time of some steps."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


def measure(variants: dict[str, Step], pairs: int, turn_s: float) -> dict[str, list[float]]:
    """Seconds a step of each variant in each of `pairs` rounds."""
    counts = {}
    for name, step in variants.items():
        seconds(step, WARM_UP)
        counts[name] = max(3, round(turn_s / seconds(step, 3)))
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(pairs):
        for name in random.sample(list(variants), len(variants)):
            times[name].append(seconds(variants[name], counts[name]))
    return times


def variants_of(hidden: int, batch: int) -> dict[str, Step]:
    variants = {f"bare {precision}": bare(hidden, batch, precision) for precision in PRECISIONS}
    variants["bare captured fp32"] = bare(hidden, batch, "fp32", captured=True)
    variants["eager fp32"] = ours(hidden, batch, "fp32", captured=False)
    return variants | {f"captured {precision}": ours(hidden, batch, precision, captured=True) for precision in OURS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256, 512, 1150])
    parser.add_argument("--batch", type=int, nargs="+", default=[20, 32, 128])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1)
    options = parser.parse_args()
    prepare_process(1)
    print(hardware.head(str(DEVICE), "number formats as below"))
    names: list[str] = []
    ratios = [f"captured {precision}" for precision in OURS]
    for hidden in options.hidden:
        for batch in options.batch:
            times = measure(variants_of(hidden, batch), options.pairs, options.seconds)
            if not names:
                names = list(times)
                print("| units, batch | " + " | ".join([*names, *(f"× {name}" for name in ratios)]) + " |")
                print("|---|" + "---|" * (len(names) + len(ratios)))
            cells = [f"{1e3 * statistics.median(times[name]):.3f}" for name in names]
            for name in ratios:
                pairs = [base / own for base, own in zip(times["bare fp32"], times[name], strict=True)]
                cells.append(f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
            print(f"| {hidden}, {batch} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
