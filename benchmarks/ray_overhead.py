"""What a study costs beside training: time and the driver's memory for each trial, ours and Ray Tune's own.

    python benchmarks/ray_overhead.py [--trials 1000] [--pairs 3 --pair-trials 300] [--search random hyperopt]

Protocol: trials of three reports that compute nothing, two slots of one processor. Each study runs in a fresh process,
with a Ray of its own, in an empty directory; those that are compared take turns, in an order that is turned about from
round to round: `--pairs` rounds of `--pair-trials` trials, which show the spread, and one of `--trials`.

    plain      `tune.Tuner` with `reuse_actors=True` and its default loggers (CSV, JSON, TensorBoard), random sampling
    random,    `tune_rnn.run` as it is (journal, TensorBoard, a checkpoint of a small model at each report, the best
    hyperopt   model's export), without early stopping; but a process builds one model, before its first trial, and
               trains none

Time is counted from the first trial's start to the last one's end, whatever happens between, and given for each trial;
so is the driver's processor time, which other loads of the machine change less. "whole" is the time of the process,
with imports, Ray's start and end, and the final summary, for each trial. Memory is the growth of the driver's resident
set, by least squares over the trials from the 100th on. Ratios are medians over rounds of the one's over plain Tuner's
in the same round, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hardware
import numpy as np
import psutil
from ray import tune

import tune_rnn
from tune_rnn import space
from tune_rnn.report import Report
from tune_rnn.study import tuning
from tune_rnn.study.adapters import StudyCallback
from tune_rnn.study.trainable import TrialTrainable
from tune_rnn.study.worker import Worker
from tune_rnn.training import Training

PLAIN, OURS = "plain", ("random", "hyperopt")
SLOTS, REPORTS, FIRST_TRIALS = 2, 3, 100
LIMITS = {"time": 0.6, "kB": 50}
"""At most this part of plain Tuner's time, and this growth of the driver's memory for each trial."""


class Clock:
    """When trials ended, what processor time the process had used by then, and how large it was."""

    def __init__(self) -> None:
        self.process, self.began, self.cpu_began = psutil.Process(), 0.0, 0.0
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.bytes: list[int] = []

    def __reduce__(self) -> Any:
        return Clock, ()  # Ray pickles callbacks, and what they refer to; nobody reads it

    def start(self) -> None:
        """A trial starts."""
        if not self.began:
            self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """A trial has ended."""
        self.seconds.append(time.perf_counter() - self.began)
        self.cpu_seconds.append(time.process_time() - self.cpu_began)
        self.bytes.append(self.process.memory_info().rss)

    def figures(self) -> dict[str, float]:
        """Milliseconds for each trial; kB for each one after the first, as far as there are such."""
        trials, tail = len(self.bytes), min(FIRST_TRIALS, len(self.bytes) // 2)
        slope = np.polyfit(np.arange(trials)[tail:], np.array(self.bytes[tail:]), 1)[0]
        times = {"time": 1000 * self.seconds[-1] / trials, "cpu": 1000 * self.cpu_seconds[-1] / trials}
        return {**times, "kB": float(slope) / 1000}


CLOCK = Clock()


class CountedTrials(StudyCallback):
    """The study's callback, which tells the clock as well."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        CLOCK.start()
        super().on_trial_start(iteration, trials, trial, **info)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        super().on_trial_complete(iteration, trials, trial, **info)
        CLOCK.end()


class Untrained(Training):
    """A training whose reports are all there at once; its checkpoints hold the initial parameters."""

    def run(self) -> Iterator[Report]:
        for number in range(1, REPORTS + 1):
            self.reports = number
            yield report(number, self.config.training.learning_rate)


def report(number: int, learning_rate: float) -> Report:
    """A loss for the searcher to learn from: the lower, the nearer the learning rate is to 0.01."""
    loss = 2 + (np.log10(learning_rate) + 2) ** 2 / 10 + 1 / number
    return Report(
        spent=float(number),
        tokens=number * 1000,
        step=number,
        train_loss=loss,
        validation_loss=loss,
        best_loss=loss,
        learning_rate=learning_rate,
        gradient_norm=1.0,
        tokens_per_second=1000.0,
        training_s=0.0,
        improved=True,
        finished="budget" if number == REPORTS else "",
    )


class EmptyWorker(Worker):
    """Builds one model, before the first trial, and trains none."""

    untrained: Training | None = None

    def _build(self, begun: bytes | None) -> Training:
        if self.untrained is None:
            self.untrained = super()._build(begun)
            self.untrained.__class__ = Untrained
        config = self.untrained.config
        training = config.training.model_copy(update=json.loads(self.trial["trial"])["training"])
        self.untrained.config = config.model_copy(update={"training": training})
        return self.untrained


class EmptyTrials(TrialTrainable):
    """The study's trainable with such a worker."""

    def start_worker(self) -> Worker:
        worker = super().start_worker()
        worker.__class__ = EmptyWorker
        return worker


class PlainTrials(tune.Trainable):
    """The same three reports as plain Tune has them."""

    def setup(self, config: dict[str, Any]) -> None:
        self.learning_rate = config["learning_rate"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.learning_rate = new_config["learning_rate"]
        return True

    def step(self) -> dict[str, Any]:
        loss = report(self.iteration + 1, self.learning_rate).validation_loss
        return {"loss": loss, "done": self.iteration + 1 == REPORTS}


class CountedPlainTrials(tune.Callback):
    """Tells the clock of plain Tuner's trials."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        CLOCK.start()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        CLOCK.end()


def plain(trials: int, directory: Path) -> None:
    """Plain Tuner's study, with a space like ours."""
    import ray

    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)
    dropouts = {name: tune.uniform(0, 0.5) for name in ("input_dropout", "output_dropout", "weight_drop")}
    tune.Tuner(
        PlainTrials,
        param_space={"learning_rate": tune.loguniform(1e-4, 1e-1), **dropouts},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, metric="loss", mode="min"),
        run_config=tune.RunConfig(
            storage_path=str(directory),
            name=PLAIN,
            callbacks=[CountedPlainTrials()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # it has nothing to keep
        ),
    ).fit()
    ray.shutdown()


def ours(search: str, trials: int, directory: Path) -> None:
    """Our study, all of it but the training."""
    vars(tuning).update(TrialTrainable=EmptyTrials, StudyCallback=CountedTrials)
    corpus = directory / "corpus.txt"
    corpus.write_text("all work and no play makes jack a dull boy. " * 600)
    dropouts = {name: space.uniform(0, 0.5) for name in ("input_dropout", "output_dropout", "weight_drop")}
    experiment = tune_rnn.Experiment(
        name="ours",
        task={"corpus": str(corpus)},
        model={"embedding_size": 8, "hidden_size": 8},
        regularizers=dropouts,
        training={"learning_rate": space.log_uniform(1e-4, 1e-1), "precision": "fp32"},
        budget={"epochs": REPORTS, "trials": trials},
        search={"algorithm": search},
        scheduler={"algorithm": "none"},
        final={"top_k": 0},
        resources={"use": {"cpu": SLOTS}, "device": "cpu"},
        storage=directory,
    )
    tune_rnn.run(experiment)


def study(kind: str, trials: int) -> dict[str, float]:
    """One study in this process."""
    with tempfile.TemporaryDirectory() as directory:
        if kind == PLAIN:
            plain(trials, Path(directory))
        else:
            ours(kind, trials, Path(directory))
    assert len(CLOCK.seconds) == trials, "every trial has ended, and none has failed"
    return CLOCK.figures()


def in_a_fresh_process(kind: str, trials: int) -> dict[str, float]:
    """The figures of one study, with the time of its whole process in milliseconds for each trial."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [sys.executable, __file__, "--study", kind, "--trials", str(trials), "--figures", file.name]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = 1000 * (time.perf_counter() - began) / trials
        figures: dict[str, float] = json.load(file)
    return {**figures, "whole": whole}


def compare(kinds: Sequence[str], trials: int, rounds: int) -> None:
    """Rows of the table for studies of so many trials."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for place in range(rounds):
        for kind in kinds if place % 2 == 0 else reversed(kinds):
            found[kind].append(in_a_fresh_process(kind, trials))
    for kind in kinds:
        columns = ("time", "cpu", "whole", "kB")
        time_ms, cpu_ms, whole_ms, memory_kb = (_spread([one[key] for one in found[kind]]) for key in columns)
        ratios = [own["time"] / other["time"] for own, other in zip(found[kind], found[PLAIN], strict=True)]
        ratio = "" if kind == PLAIN else _spread(ratios, 2)
        figures = f"{time_ms} | {ratio} | {cpu_ms} | {whole_ms} | {memory_kb}"
        print(f"| {trials:,} | {rounds} | {kind} | {figures} |", flush=True)


def _spread(values: Sequence[float], digits: int = 0) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    shown = f"{middle:.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--pair-trials", type=int, default=300)
    parser.add_argument("--search", nargs="+", default=list(OURS), choices=OURS)
    parser.add_argument("--study", choices=(PLAIN, *OURS), help=argparse.SUPPRESS)
    parser.add_argument("--figures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.study:
        options.figures.write_text(json.dumps(study(options.study, options.trials)))
        return
    print(hardware.head("cpu"))
    print(f"limits: {LIMITS['time']} of plain Tuner's time, {LIMITS['kB']} kB a trial")
    print("| trials | rounds | study | ms a trial | of plain's | driver's CPU, ms | whole, ms | driver, kB |")
    print("|---|---|---|---|---|---|---|---|")
    for trials, rounds in ((options.pair_trials, options.pairs), (options.trials, 1)):
        if trials and rounds:
            compare((PLAIN, *options.search), trials, rounds)


if __name__ == "__main__":
    main()
