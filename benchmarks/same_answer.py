"""How much sooner a study has the answer at which the scripts that people write end.

    python benchmarks/same_answer.py [--text FILE] [--results same_answer.jsonl] [--minutes 10] [--seeds 5] [--epochs 8]

Protocol: character-level LSTMs on Python's help topics or another text (the first 90 % train, the last 10 % validate),
the same space for all (hidden size, batch size, output dropout, learning rate), at most `--epochs` a trial, so that ten
minutes are some thirty whole trainings; two processes of one thread, one study after another on the same machine.
`ray_tutorial` and `optuna_tutorial` are what documentation leads to; `ray_reused` is our own training under Ray's
HyperOptSearch and ASHAScheduler (all in `benchmarks/peers/`). Each runs for `--minutes` from its process's start; its
answer is its lowest validation loss by then, in nats per symbol, state carried through the validation text for all of
them. tune_rnn, with its default search and scheduler and without final stage, runs until it has reached the lowest of
these answers, or as long. Shown: when each came to know its answer, when tune_rnn knew one as good, how many times
sooner that is than the one and than the other's end: medians (lowest to highest); an answer that tune_rnn did not reach
counts as reached at the end. What has been measured is kept in the results file: the command can be interrupted and
repeated.

All clip gradients and train on windows without a state, in an order shuffled for each epoch (neither is a default of
tune_rnn's). The scripts differ from tune_rnn in more than the search: it cuts the text elsewhere in each epoch, where
the tutorials' windows stay the same, and begins with orthogonal recurrent weights and a forget bias of 1, as
`ray_reused` does too; that has Tune's checkpoints and loggers and loads the text in each process; both of Ray's stop
trials at half (ASHA's factor in Ray's tutorial), tune_rnn at a third.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from pydoc_data.topics import topics

import hardware
import psutil

import tune_rnn
from tune_rnn import space

HERE = Path(__file__).resolve().parent
PEERS = ("ray_tutorial", "optuna_tutorial", "ray_reused")
OWN = "tune_rnn"

Curve = list[tuple[float, float]]
"""Seconds from a process's start, and a validation loss that was known then, lower than all before."""


def experiment(folder: str, epochs: int, seed: int, hours: float | None = None) -> tune_rnn.Experiment:
    """Ours, in the space of the others."""
    return tune_rnn.Experiment(
        name=OWN,
        task={"files": {part: f"{folder}/{part}.txt" for part in ("train", "validation")}},
        model={"embedding_size": 32, "hidden_size": space.choice(64, 128, 256)},
        regularizers={"output_dropout": space.uniform(0, 0.5), "clip_norm": 1.0},
        training={
            "learning_rate": space.log_uniform(1e-4, 1e-1),
            "batch_size": space.choice(16, 32, 64),
            "sequence_length": 64,
            "windows": "random",
        },
        budget={"epochs": epochs, "hours": hours or 1.0},
        search={"seed": seed},
        final={"top_k": 0},
        resources={"use": {"cpu": 2}},
        storage=folder,
    )


def split(text: Path | None, folder: Path) -> None:
    content = text.read_text("utf-8") if text else "\n".join(topics[topic] for topic in sorted(topics))
    cut = len(content) * 9 // 10
    (folder / "train.txt").write_text(content[:cut], "utf-8")
    (folder / "validation.txt").write_text(content[cut:], "utf-8")


def peer(name: str, text: Path | None, seed: int, seconds: float, epochs: int) -> Curve:
    """What a script has found by when."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        split(text, Path(folder))
        log = Path(folder) / "losses.jsonl"
        command = [
            sys.executable,
            str(HERE / "peers" / f"{name}.py"),
            folder,
            str(log),
            *map(str, (seed, seconds, epochs)),
        ]
        started = time.time()
        _run(command, folder, seconds, lambda: False)
        if not log.exists():
            raise SystemExit(f"{name} has found nothing")
        lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return improvements((line["time"] - started, line["loss"]) for line in lines if math.isfinite(line["loss"]))


def own(text: Path | None, seed: int, seconds: float, epochs: int, enough: float) -> Curve:
    """The same of a study, which ends as soon as it has what is enough."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        split(text, Path(folder))
        file = Path(folder) / "study.yaml"
        file.write_text(experiment(folder, epochs, seed, seconds / 3600).to_yaml(), "utf-8")
        started = time.time()

        def curve() -> Curve:
            journal = Path(folder) / OWN / "trials.jsonl"
            events = [json.loads(line) for line in journal.read_text("utf-8").splitlines()] if journal.exists() else []
            reports = [event for event in events if event["event"] == "report"]
            losses = [(event["time"] - started, event["report"]["validation_loss"]) for event in reports]
            return improvements((at, loss) for at, loss in losses if loss is not None)

        command = [sys.executable, "-m", "tune_rnn", "run", str(file)]
        _run(command, folder, seconds, lambda: any(loss <= enough for _, loss in curve()))
        return curve()


def improvements(losses: Iterable[tuple[float, float]]) -> Curve:
    curve: Curve = []
    for at, loss in losses:
        if not curve or loss < curve[-1][1]:
            curve.append((at, loss))
    return curve


def _run(command: list[str], folder: str, seconds: float, has_enough: Callable[[], bool]) -> None:
    """A process and all that it starts, until it ends, has enough, or has had its time and half a minute to end."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    messages, started = Path(folder) / "messages.txt", time.monotonic()
    with messages.open("wb") as file:
        process = psutil.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        enough = False
        while process.poll() is None and time.monotonic() - started < seconds + 30 and not enough:
            time.sleep(1)
            enough = has_enough()
        for each in [*process.children(recursive=True), process] if process.is_running() else []:
            with suppress(psutil.NoSuchProcess):
                each.kill()
                each.wait()
    if not enough and process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"{' '.join(command)} failed:\n{messages.read_text('utf-8', errors='replace')}")


def time_of(curve: Curve, loss: float, seconds: float) -> float | None:
    """When a loss as low as this was known; None for not by then."""
    return next((at for at, found in curve if found <= loss and at <= seconds), None)


def answer(curve: Curve, seconds: float) -> float:
    return min(loss for at, loss in curve if at <= seconds)


def measure(text: Path | None, seed: int, seconds: float, epochs: int) -> dict[str, Curve]:
    curves = {name: peer(name, text, seed, seconds, epochs) for name in PEERS}
    enough = min(answer(curve, seconds) for curve in curves.values())
    return curves | {OWN: own(text, seed, seconds, epochs, enough)}


def table(measured: list[dict[str, Curve]], seconds: float) -> str:
    rows = [
        "| | its answer, nats | known after, s | by tune_rnn after, s | times sooner | than its end | not reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in PEERS:
        answers = [answer(curves[name], seconds) for curves in measured]
        pairs = list(zip(measured, answers, strict=True))
        known = [time_of(curves[name], loss, seconds) or seconds for curves, loss in pairs]
        reached = [time_of(curves[OWN], loss, math.inf) for curves, loss in pairs]
        ours = [at or seconds for at in reached]
        sooner = [of / at for of, at in zip(known, ours, strict=True)]
        times = [_spread(known, 0), _spread(ours, 0), _spread(sooner, 1), _spread([seconds / at for at in ours], 1)]
        rows.append(" | ".join([f"| {name}", _spread(answers, 3), *times, f"{reached.count(None)} of {len(ours)} |"]))
    return "\n".join(rows)


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--results", type=Path, default=Path("same_answer.jsonl"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    name = options.text.name if options.text else f"help topics of Python {platform.python_version()}"
    protocol = {"text": name, "minutes": options.minutes, "epochs": options.epochs}
    lines = options.results.read_text("utf-8").splitlines() if options.results.exists() else []
    there = [line for line in map(json.loads, lines) if line["protocol"] == protocol]
    for seed in sorted({*range(options.seeds)} - {line["seed"] for line in there}):
        curves = measure(options.text, seed, 60 * options.minutes, options.epochs)
        there.append({"protocol": protocol, "seed": seed, "curves": curves})
        with options.results.open("a", encoding="utf-8") as results:
            results.write(json.dumps(there[-1]) + "\n")
    print(f"{hardware.head('cpu')}: {name}, {options.minutes:g} minutes, {len(there)} seeds")
    print(table([line["curves"] for line in there], 60 * options.minutes))


if __name__ == "__main__":
    main()
