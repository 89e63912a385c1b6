"""Every mistake in an experiment gets one line: dotted key, value, rule, remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_rnn.errors import InputError
from tune_rnn.experiment import Experiment

RIGHT = {"name": "name: x\n", "budget": "budget: {epochs: 8, trials: 4}\n"}
BLOCKS = Path(__file__).with_name("experiment_errors.txt").read_text(encoding="utf-8").strip().split("\n\n")
ROWS = [tuple(block.split("\n    ")) for block in BLOCKS[1:]]


@pytest.mark.parametrize(("mistake", "message"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_a_mistake_in_a_file(mistake: str, message: str) -> None:
    its_own = [line.partition(":")[0] for line in mistake.splitlines()]
    text = "".join(line for key, line in RIGHT.items() if key not in its_own) + mistake
    with pytest.raises(InputError) as caught:
        Experiment.from_yaml_text(text)
    assert str(caught.value) == message


def test_every_message_has_a_remedy() -> None:
    assert len(ROWS) > 100
    for _, message in ROWS:
        sentences = message.removesuffix("…}}.").split(". ")
        assert len(sentences) >= 2, message
        assert message.endswith((".", "?")), message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "experiment: there is nothing in it. Write at least a line `name: my-study`."),
        ("# only a comment\n", "experiment: there is nothing in it."),
        ("- name: x\n", "experiment: [{'name': 'x'}]: must be `key: value` lines. Start with"),
        ("name\n", "experiment: 'name': must be `key: value` lines."),
        ("name: x\nname: y\n", "experiment, line 2, column 1: the key 'name' is written twice. Keep"),
        ("name: x\nmodel: {tied: no, tied: no}\n", "experiment, line 2, column 19: the key 'tied' is"),
        ("name: x\nmodel: {layers: 1\n", "experiment, line 3, column 1: expected ',' or '}', but got"),
        ("name: x\n\tmodel: 3\n", "experiment, line 2, column 1: found character"),
        ("name: 'x\n", "experiment, line 2, column 1: found unexpected end of stream. Check indentation,"),
        ("name: !!python/object:os.system x\n", "experiment, line 1, column 7: could not determine a constructor"),
        ("name: x\0", "experiment: not YAML: unacceptable character #x0000"),
        ("[" * 5000, "experiment: not YAML: maximum recursion depth exceeded"),
        ("budget: {epochs: 8}", "name: is missing. Add a value for name."),
        ("name: x", "budget: epochs or tokens must say how long one trial is. Add budget.epochs: 8."),
    ],
)  # fmt: skip
def test_a_text_that_is_no_experiment(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment.from_yaml_text(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing, latin = tmp_path / "study.yaml", tmp_path / "latin.yaml"
    latin.write_bytes("name: caf\xe9".encode("latin-1"))
    for path, rule in [
        (missing, "there is no such file. Give the path of an experiment file."),
        (tmp_path, "this is a directory, not an experiment file. Give the file in it, for example "),
        (latin, "not UTF-8 text: byte 9 cannot be read. Save the file as UTF-8."),
        (latin / "study.yaml", "cannot be read: Not a directory."),
    ]:
        with pytest.raises(InputError) as caught:
            Experiment.load(path)
        assert str(caught.value).startswith(f"{path}: {rule}")


BRANCHES = "one_of: {sgd: {training: {optimizer: sgd}}, adam: {model: {layers: 2}}}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.trials", "override: 'budget.trials': must be KEY=VALUE. Write for example budget.trials=4."),
        ("=4", "override: '=4': must be KEY=VALUE."),
        ("", "override: '': must be KEY=VALUE."),
        ("budget.trails=4", "budget.trails: there is no such key. Did you mean budget.trials?"),
        ("lr=4", "lr: there is no such key. There are name, task, model,"),
        ("layers=4", "layers: there is no such key. Did you mean model.layers?"),
        ("model=4", "model: is a section of keys. Set the keys in it one by one, for example model.cell."),
        ("one_of=sdg", "one_of: 'sdg': there is no such branch. Did you mean sgd?"),
        ("one_of=x", "one_of: 'x': there is no such branch. There are sgd, adam."),
        ("one_of.sgd.training.learning_rate=1", "one_of.sgd.training.learning_rate: there is no such key. Did you"),
        ("model.layers=0", "model.layers: 0: must be at least 1."),
        ("model.layers=", "model.layers: None: must be a whole number. Write a value, or remove the key."),
        ("model.layers={int: [2, 1]}", "model.layers: {'int': [2, 1]}: low must be less than high."),
        ("model.layers={int: [2", "model.layers, line 1, column 9: expected ',' or ']'"),
        ("name=a/b", "name: 'a/b': must be 1 to 100 letters"),
        ("resources.use=3", "resources.use: 3: must be a section of keys. Put keys below it,"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_override(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment.from_yaml_text("".join(RIGHT.values()) + BRANCHES, [override])
    assert str(caught.value).startswith(message)


def test_a_branch_is_not_chosen_where_there_is_none() -> None:
    with pytest.raises(InputError, match=r"^one_of: 'sgd': .* The experiment has no one_of\."):
        Experiment.from_yaml_text("".join(RIGHT.values()), ["one_of=sgd"])


def test_python_values_are_refused_with_the_same_words() -> None:
    with pytest.raises(InputError, match=r"^model\.layers: 0: must be at least 1\."):
        Experiment(name="x", budget={"epochs": 1}, model={"layers": 0})
    with pytest.raises(InputError, match=r"^model: 3: must be a section of keys\."):
        Experiment(name="x", budget={"epochs": 1}, model=3)  # type: ignore[arg-type]
