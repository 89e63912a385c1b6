"""Optuna as its documentation puts it together: TPE, the median pruner, two processes at one journal.

python benchmarks/peers/optuna_tutorial.py FOLDER LOG SEED SECONDS EPOCHS
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from peers.tutorial import Study, log

FOLDER, LOG, SEED, SECONDS, EPOCHS = sys.argv[1:]


def objective(trial: optuna.Trial) -> float:
    config = {
        "hidden_size": trial.suggest_categorical("hidden_size", [64, 128, 256]),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "dropout": trial.suggest_float("dropout", 0, 0.5),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    }
    study, loss = Study(config, FOLDER), float("nan")
    for epoch in range(int(EPOCHS)):
        loss = study.epoch()
        log(LOG, loss)
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


def work(process: int) -> None:
    torch.set_num_threads(1)
    study = optuna.create_study(
        study_name="study",
        storage=JournalStorage(JournalFileBackend(str(Path(FOLDER) / "journal.log"))),
        sampler=optuna.samplers.TPESampler(seed=2 * int(SEED) + process),
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )
    study.optimize(objective, timeout=float(SECONDS))


if __name__ == "__main__":
    processes = [multiprocessing.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
