"""Experiments: what loads, what is filled in, overrides, branches, YAML. Errors have a file of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_rnn import space
from tune_rnn.errors import InputError
from tune_rnn.experiment import Budget, Experiment, Final, TrialConfig
from tune_rnn.yaml_io import dump_yaml, load_yaml

EXAMPLE = """
name: char-lm
task: {kind: char_lm, corpus: pydoc}        # or files: {train: …, validation: …, test: …}
model: {cell: lstm, embedding_size: 64, hidden_size: {choice: [128, 256]}, layers: {int: [1, 2]}}
regularizers:
  input_dropout: {uniform: [0, 0.5]}
  l1: {log_uniform: [1e-8, 1e-4]}
  clip_norm: 1.0
training: {batch_size: 32, sequence_length: 64, schedule: cosine}
one_of:                                      # named branches, merged at the root: a conditional space
  sgd:   {training: {optimizer: sgd, learning_rate: {log_uniform: [1, 100]}}}
  adamw: {training: {optimizer: adamw, learning_rate: {log_uniform: [1e-4, 1e-2]}},
          regularizers: {weight_decay: {log_uniform: [1e-3, 1]}}}
budget: {epochs: 8, trials: 32, hours: 2}    # per trial; per study: whichever comes first
search: {algorithm: hyperopt, seed: 0}
scheduler: {algorithm: asha, first_rung: 1, reduction_factor: 3}
resources: {per_trial: {cpu: 1, gpu: auto}, use: {gpu: 2}}
storage: results
"""
MINIMAL = "{name: x, budget: {epochs: 2}}"


def experiment(**sections: Any) -> Experiment:
    return Experiment(**{"name": "x", "budget": {"epochs": 2, "trials": 3}, **sections})


def test_the_example_of_the_documentation_loads() -> None:
    loaded = Experiment.from_yaml_text(EXAMPLE)
    assert (loaded.name, loaded.task.corpus, loaded.storage) == ("char-lm", "pydoc", "results")
    assert (loaded.budget.epochs, loaded.budget.trials, loaded.budget.hours) == (8, 32, 2)
    assert (loaded.budget.unit, loaded.budget.amount) == ("epochs", 8)
    assert (loaded.search.algorithm, loaded.scheduler.algorithm) == ("hyperopt", "asha")
    assert loaded.resources.per_trial.gpu == "auto"
    assert loaded.resources.use is not None
    assert loaded.resources.use.gpu == 2
    shared = ["model.hidden_size", "model.layers", "regularizers.input_dropout", "regularizers.l1"]
    assert list(loaded.space.shared) == shared
    assert loaded.space.shared["regularizers.l1"] == space.log_uniform(1e-8, 1e-4)
    assert loaded.space.branches == {
        "sgd": {"training.learning_rate": space.log_uniform(1, 100)},
        "adamw": {
            "regularizers.weight_decay": space.log_uniform(1e-3, 1),
            "training.learning_rate": space.log_uniform(1e-4, 1e-2),
        },
    }
    own = ["regularizers.weight_decay", "training.learning_rate", "one_of"]
    assert loaded.unfixed == shared + own


def test_python_says_the_same_as_the_file() -> None:
    built = Experiment(
        name="char-lm",
        task={"corpus": "pydoc"},
        model={"hidden_size": space.choice(128, 256), "layers": space.int(1, 2)},
        regularizers={
            "input_dropout": {"uniform": (0, 0.5)},
            "l1": space.log_uniform(1e-8, 1e-4),
            "clip_norm": 1,
        },
        training={"schedule": "cosine"},
        one_of={
            "sgd": {"training": {"optimizer": "sgd", "learning_rate": space.log_uniform(1, 100)}},
            "adamw": {
                "training": {"optimizer": "adamw", "learning_rate": space.log_uniform(1e-4, 1e-2)},
                "regularizers": {"weight_decay": space.log_uniform(1e-3, 1)},
            },
        },
        budget={"epochs": 8, "trials": 32, "hours": 2},
        resources={"use": {"gpu": 2}},
        storage=Path("results"),
    )
    assert built == Experiment.from_yaml_text(EXAMPLE)
    assert built != built.replace("model.tied", True)
    assert "char-lm" in repr(built)


def test_defaults() -> None:
    minimal = Experiment.from_yaml_text(MINIMAL)
    config = minimal.trial_config({})
    assert config.flat() == {
        "task.kind": "char_lm", "task.corpus": "pydoc", "task.files": None, "task.split": None,
        "task.documents": "separate", "task.vocabulary_size": None, "task.minimum_count": 1,
        "model.cell": "lstm", "model.embedding_size": 64, "model.hidden_size": 128, "model.layers": 1,
        "model.tied": False, "model.decoder": "softmax", "model.layer_norm": "none",
        "model.initialization": "orthogonal", "model.forget_bias": 1, "model.kernels": "auto",
        "regularizers.input_dropout": 0, "regularizers.hidden_dropout": 0, "regularizers.output_dropout": 0,
        "regularizers.locked_dropout": True, "regularizers.l1": 0, "regularizers.l2": 0,
        "regularizers.weight_decay": 0, "regularizers.clip_norm": 0, "regularizers.clip_value": 0,
        "regularizers.embedding_dropout": 0, "regularizers.weight_drop": 0, "regularizers.state_reset": 0,
        "regularizers.zoneout_hidden": 0, "regularizers.zoneout_cell": 0,
        "regularizers.activation": 0, "regularizers.temporal_activation": 0, "regularizers.label_smoothing": 0,
        "regularizers.fraternal_dropout": 0, "regularizers.max_norm": 0, "regularizers.gradient_noise": 0,
        "regularizers.ema": 0, "regularizers.swa": 0, "regularizers.nt_asgd": 0,
        "training.optimizer": "adam", "training.learning_rate": 2e-3, "training.schedule": "constant",
        "training.batch_size": 32, "training.sequence_length": 64, "training.windows": "streams",
        "training.precision": "auto", "training.patience": 0, "training.report_every": 1, "one_of": None,
    }  # fmt: skip
    assert minimal.space.is_empty
    assert minimal.unfixed == []
    assert minimal.trial_config({}) == TrialConfig.model_validate(config.to_dict())


@pytest.mark.parametrize(
    ("budget", "report_every"),
    [
        ({"epochs": 8}, 1),
        ({"epochs": 0.25}, 0.25),
        ({"tokens": 2_000_000}, 100_000),
        ({"tokens": 2e6}, 100_000),
        ({"tokens": 7}, 1),
    ],
)
def test_reports_and_rungs_follow_the_budget(budget: dict[str, float], report_every: float) -> None:
    loaded = experiment(budget=budget)
    assert loaded.trial_config({}).training.report_every == report_every
    assert (loaded.scheduler.first_rung, loaded.report_every) == (report_every, report_every)
    assert loaded.budget.amount == next(iter(budget.values()))
    assert "tokens" not in budget or type(loaded.budget.tokens) is int


def test_an_empty_section_has_its_defaults() -> None:
    loaded = Experiment.from_yaml_text("name: x\nmodel:\ntraining: {}\nbudget: {epochs: 2}\none_of:\n")
    assert loaded == Experiment.from_yaml_text(MINIMAL)


def test_an_assignment_gives_plain_values_in_the_schema_s_types() -> None:
    loaded = experiment(
        model={"hidden_size": {"log_int": [8, 64]}, "tied": {"choice": [True, False]}},
        training={"learning_rate": {"int": [1, 3]}},
    )
    assignment = loaded.space.sample(np.random.default_rng(3))
    config = loaded.trial_config(assignment)
    assert config.model.hidden_size == assignment["model.hidden_size"]
    assert config.model.tied is assignment["model.tied"]
    assert type(config.training.learning_rate) is float
    assert config.one_of is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ({}, "one_of: a branch must be chosen. Add one_of=sgd or one_of=adamw."),
        ({"one_of": "adam"}, "one_of: 'adam': there is no such branch. Did you mean adamw?"),
        (
            {"one_of": "sgd", "model.hidden_size": 8},
            "model.layers: {'int': [1, 2]}: must have a single value here. Add model.layers=VALUE.",
        ),
        ({"one_of": "sgd", "model.depth": 8}, "model.layers: {'int'"),
    ],
)
def test_an_assignment_must_fit(assignment: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment.from_yaml_text(EXAMPLE, ["model.hidden_size=8"]).trial_config(assignment)
    assert str(caught.value).startswith(message)


def test_an_assignment_with_a_key_that_does_not_exist_is_refused() -> None:
    for key in ("model.hiden_size", "size"):
        with pytest.raises(InputError, match=f"^{key}: there is no such key"):
            experiment().trial_config({key: 8})


def test_a_branch_overrides_the_root_and_the_root_s_distribution_serves_the_others() -> None:
    loaded = experiment(
        training={"learning_rate": {"log_uniform": [1e-4, 1e-2]}, "optimizer": "adam"},
        one_of={"slow": {"training": {"learning_rate": 1e-5, "optimizer": "sgd"}}, "usual": {}},
    )
    assert loaded.space.shared == {}
    rate = {"training.learning_rate": space.log_uniform(1e-4, 1e-2)}
    assert loaded.space.branches == {"slow": {}, "usual": rate}
    slow = loaded.trial_config({"one_of": "slow"})
    assert (slow.one_of, slow.training.learning_rate, slow.training.optimizer) == ("slow", 1e-5, "sgd")
    usual = loaded.trial_config({"one_of": "usual", "training.learning_rate": 1e-3})
    assert (usual.training.learning_rate, usual.training.optimizer) == (1e-3, "adam")
    assert Experiment.from_yaml_text(loaded.to_yaml()) == loaded


def test_the_order_of_the_file_does_not_matter() -> None:
    forwards = experiment(model={"layers": space.int(1, 2), "hidden_size": space.int(4, 8)})
    backwards = experiment(model={"hidden_size": space.int(4, 8), "layers": space.int(1, 2)})
    assert forwards.space.grid() == backwards.space.grid()
    assert forwards.to_yaml() == backwards.to_yaml()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.learning_rate=1e-3", "training.learning_rate", 1e-3),
        ("model.layers=3", "model.layers", 3),
        ("model.tied=true", "model.tied", True),
        ("task.corpus=data/my text=1.txt", "task.corpus", "data/my text=1.txt"),
        ("task.corpus=123", "task.corpus", "123"),
        ("task.corpus=[a.txt, b.txt]", "task.corpus", ["a.txt", "b.txt"]),
        ("training.precision=fp32", "training.precision", "fp32"),
        ("training.report_every=null", "training.report_every", 1),
    ],
)
def test_overrides(override: str, key: str, value: Any) -> None:
    loaded = Experiment.from_yaml_text(MINIMAL, [override])
    assert loaded.trial_config({}).flat()[key] == value
    assert Experiment.from_yaml_text(MINIMAL).with_overrides([override]) == loaded


def test_overrides_of_the_study() -> None:
    loaded = Experiment.from_yaml_text(EXAMPLE, ["budget.epochs=2", "budget.trials=4", "name=1e3"])
    assert (loaded.name, loaded.budget.epochs, loaded.budget.trials) == ("1e3", 2, 4)
    changed = loaded.with_overrides(["resources.use=null", "scheduler.algorithm=none", "storage=no"])
    assert (changed.resources.use, changed.scheduler.algorithm, changed.storage) == (None, "none", "no")
    assert changed.with_overrides(["resources.use.cpu=4"]).resources.use is not None
    tokens = loaded.with_overrides(["budget.tokens=2e6", "budget.epochs=null", "scheduler.first_rung=null"])
    assert (tokens.budget.unit, tokens.scheduler.first_rung) == ("tokens", 100_000)


def test_an_override_makes_a_file_right_before_it_is_checked() -> None:
    text = "{name: a/b, model: {layers: {int: [1, 2]}}, budget: {epochs: 2}}"
    loaded = Experiment.from_yaml_text(text, ["name=ab", "budget.trials=4"])
    assert (loaded.name, loaded.unfixed) == ("ab", ["model.layers"])


def test_an_override_sets_a_key_in_every_branch_and_may_choose_one() -> None:
    loaded = Experiment.from_yaml_text(EXAMPLE)
    fixed = loaded.with_overrides(["training.learning_rate=1e-3"])
    assert "training.learning_rate" not in fixed.unfixed
    assert fixed.space.branches["sgd"] == {}
    sgd = loaded.with_overrides(["one_of=sgd", "model.layers={int: [2, 3]}"])
    assert sgd.space.branches == {}
    assert sgd.space.shared["training.learning_rate"] == space.log_uniform(1, 100)
    assert sgd.space.shared["model.layers"] == space.int(2, 3)
    assert loaded.replace("model.layers", space.int(2, 3)).space.shared["model.layers"] == space.int(2, 3)
    assert loaded == Experiment.from_yaml_text(EXAMPLE), "overrides leave the experiment itself alone"


POINTS = "[{training: {learning_rate: 1e-3}, one_of: adamw}, {model.layers: 2, training.learning_rate: 5}]"


def test_starting_points_are_nested_or_dotted_and_come_back_from_yaml() -> None:
    loaded = Experiment.from_yaml_text(EXAMPLE, [f"search.start={POINTS}"])
    start = ({"training.learning_rate": 1e-3, "one_of": "adamw"}, {"model.layers": 2, "training.learning_rate": 5})
    assert loaded.search.start == start
    assert Experiment.from_yaml_text(loaded.to_yaml()) == loaded
    assert "start: [{training: {learning_rate: 0.001}, one_of: adamw}, {model: {layers: 2}, " in loaded.to_yaml()
    built = experiment(
        model={"layers": space.int(1, 2)},
        training={"learning_rate": space.log_uniform(1e-3, 10)},
        search={"start": ({"model": {"layers": 2}, "training.learning_rate": 5},)},
    )
    assert built.search.start == start[1:]
    assert loaded.with_overrides(["search.start=null"]).search.start == ()


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("training.learning_rate=2", [{"one_of": "adamw"}, {"model.layers": 2}]),
        ("model.layers=1", [{"training.learning_rate": 1e-3, "one_of": "adamw"}, {"training.learning_rate": 5}]),
        ("model.layers={int: [1, 4]}", None),
        ("one_of=sgd", [{"model.layers": 2, "training.learning_rate": 5}]),
        ("one_of=adamw", [{"training.learning_rate": 1e-3}]),
    ],
)
def test_an_override_fixes_a_key_in_the_starting_points_too(override: str, left: list[dict[str, Any]] | None) -> None:
    loaded = Experiment.from_yaml_text(EXAMPLE, [f"search.start={POINTS}"])
    assert loaded.with_overrides([override]).search.start == (loaded.search.start if left is None else tuple(left))


def test_files_instead_of_a_corpus(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(
        "\ufeffname: x\r\ntask: {files: {train: [a, b], validation: c}}\r\nbudget: {tokens: 2e6}\r\n".encode()
    )
    loaded = Experiment.load(file)
    assert loaded.beside == tmp_path
    assert loaded.task.files is not None
    assert (loaded.task.files.train, loaded.task.files.validation) == (("a", "b"), "c")
    assert loaded.task.corpus is None
    assert Experiment.from_yaml_text(loaded.to_yaml()) == loaded
    tested = loaded.with_overrides(["task.files.test=t.txt"])
    assert tested.task.files is not None
    assert tested.task.files.test == "t.txt"
    corpus = loaded.with_overrides(["task.files=null", "task.corpus=t.txt", "task.split=[0.5, 0.5, 0]"])
    assert (corpus.task.files, corpus.task.corpus, corpus.task.split) == (None, "t.txt", (0.5, 0.5, 0))
    assert Experiment.from_yaml_text(corpus.to_yaml()) == corpus


def test_resolved_yaml_has_every_default_and_is_read_by_people() -> None:
    text = Experiment.from_yaml_text(EXAMPLE).to_yaml()
    assert Experiment.from_yaml_text(text).to_yaml() == text
    assert "  hidden_size: {choice: [128, 256]}\n" in text
    assert "  first_rung: 1.0\n" in text
    assert "      learning_rate: {log_uniform: [0.0001, 0.01]}\n" in text
    assert "null" not in text
    assert text.index("name:") < text.index("task:") < text.index("one_of:") < text.index("budget:")


rates = st.floats(0, 0.9)
probability = st.one_of(rates, st.builds(lambda a, b: {"uniform": [a, a + b]}, rates, st.floats(0.01, 0.09)))
size = st.one_of(
    st.integers(1, 999),
    st.builds(lambda a, b: {"int": [a, a + b]}, st.integers(1, 99), st.integers(1, 99)),
    st.builds(lambda a, b: {"log_int": [a, a + b]}, st.integers(1, 99), st.integers(1, 99)),
    st.lists(st.integers(1, 999), min_size=1, max_size=4, unique=True).map(lambda values: {"grid": values}),
)
rate = st.one_of(st.floats(1e-12, 1e3), st.floats(1e-12, 1).map(lambda low: {"log_uniform": [low, 10 * low]}))
model = st.fixed_dictionaries(
    {},
    optional={
        "hidden_size": size,
        "cell": st.one_of(st.sampled_from(["gru", "rnn"]), st.just({"choice": ["gru", "lstm"]})),
        "tied": st.booleans(),
    },
)
regularizers = st.fixed_dictionaries({}, optional={"input_dropout": probability, "l1": rate, "clip_norm": rate})
training = st.fixed_dictionaries({}, optional={"learning_rate": rate, "batch_size": size})
branch = st.fixed_dictionaries({}, optional={"model": model, "regularizers": regularizers, "training": training})
experiments = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9._-]{0,9}[A-Za-z0-9]", fullmatch=True),
        "budget": st.fixed_dictionaries(
            {"epochs": st.floats(0.01, 99), "trials": st.integers(1, 99)},
            optional={"hours": st.floats(0.1, 9)},
        ),
    },
    optional={
        "model": model,
        "regularizers": regularizers,
        "training": training,
        "task": st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1).map(
            lambda name: {"corpus": name}
        ),
        "one_of": st.dictionaries(st.sampled_from("abc"), branch, min_size=2),
        "search": st.fixed_dictionaries({"seed": st.integers(0), "algorithm": st.just("random")}),
        "storage": st.sampled_from(["1e-4", "no", "results", "~/x y", "2024-01-01", "[a]"]),
    },
)


@settings(max_examples=50)
@given(experiments, st.integers(0, 2**32))
def test_any_experiment_comes_back_from_its_yaml_with_the_same_samples(sections: dict[str, Any], seed: int) -> None:
    built = Experiment(**sections)
    loaded = Experiment.from_yaml_text(built.to_yaml())
    assert loaded == built
    assert loaded.to_yaml() == built.to_yaml()
    assert loaded.space == built.space
    sample = built.space.sample(np.random.default_rng(seed))
    if sample:
        begun = built.replace("search.start", [sample])
        assert Experiment.from_yaml_text(begun.to_yaml()) == begun
        assert begun.space.complete(begun.search.start[0], np.random.default_rng(0)) == sample
    assert loaded.space.sample(np.random.default_rng(seed)) == sample
    config = built.trial_config(sample)
    assert loaded.trial_config(sample) == config
    assert sample.items() <= config.flat().items()


# PyYAML writes three rare line breaks so that it reads them back as others.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    texts,
    st.sampled_from(["1e5", "-.5e3", "no", "null", "2024-01-31", "1_0", "="]),
)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@settings(max_examples=50)
@given(st.dictionaries(texts, nested, max_size=4))
def test_yaml_comes_back_with_its_types(content: dict[str, Any]) -> None:
    assert load_yaml(dump_yaml({"key": content}), "file") == {"key": content}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.5e3", 1.5e3),
        ("-.5e3", -500.0),
        ("2_0e2", 2000.0),
        ("1e", "1e"),
        ("e5", "e5"),
        ("'1e5'", "1e5"),
        ("2024-01-31", "2024-01-31"),
        ("2_000_000", 2_000_000),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, value: Any) -> None:
    read = load_yaml(f"key: {text}", "file")["key"]
    assert read == value
    assert type(read) is type(value)


def test_merged_keys_may_repeat() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n"
    assert load_yaml(text, "file") == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}


def test_configuration_imports_neither_torch_nor_ray_nor_numpy() -> None:
    code = "import sys, tune_rnn.experiment; print({'torch', 'ray', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize(("written", "report_every", "first_rung"), [("", 500, 500), ("report_every: 300", 300, 300)])
def test_what_was_derived_from_a_budget_is_derived_again_from_another(
    written: str, report_every: float, first_rung: float
) -> None:
    """A run's own file has every default filled in."""
    text = f"name: x\ntraining: {{{written}}}\nbudget: {{tokens: 100000, trials: 2}}\n"
    filled = Experiment.from_yaml_text(Experiment.from_yaml_text(text).to_yaml())
    smaller = filled.with_overrides(["budget.tokens=10000"])
    assert (smaller.report_every, smaller.scheduler.first_rung) == (report_every, first_rung)
    assert smaller.with_overrides(["budget.trials=3"]).report_every == report_every


@pytest.mark.parametrize(
    ("written", "final"),
    [
        ("", Final()),
        ("final:\n", Final()),
        ("final: null\n", Final()),
        ("final: {top_k: 0, seeds: 5, audit: 2}\n", None),
        ("final: {seeds: 5}\n", Final(top_k=3, seeds=5)),
        ("final: {top_k: 2, epochs: 12}\n", Final(top_k=2, epochs=12.0)),
    ],
)
def test_a_search_has_a_final_stage_and_one_line_switches_it_off(written: str, final: Final | None) -> None:
    text = "name: x\nbudget: {epochs: 8, trials: 12}\nmodel: {layers: {int: [1, 2]}}\n" + written
    found = Experiment.from_yaml_text(text)
    assert found.final == final
    assert Experiment.from_yaml_text(found.to_yaml()) == found, "the run's own file says so"
    assert Experiment.from_yaml_text(text, ["final.top_k=0"]).final is None
    assert found.without_final().final is None


@pytest.mark.parametrize(("trials", "top_k"), [(1, 1), (4, 1), (7, 1), (8, 2), (12, 3), (500, 3)])
def test_a_small_search_has_a_small_final_stage(trials: int, top_k: int) -> None:
    text = f"name: x\nbudget: {{epochs: 8, trials: {trials}}}\nmodel: {{layers: {{int: [1, 2]}}}}\n"
    assert Experiment.from_yaml_text(text).final == Final(top_k=top_k)
    assert Experiment.from_yaml_text(text + "final: {top_k: 3}\n").final == Final(top_k=3)


LAYERS, GRID = "model: {layers: {int: [1, 2]}}\n", "search: {algorithm: grid, seeds: 2}\n"
RATE = "training: {learning_rate: {log_uniform: [1e-4, 1e-2]}}\n"
PBT = "search: {algorithm: random}\nscheduler: {algorithm: pbt}\n"


@pytest.mark.parametrize(
    ("text", "top_k"),
    [
        ("", 0),
        ("final: {seeds: 5}\n", 1),  # one configuration is one candidate
        (LAYERS + GRID, 0),
        (LAYERS + GRID.replace("2", "1"), 1),
        (LAYERS + GRID + "final: {top_k: 1}\n", 1),
        (RATE + PBT, 0),
        (RATE + PBT + "final: {seeds: 5}\n", 0),
        (PBT + "final: {seeds: 5}\n", 1),  # with nothing to search there is no population
    ],
)
def test_without_a_search_of_single_runs_there_is_no_final_stage_by_default(text: str, top_k: int) -> None:
    found = Experiment.from_yaml_text("name: x\nbudget: {epochs: 8, trials: 12}\n" + text)
    assert (found.final.top_k if found.final else 0) == top_k
    assert f"final:\n  top_k: {top_k}\n" in found.to_yaml()
    assert Experiment.from_yaml_text(found.to_yaml()) == found


def test_a_run_from_before_there_was_a_default_has_no_final_stage(tmp_path: Path) -> None:
    text, file = "name: x\nbudget: {epochs: 8, trials: 12}\n" + LAYERS, tmp_path / "experiment.yaml"
    file.write_text(text)
    assert Experiment.of_run(file).final is None
    assert Experiment.of_run(file).with_overrides(["final.top_k=2"]).final == Final(top_k=2)
    file.write_text(text + "final: {seeds: 4}\n")
    assert Experiment.of_run(file).final == Final(seeds=4)
    file.write_text(Experiment.from_yaml_text(text).to_yaml())
    assert Experiment.of_run(file).final == Final()


def test_a_final_training_is_as_long_as_the_search_s_unless_it_is_longer() -> None:
    budget = Budget(epochs=8, trials=4)
    assert Final().amount(budget) == 8
    assert Final(epochs=12).amount(budget) == 12
    assert Final(tokens=3_000_000).amount(Budget(tokens=1_000_000)) == 3_000_000
