"""Ray Tune as its tutorials put it together: a function, HyperOptSearch, ASHAScheduler, a checkpoint each epoch.

    python benchmarks/peers/ray_tutorial.py FOLDER LOG SEED SECONDS EPOCHS

Ray 2.60's documentation has this way to save a checkpoint.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from peers.ray_settings import tune_config
from peers.tutorial import Study, log

FOLDER, LOG, SEED, SECONDS, EPOCHS = sys.argv[1:]


def train(config: dict[str, Any]) -> None:
    study = Study(config, config["folder"])
    for _ in range(config["epochs"]):
        loss = study.epoch()
        log(config["log"], loss)
        with tempfile.TemporaryDirectory() as directory:
            torch.save((study.model.state_dict(), study.optimizer.state_dict()), Path(directory) / "checkpoint.pt")
            tune.report({"loss": loss}, checkpoint=tune.Checkpoint.from_directory(directory))


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    space = {
        "hidden_size": tune.choice([64, 128, 256]),
        "batch_size": tune.choice([16, 32, 64]),
        "dropout": tune.uniform(0, 0.5),
        "learning_rate": tune.loguniform(1e-4, 1e-1),
        "folder": FOLDER,
        "log": LOG,
        "epochs": int(EPOCHS),
    }
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space=space,
        tune_config=tune_config(int(SEED), float(SECONDS), int(EPOCHS)),
        run_config=tune.RunConfig(storage_path=FOLDER),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
