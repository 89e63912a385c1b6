"""What part of a study's wall time its slots train, and how soon the first step comes after the least that is needed.

    python benchmarks/useful.py [--minutes 1 5] [--pairs 5] [--least 0]

Protocol: HyperOpt with ASHA on the characters of Python's help topics, two slots of one processor, no final stage,
ended by `budget.hours`; a whole trial takes about four seconds in the study of one minute and about twenty in longer
ones, and reports eight times, as validation on so short a text would else take half of it. The useful fraction is
`summary.json`'s: seconds of training steps and validation over slots × wall time, from the command's first instruction
until the summary is written, before Ray ends. Beside it the processor time of the machine over slots × wall time, for
the whole command. The floor is a fresh process that does `ray.init`, starts two actors and has both import torch; shown
is by how many seconds the study's first training step comes later, from the start of either process. Each in processes
of their own, floor and study in turns, `--pairs` times: medians (lowest to highest). With `--least` the exit status is
1 where the useful fraction is less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hardware
import psutil

FLOOR = """
import ray, time
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
@ray.remote(num_cpus=1)
class Slot:
    def ready(self):
        import torch
        return time.time()
slots = [Slot.remote() for _ in range(2)]
print(max(ray.get([slot.ready.remote() for slot in slots])))
"""
STUDY = """
name: useful
task: {{kind: char_lm, corpus: pydoc}}
model: {{cell: lstm, embedding_size: 32, hidden_size: 128, layers: 1}}
regularizers: {{input_dropout: {{uniform: [0, 0.5]}}, clip_norm: 1.0}}
training:
  learning_rate: {{log_uniform: [1e-3, 3e-2]}}
  batch_size: 32
  sequence_length: 64
  precision: fp32
  report_every: {report_every}
scheduler: {{first_rung: {first_rung}}}
budget: {{tokens: {tokens}, hours: {hours}}}
final: {{top_k: 0}}
resources: {{use: {{cpu: 2}}}}
"""
TOKENS_PER_S = 100_000
"""Of the model on a processor of 2026: what makes a trial about so long; the figures do not depend on it."""

TUNE_RNN = [sys.executable, "-m", "tune_rnn"]


def floor_s() -> float:
    """Seconds until two actors have imported torch."""
    started = time.time()
    done = subprocess.run([sys.executable, "-c", FLOOR], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) - started


def study(minutes: float) -> tuple[float, float, float]:
    """Useful fraction, processor time over slots × wall time, and seconds until the first training step."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = TOKENS_PER_S * (3 if minutes <= 1 else 15)
        file = Path(folder) / "study.yaml"
        often = {"report_every": tokens // 5, "first_rung": tokens // 20}
        file.write_text(STUDY.format(tokens=tokens, hours=minutes / 60, **often))
        started, before = time.time(), _processor_s()
        subprocess.run([*TUNE_RNN, "run", str(file), f"storage={folder}"], check=True, capture_output=True)
        processor_s, command_s = _processor_s() - before, time.time() - started
        run = Path(folder) / "useful"
        spent = json.loads((run / "summary.json").read_text())["time"]
        events = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
        reports = [event for event in events if event["event"] == "report"]
        first = min(event["time"] - event["report"]["training_s"] for event in reports)
        return spent["useful_fraction"], processor_s / (spent["slots"] * command_s), first - started


def _processor_s() -> float:
    """Of this machine's processors, all processes together: run this with nothing else at work."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.0)
    options = parser.parse_args()
    fractions = {}
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    print(hardware.head("cpu"))
    print("| minutes | useful fraction | processor time | floor, s | first step after it, s |\n|---|---|---|---|---|")
    for minutes in options.minutes:
        rows = [(floor_s(), *study(minutes)) for _ in range(options.pairs)]
        floors, useful, processor, first = (list(column) for column in zip(*rows, strict=True))
        fractions[f"useful fraction of {minutes:g} minutes"] = statistics.median(useful)
        later = [one - floor for one, floor in zip(first, floors, strict=True)]
        cells = " | ".join(map(spread, (useful, processor, floors, later)))
        print(f"| {minutes:g} | {cells} |", flush=True)
    hardware.require(fractions, options.least)


if __name__ == "__main__":
    main()
