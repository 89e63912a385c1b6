"""The text that ends a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tune_rnn import space
from tune_rnn.display import Progress
from tune_rnn.experiment import Experiment
from tune_rnn.results.closing import edge_warnings, final_report, tensorboard_command

ENDED = Progress("char-lm", 32, finished=3, stopped_early=9, diverged=1, failed=1, best_trial=7, elapsed_s=75.2)
ANYTHING = Experiment(name="any", budget={"epochs": 1}).allows


def test_edge_warnings_name_key_value_end_and_range() -> None:
    searched = {"training.learning_rate": space.log_uniform(1e-4, 0.01), "model.embedding_size": space.int(8, 800)}
    best = {"training.learning_rate": 0.00999, "model.embedding_size": 200}
    assert edge_warnings(best, searched, ANYTHING) == [
        "training.learning_rate = 0.00999 lies at the high end of its range (log_uniform: [0.0001, 0.01]): "
        "better values may lie beyond it"
    ]


@pytest.mark.parametrize(
    ("key", "distribution", "value", "warned"),
    [
        ("regularizers.input_dropout", space.uniform(0, 0.5), 0.001, False),  # below 0 is nothing
        ("regularizers.input_dropout", space.uniform(0.1, 0.5), 0.101, True),
        ("regularizers.input_dropout", space.uniform(0, 0.5), 0.499, True),
        ("regularizers.l1", space.log_uniform(1e-9, 1e-3), 1e-9, True),
        ("model.layers", space.int(1, 2), 1, False),
        ("model.layers", space.int(1, 2), 2, True),
        ("model.layers", space.int(1, 16), 16, False),
        ("model.hidden_size", space.choice(64, 128), 128, False),  # a choice has no ends
    ],
)
def test_warnings_are_for_ranges_that_could_be_wider(key: str, distribution: Any, value: float, warned: bool) -> None:
    assert bool(edge_warnings({key: value}, {key: distribution}, ANYTHING)) is warned


def test_final_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    report = final_report(
        ENDED,
        configuration={"model.cell": "lstm", "training.learning_rate": 0.00123456789, "model.layers": 2},
        searched={"training.learning_rate"},
        metrics={"loss": 1.5, "bits per character": 2.164},
        sample="To be\x1b[31m, or\n\tnot",
        warnings=["a warning"],
        places={"best model": Path("results/char-lm/best")},
        board=Path("results/char lm"),
    )
    assert (
        report
        == """\
char-lm: 14 of 32 trials done, 9 stopped early, 1 diverged, 1 failed, in 1:15 min

Best configuration (trial 7)
  training.learning_rate  0.00123457

Fixed (all else is the default)
  model.cell=lstm, model.layers=2

Validation
  loss                1.5
  bits per character  2.164

Sample
  To be\ufffd[31m, or
  \tnot

Warnings
  a warning

Where
  best model  results/char-lm/best
  curves      tensorboard --logdir 'results/char lm'"""
    )


def test_the_report_names_a_tensorboard_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert tensorboard_command(Path("run")) == f"{tmp_path}/tensorboard --logdir run"


def test_a_best_trial_of_the_final_stage_is_one_seed_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "configuration": {"model.cell": "gru"},
        "searched": ["model.cell"],
        "metrics": {"loss": 1.5},
        "sample": "",
        "warnings": (),
        "places": {},
    }
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    report = final_report(ENDED, board=Path("run"), again=2, **parts)  # type: ignore[arg-type]
    assert "Best configuration (trial 7: that of trial 2 with another seed)" in report
    assert "Validation (of this seed alone)" in report
