"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tune_rnn.config.validation import known_keys
from tune_rnn.experiment import Experiment

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return [str(found) for found in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)]


@pytest.mark.slow
def test_the_python_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line]) < 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "validation_loss" in capsys.readouterr().out
    assert (tmp_path / "results" / "from-python" / "best" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_simulation_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[1], "README.md", "exec"), {})
    trials, finished, loss = capsys.readouterr().out.split()
    assert int(trials) > 2 * int(finished) > 20
    assert float(loss) < 1.6


def test_the_yaml_example_loads() -> None:
    (example,) = blocks("yaml")
    assert set(Experiment.from_yaml_text(example).space.branches) == {"sgd", "adamw"}


@pytest.mark.parametrize("key", [key for key, section in known_keys().items() if section is None])
def test_every_key_of_the_experiment_file_is_explained(key: str) -> None:
    section, _, name = key.rpartition(".")
    parent = "task.files" if section == "task.files" else "resources.use" if section == "resources.use" else key
    assert f"`{parent}`" in README or (section == "regularizers" and re.search(f"`{name}[`:]", README))


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*/*.yaml")), ids=lambda path: path.parent.name)
def test_every_shipped_file_loads_and_is_explained(file: Path) -> None:
    Experiment.load(file)
    told = (file.parent / "README.md").read_text("utf-8")
    assert f"experiments/{file.parent.name}/{file.name}" in told
    assert re.search(r"On 20\d\d-\d\d-\d\d, on (one|two) cores? of an? ", told), "no date or no hardware"


@pytest.mark.parametrize(
    "study", sorted((ROOT / "experiments").glob("*/study.yaml")), ids=lambda path: path.parent.name
)
def test_every_shipped_experiment_loads_and_says_what_came_out(study: Path) -> None:
    experiment = Experiment.load(study)
    assert experiment.space.shared
    told = (study.parent / "README.md").read_text("utf-8")
    assert re.search(r"best validation loss \| \d\.\d{5} nats", told)
    for key in experiment.space.shared:
        assert f"| `{key}` |" in told, "the best configuration is not complete"
