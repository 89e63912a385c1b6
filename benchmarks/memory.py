"""What a large corpus costs a machine whose slots all train on it, and what a process of a slot needs itself.

    python benchmarks/memory.py [--bytes 1e9] [--workers 8] [--trials 200]

Protocol: the same study of small LSTMs on a text of a million and of `--bytes` characters, `--workers` trials at a time
on one machine. "corpus" is by how much more memory all the study's processes have together at the highest point of the
one with the large text, looked at twice a second: what is shared counts once (proportional set size), pages of files
that are mapped count as well. "own" is the most that one of the training processes has for itself (unique set size).
Then one process trains `--trials` models of different sizes one after another, as a slot does: its own memory after 20
and after all.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hardware
import numpy as np
import psutil
import ray

import tune_rnn
from tune_rnn import space
from tune_rnn.data import load_corpus
from tune_rnn.report import TrialBudget
from tune_rnn.results.directory import RunDirectory
from tune_rnn.study.trainable import shared_arrays
from tune_rnn.study.worker import start_worker

MB = 1e6
SMALL = 1_000_000


def write_text(file: Path, size: int) -> None:
    """Lines of lower-case letters."""
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz   \n", dtype=np.uint8)
    generator = np.random.default_rng(0)
    with file.open("wb") as text:
        for first in range(0, size, 1 << 24):
            text.write(letters[generator.integers(len(letters), size=min(1 << 24, size - first))].tobytes())


def experiment(folder: Path, corpus: Path, trials: int) -> tune_rnn.Experiment:
    """Short trials of small models; validation is a thousandth of the text, as it would be read for hours."""
    return tune_rnn.Experiment(
        name="memory",
        task={"corpus": str(corpus), "split": [0.998, 0.001, 0.001]},
        model={"embedding_size": 32, "hidden_size": space.choice(64, 128), "layers": space.int(1, 2)},
        training={"learning_rate": space.log_uniform(1e-3, 1e-2), "precision": "fp32", "report_every": 40_000},
        budget={"tokens": 40_000, "trials": trials},
        final={"top_k": 0},
        storage=str(folder),
    )


class Peak:
    """The most that a study's processes had together, and the most that one that trains had for itself, in bytes."""

    def __init__(self) -> None:
        self.together, self.own = 0, 0

    def look(self) -> None:
        this, together = psutil.Process(), 0
        for process in [this, *this.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_full_info()
                together += memory.pss
                if process.name().startswith("ray::"):
                    self.own = max(self.own, memory.uss)
        self.together = max(self.together, together)


@contextmanager
def watched() -> Iterator[Peak]:
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def study(size: int, workers: int) -> Peak:
    """What a study with so large a text takes at most."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TUNE_RNN_CACHE"] = str(folder / "cache")
        write_text(folder / "text.txt", size)
        made = experiment(folder, folder / "text.txt", 2 * workers)
        load_corpus(made.task)  # what is done once for a text is not the study's
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        with watched() as peak:
            tune_rnn.run(made)
        ray.shutdown()
        return peak


def growth(trials: int) -> tuple[int, int]:
    """A process's own memory after 20 trials and after all, in bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt", SMALL)
        made = experiment(folder, folder / "text.txt", trials)
        corpus, budget = load_corpus(made.task), TrialBudget.of(made)
        worker = start_worker(
            {
                "train": shared_arrays(corpus.train),
                "validation": shared_arrays(corpus.validation),
                "vocabulary_size": corpus.vocabulary.size,
                "documents": made.task.documents,
                "run": RunDirectory(folder),
                "holder": "",
                "budget": budget,
                "final_budget": budget,
                "threads": 1,
                "device": "cpu",
            }
        )
        early = 0
        for number in range(trials):
            config = made.trial_config(made.space.sample(np.random.default_rng(number)))
            trial = {
                "trial": json.dumps(config.to_dict()),
                "seed": number,
                "folder": str(folder / str(number)),
                "resume_from": None,
            }
            worker.take(trial)
            while not worker.step()[0].finished:
                pass
            if number == 19:
                early = psutil.Process().memory_full_info().uss
        return early, psutil.Process().memory_full_info().uss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    print(hardware.head("cpu"))
    early, late = growth(options.trials)
    print(f"one process: {early / MB:.0f} MB after 20 trials, {late / MB:.0f} MB after {options.trials}")
    small, large = (study(size, options.workers) for size in (SMALL, int(options.bytes)))
    corpus = (large.together - small.together) / MB
    print(f"{options.workers} workers, text of {options.bytes / MB:,.0f} MB: corpus {corpus:,.0f} MB in all")
    print(f"one of them, at most: {large.own / MB:.0f} MB of its own")


if __name__ == "__main__":
    main()
