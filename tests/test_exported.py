"""The exported model: plain files, exactly the reported loss, in a process that has never seen Ray."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import tune_rnn
from tune_rnn import data, model
from tune_rnn.errors import InputError
from tune_rnn.exported import TrainedModel, export
from tune_rnn.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

METADATA = {"precision": "fp32", "threads": 1, "metrics": {"validation_loss": 1.5}, "data": {"name": "größe"}}
PROMPT = "drei und "


def exported(training: Training, directory: Path) -> Path:
    export(directory, training.sizes, training.parameters, tiny.VOCABULARY, METADATA)
    return directory


@pytest.fixture(scope="module")
def trained(one_thread: None) -> tuple[Training, float]:
    """A training, and the validation loss that it reported last."""
    one = tiny.training(epochs=(6.0,), model={"layers": 2, "hidden_size": 24}, training={"learning_rate": 0.02})
    (report,) = one.run()
    assert report.validation_loss is not None
    return one, report.validation_loss


@pytest.fixture
def best(trained: tuple[Training, float], tmp_path: Path) -> Path:
    return exported(trained[0], tmp_path / "run" / "best")


@pytest.fixture
def loaded(best: Path) -> TrainedModel:
    return tune_rnn.load_model(best)


def test_a_model_is_safetensors_and_json(best: Path) -> None:
    assert sorted(path.name for path in best.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
    assert [path.name for path in best.parent.iterdir()] == ["best"]
    config = json.loads((best / "config.json").read_text("utf-8"))
    assert config["sizes"]["hidden"] == [24, 24]
    assert data.vocabulary_from_json((best / "vocabulary.json").read_text("utf-8")) == tiny.VOCABULARY
    assert set(load_file(best / "model.safetensors")) == set(
        model.shapes(model.Sizes("lstm", tiny.VOCABULARY.size, 6, (24, 24)))
    )


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_after_loading_is_exactly_the_reported_one(cell: str, tied: bool, tmp_path: Path) -> None:
    one = tiny.training(model={"cell": cell, "tied": tied, "layers": 2})
    (report,) = one.run()
    again = tune_rnn.load_model(exported(one, tmp_path / "best"))
    assert again.sizes == one.sizes
    assert again.metadata == METADATA
    assert again.evaluate(tiny.DATA.validation) == report.validation_loss


def test_a_run_directory_will_do(best: Path) -> None:
    split = tiny.DATA.validation
    assert tune_rnn.load_model(best.parent).evaluate(split) == tune_rnn.load_model(str(best)).evaluate(split)


def test_another_process_gets_the_same_loss_without_ray_and_without_pickle(
    best: Path, trained: tuple[Training, float]
) -> None:
    np.save(best.parent / "tokens.npy", tiny.DATA.validation.tokens)
    program = """
import sys
import numpy as np, torch, tune_rnn
from tune_rnn.data import Split
def refuse(*arguments, **options):
    raise AssertionError("unpickled something")
torch.load = refuse
torch.set_num_threads(1)
tokens = np.load(sys.argv[1] + "/tokens.npy")
print(repr(tune_rnn.load_model(sys.argv[1]).evaluate(Split(tokens, np.zeros(1, dtype=np.int64)))))
assert not {"ray", "hyperopt"} & set(sys.modules)
"""
    command = [sys.executable, "-c", program, str(best.parent)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert float(finished.stdout) == trained[1]


def test_a_model_that_exists_is_replaced_whole(best: Path, trained: tuple[Training, float]) -> None:
    (best / "leftover").touch()
    exported(trained[0], best)
    assert "leftover" not in [path.name for path in best.iterdir()]
    assert [path.name for path in best.parent.iterdir()] == ["best"]


# Damage


def cut(name: str) -> Callable[[Path], object]:
    return lambda best: (best / name).write_bytes((best / name).read_bytes()[:-9])


def rewrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda best: (best / name).write_text(text, "utf-8")


def change_config(**changes: object) -> Callable[[Path], object]:
    def change(best: Path) -> None:
        config = json.loads((best / "config.json").read_text("utf-8"))
        (best / "config.json").write_text(json.dumps(config | changes), "utf-8")

    return change


def drop_a_parameter(best: Path) -> None:
    parameters = load_file(best / "model.safetensors")
    del parameters["decoder.bias"]
    save_file(parameters, best / "model.safetensors")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (shutil.rmtree, "holds no exported model"),
    "no configuration": (lambda best: (best / "config.json").unlink(), "holds no exported model"),
    "no parameters": (lambda best: (best / "model.safetensors").unlink(), "is not a complete model directory"),
    "no vocabulary": (lambda best: (best / "vocabulary.json").unlink(), "is not a complete model directory"),
    "cut configuration": (cut("config.json"), "is not a complete model directory"),
    "cut parameters": (cut("model.safetensors"), "is not a complete model directory"),
    "cut vocabulary": (cut("vocabulary.json"), r"must be \{.symbols"),
    "a number": (rewrite("config.json", "5"), "is not a complete model directory"),
    "a list": (rewrite("config.json", "[]"), "is not a complete model directory"),
    "no UTF-8": (lambda best: (best / "config.json").write_bytes(b"\xff"), "is not a complete model directory"),
    "empty parameters": (rewrite("model.safetensors", ""), "is not a complete model directory"),
    "another format": (change_config(format=99), "is not of format 1"),
    "other sizes": (
        change_config(sizes={"cell": "lstm", "vocabulary": 21, "embedding": 6, "hidden": [24, 25]}),
        "has other sizes than config.json says",
    ),
    "another cell": (
        change_config(sizes={"cell": "transformer", "vocabulary": 21, "embedding": 6, "hidden": [24]}),
        "is not a complete model directory",
    ),
    "sizes of another kind": (change_config(sizes=[1, 2]), "is not a complete model directory"),
    "a parameter less": (drop_a_parameter, "has other sizes than config.json says"),
    "another vocabulary": (
        rewrite("vocabulary.json", '{"symbols": ["<unk>", "a", "b"]}'),
        "vocabulary.json has 3 symbols, config.json says 21",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_is_an_input_error(name: str, best: Path) -> None:
    damage, message = DAMAGE[name]
    damage(best)
    with pytest.raises(InputError, match=message):
        tune_rnn.load_model(best.parent)


# Samples


def test_a_sample_depends_on_the_seed_alone(loaded: TrainedModel) -> None:
    torch.manual_seed(0)
    text = loaded.sample(PROMPT, length=60, seed=3)
    torch.manual_seed(1)
    assert loaded.sample(PROMPT, length=60, seed=3) == text
    assert loaded.sample(PROMPT, length=60, seed=4) != text
    assert len(text) == 60
    assert set(text) <= set(tiny.VOCABULARY.symbols)


def test_temperature_0_takes_the_likeliest_whatever_the_seed(loaded: TrainedModel) -> None:
    text = loaded.sample(PROMPT, length=30, temperature=0)
    assert text == loaded.sample(PROMPT, length=30, temperature=0, seed=9)
    assert text == loaded.sample(PROMPT, length=30, temperature=1e-6, seed=9)
    assert text != loaded.sample(PROMPT, length=30, temperature=2, seed=9)


def test_a_sample_goes_on_from_the_prompt_step_by_step(loaded: TrainedModel) -> None:
    """What was drawn is read like a prompt: temperature 0 gives the same text from a longer prompt."""
    text = loaded.sample(PROMPT, length=30, temperature=0)
    assert loaded.sample(PROMPT + text[:12], length=18, temperature=0) == text[12:]


@pytest.mark.parametrize("prompt", ["", "日本語 🙂", "\x00", "drei\r\n", "\ud800", "größer " * 500])
def test_any_prompt_will_do(prompt: str, loaded: TrainedModel) -> None:
    assert len(loaded.sample(prompt, length=5)) == 5


def test_no_length_no_text(loaded: TrainedModel) -> None:
    assert loaded.sample(PROMPT, length=0) == ""


@pytest.mark.parametrize("temperature", [0, 1e-30, 1, 1e30])
def test_the_unknown_symbol_is_never_drawn(temperature: float, loaded: TrainedModel) -> None:
    with torch.no_grad():
        loaded.parameters["decoder.bias"][0] = 100.0  # it would be, otherwise
    assert "\ufffd" not in loaded.sample("?", length=50, temperature=temperature)


def test_a_model_trained_in_bf16_works_where_there_is_none(
    best: Path, loaded: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's model on a laptop: evaluated and sampled in fp32."""
    change_config(precision="bf16")(best)
    elsewhere = tune_rnn.load_model(best)
    monkeypatch.setattr("tune_rnn.precision._has_bf16", lambda cell: False)
    assert elsewhere.evaluate(tiny.DATA.validation) == loaded.evaluate(tiny.DATA.validation)
    assert elsewhere.sample(PROMPT, length=20) == loaded.sample(PROMPT, length=20)
