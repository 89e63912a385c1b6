"""What is said of an experiment once its data are known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tune_rnn.advice import notes
from tune_rnn.data import load_corpus
from tune_rnn.experiment import Experiment


def said(
    corpus: Path,
    model: dict[str, Any] | None = None,
    regularizers: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> list[str]:
    experiment = Experiment(
        name="x",
        task={"corpus": str(corpus)},
        model=model or {},
        regularizers=regularizers or {},
        training={"batch_size": 4, "sequence_length": 16, **(training or {})},
        budget={"epochs": 1, "trials": 2},
        beside=corpus,
    )
    return list(notes(experiment, load_corpus(experiment.task, beside=experiment.beside)))


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"regularizers": {"zoneout_hidden": {"uniform": [0, 0.2]}}}, "regularizers.zoneout_hidden"),
        ({"model": {"layer_norm": {"choice": ["none", "cell"]}}}, "model.layer_norm: cell"),
    ],
)
def test_what_leaves_the_fused_kernels_has_its_price(corpus: Path, sections: dict[str, Any], what: str) -> None:
    (note,) = said(corpus, **sections)
    assert note.startswith(f"{what} makes a training step ")
    assert note.endswith(" % longer, as it leaves PyTorch's fused kernels")


def test_a_second_pass_has_its_price(corpus: Path) -> None:
    (note,) = said(corpus, regularizers={"fraternal_dropout": 0.1, "input_dropout": 0.2})
    assert note.startswith("regularizers.fraternal_dropout makes a training step ")
    assert note.endswith(" % longer")


@pytest.mark.parametrize("layers", [1, {"int": [1, 2]}])
def test_what_acts_between_layers_needs_two(corpus: Path, layers: Any) -> None:
    found = said(corpus, model={"layers": layers, "layer_norm": "between"}, regularizers={"hidden_dropout": 0.1})
    expected = ["regularizers.hidden_dropout acts between layers", "model.layer_norm: between acts between layers"]
    assert [note.partition(", so")[0] for note in found] == (expected if layers == 1 else [])


def test_an_average_that_never_begins_is_told(corpus: Path) -> None:
    sgd = {"training": {"optimizer": "sgd", "report_every": 0.25}}
    assert said(corpus, regularizers={"nt_asgd": 3}, **sgd) == []
    (note,) = said(corpus, regularizers={"nt_asgd": {"int": [4, 6]}}, **sgd)
    assert note == "regularizers.nt_asgd 4 never begins to average, as a trial has 4 reports"


def test_random_windows_have_no_state_to_reset(corpus: Path) -> None:
    (note,) = said(corpus, regularizers={"state_reset": 0.1}, training={"windows": "random"})
    assert note.startswith("regularizers.state_reset does nothing for training.windows: random")


def test_of_the_usual_nothing_is_said(corpus: Path) -> None:
    usual = {"input_dropout": 0.1, "weight_drop": 0.2, "l1": 1e-7, "clip_norm": 1.0, "ema": 0.99}
    assert said(corpus, regularizers=usual) == []


def test_much_validation_is_told_with_a_remedy_that_helps(corpus: Path) -> None:
    (note,) = said(corpus, training={"report_every": 0.05})
    assert note.startswith("validation takes about ")
    every = re.search(r"training\.report_every=([\d.]+) ", note)
    assert every is not None
    assert said(corpus, training={"report_every": float(every[1])}) == []


def test_where_one_report_is_too_dear_only_a_smaller_split_helps(corpus: Path) -> None:
    half = Experiment(
        name="x", task={"corpus": str(corpus), "split": [0.2, 0.7, 0.1]}, budget={"epochs": 1, "trials": 2}
    )
    (note,) = (note for note in notes(half, load_corpus(half.task)) if note.startswith("validation takes"))
    assert note.endswith(" at each of 1 report: a smaller validation part in task.split leaves more for training")
