"""Files from strangers: what they name, they do not get, and what they hide is not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import tiny
import torch

from tune_rnn import checkpoint
from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment
from tune_rnn.exported import load_model


class Payload:
    """What unpickles to a call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_hides_a_call_is_refused(tmp_path: Path, zipped: bool) -> None:
    mark, file = tmp_path / "broken-in", tmp_path / "checkpoint.pt"
    if zipped:
        torch.save({"parameters": Payload(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Payload(mark), protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(tiny.training(), tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.best_parameters(file)
    assert not mark.exists()


def test_an_exported_model_is_no_pickle(tmp_path: Path) -> None:
    mark = tmp_path / "broken-in"
    for name in ("config.json", "vocabulary.json", "model.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(mark), protocol=2))
    with pytest.raises(InputError, match="is not a complete model directory"):
        load_model(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.mkdir [{mark}]",
        "name: !!python/object/new:os.mkdir [{mark}]",
        "name: ../escaped",
        "name: /tmp/escaped",
        "name: ..",
        "name: a/b",
        "name: 'a\\0b'",
    ],
)
def test_an_experiment_file_neither_runs_nor_escapes(tmp_path: Path, text: str) -> None:
    mark, file = tmp_path / "broken-in", tmp_path / "study.yaml"
    file.write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(InputError):
        Experiment.load(file)
    assert not mark.exists()
