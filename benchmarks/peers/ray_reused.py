"""Our own training under Ray's HyperOptSearch and ASHAScheduler, its actors reused and its trials started together.

    python benchmarks/peers/ray_reused.py FOLDER LOG SEED SECONDS EPOCHS

What it lacks of tune_rnn is the search, the scheduler, how a study starts, and how results and checkpoints travel.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from same_answer import experiment

from peers.ray_settings import tune_config
from peers.tutorial import log
from tune_rnn.checkpoint import save
from tune_rnn.data import load_corpus
from tune_rnn.precision import prepare_process, resolve_precision
from tune_rnn.report import TrialBudget
from tune_rnn.training import Training, TrainingData

FOLDER, LOG, SEED, SECONDS, EPOCHS = sys.argv[1:]


class Trial(tune.Trainable):
    """A training of ours; a step is an epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        prepare_process(1)
        precision = resolve_precision("auto", torch.device("cpu"), ["lstm"])
        study = experiment(config["folder"], config["epochs"], config["seed"])
        self.study = study.replace("training.precision", precision)
        corpus = load_corpus(self.study.task)
        self.data = TrainingData(corpus.vocabulary.size, corpus.train, corpus.validation, self.study.task.documents)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.log = new_config["log"]
        assignment = {key: value for key, value in new_config.items() if "." in key}
        trial, budget = self.study.trial_config(assignment), TrialBudget.of(self.study)
        self.training = Training(trial, self.data, budget, new_config["seed"])
        self.reports = self.training.run()
        return True

    def step(self) -> dict[str, Any]:
        report = next(self.reports)
        if report.validation_loss is not None:
            log(self.log, report.validation_loss)
        return {"loss": report.score, "done": bool(report.finished)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save(self.training, Path(checkpoint_dir))


def main() -> None:
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "2"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    space = {
        "model.hidden_size": tune.choice([64, 128, 256]),
        "training.batch_size": tune.choice([16, 32, 64]),
        "regularizers.output_dropout": tune.uniform(0, 0.5),
        "training.learning_rate": tune.loguniform(1e-4, 1e-1),
        "folder": FOLDER,
        "log": LOG,
        "seed": int(SEED),
        "epochs": int(EPOCHS),
    }
    tuner = tune.Tuner(
        tune.with_resources(Trial, {"cpu": 1}),
        param_space=space,
        tune_config=tune_config(int(SEED), float(SECONDS), int(EPOCHS), reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=FOLDER, checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2)
        ),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
