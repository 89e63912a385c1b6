"""The exported best model on a split of the run's own data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tune_rnn.data import load_corpus
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.exported import load_model
from tune_rnn.kinds import KINDS
from tune_rnn.precision import prepare_process
from tune_rnn.results.directory import RunDirectory, open_run
from tune_rnn.results.mirror import Copy


def evaluate_run(path: str | Path, split: str = "validation") -> dict[str, Any]:
    """Loss of `best/` on a split: nats per predicted symbol, and bits per character or perplexity.

    Uses the device type, precision and threads of the search, so the validation loss is exactly the reported one.
    Each look at the test split is logged in the run. Raises InputError where there is no model, no such split, or
    the data is not what the model was trained on.
    """
    run = open_run(path)
    experiment = Experiment.of_run(run.experiment)
    if not run.best.exists():
        raise InputError(str(run.path), "has no best model yet", f"`tune-rnn resume {run.place}` goes on until it has.")
    trained = load_model(run.best)
    prepare_process(trained.metadata["threads"])
    if trained.metadata["device"] != "cpu":
        trained = load_model(run.best, device=_gpu_or_cpu())
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    if corpus.sha256 != trained.metadata["data"]["sha256"]:
        raise InputError(corpus.name, "is not the data that this model was trained on", "Restore the file.")
    data = {"train": corpus.train, "validation": corpus.validation}.get(split)
    if split == "test":
        data = corpus.test
    if data is None:
        raise InputError("--split", f"this corpus has no {split} split", "See task.split and task.files.", split)
    loss = trained.evaluate(data, experiment.task.documents)
    kind = KINDS[experiment.task.kind]
    result = {
        "kind": experiment.task.kind,
        "run": str(run.path),
        "split": split,
        "loss": loss,
        kind.metric: kind.of_loss(loss),
        "predictions": data.predictions,
    }
    if split == "test":
        _log(run, result)
    return result


def _log(run: RunDirectory, result: dict[str, Any]) -> None:
    """Add a look at the test split to the run's log; without that there is no look."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | result) + "\n"
    try:
        if run.url:
            copy, name = Copy(run.url), run.test_log.name
            copy.put(name, (copy.get(name) or b"") + line.encode())
        with open(run.test_log, "a", encoding="utf-8") as log:
            log.write(line)
    except OSError as error:
        where = run.url or str(run.test_log)
        rule = f"cannot be written ({error.strerror or error}), and each look at the test split is logged there"
        raise InputError(where, rule, "Make the run writable.") from error


def _gpu_or_cpu() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
