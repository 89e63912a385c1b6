"""Distributions and the space: maps to and from [0, 1], bounds, types, grids, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tune_rnn import space
from tune_rnn.errors import InputError
from tune_rnn.space import Distribution, Grid, Int, LogInt, Space, Uniform, parse

units = st.floats(0, 1)


@st.composite
def pairs(draw: st.DrawFn, numbers: st.SearchStrategy[Any]) -> list[Any]:
    """A range that is at least a thousandth of its ends wide, so that rounding does not decide."""
    low, high = sorted([draw(numbers), draw(numbers)])
    assume(high - low > 1e-3 * max(abs(low), abs(high)))
    return [low, high]


@st.composite
def steps(draw: st.DrawFn) -> dict[str, list[float]]:
    """A range with a step, in decimals as people write them."""
    low, count, step = draw(st.integers(-50, 50)), draw(st.integers(1, 30)), draw(st.integers(1, 20))
    beyond = draw(st.integers(0, step - 1))
    return {"uniform": [low / 100, (low + count * step + beyond) / 100, step / 100]}


whole = st.integers(-(10**6), 10**6)
continuous = st.one_of(
    st.builds(lambda pair: {"uniform": pair}, pairs(st.floats(-1e6, 1e6))),
    st.builds(lambda pair: {"log_uniform": pair}, pairs(st.floats(1e-9, 1e6))),
    st.builds(
        lambda mean, std, below, above: {"normal": [mean, std, mean - below * std, mean + above * std]},
        st.floats(-100, 100), st.floats(0.01, 100), st.floats(0.1, 5), st.floats(0.1, 5),
    ),
)  # fmt: skip
finite = st.one_of(
    st.builds(lambda pair: {"int": pair}, pairs(whole)),
    st.builds(
        lambda low, n, step: {"int": [low, low + n * step, step]},
        whole, st.integers(1, 40), st.integers(1, 64),
    ),
    st.builds(lambda pair: {"log_int": pair}, pairs(st.integers(1, 10**5))),
    steps(),
    st.builds(
        lambda name, values: {name: values},
        st.sampled_from(["choice", "grid"]),
        st.lists(whole | st.text(max_size=5) | st.floats(-9, 9), min_size=1, max_size=9, unique=True),
    ),
)  # fmt: skip


@given(st.one_of(continuous, finite), units)
def test_values_keep_bounds_and_types(written: dict[str, list[Any]], u: float) -> None:
    distribution = parse(written, "key")
    value = distribution.from_unit(u)
    if distribution.categories() is not None:
        assert any(value is option for option in written[distribution.name])
        return
    low, high = distribution.corners()
    assert low <= value <= high  # type: ignore[operator]
    assert type(value) is (int if distribution.name in ("int", "log_int") else float)


@given(st.one_of(continuous, finite), units, units)
def test_the_map_ascends(written: dict[str, list[Any]], u: float, v: float) -> None:
    distribution = parse(written, "key")
    assume(distribution.categories() is None)
    assert distribution.from_unit(min(u, v)) <= distribution.from_unit(max(u, v))  # type: ignore[operator]


@given(continuous, units)
def test_unit_and_value_are_inverse(written: dict[str, list[Any]], u: float) -> None:
    distribution = parse(written, "key")
    assert distribution.values() is None
    assert distribution.to_unit(distribution.from_unit(u)) == pytest.approx(u, abs=1e-6)


@given(finite, units)
def test_a_finite_value_comes_back_from_the_middle_of_its_cell(written: dict[str, list[Any]], u: float) -> None:
    distribution = parse(written, "key")
    value, values = distribution.from_unit(u), distribution.values()
    assert values is not None
    assert value in values
    middle = distribution.to_unit(value)
    assert distribution.from_unit(middle) == value
    if distribution.name != "log_int":
        assert abs(middle - u) <= 0.5 / len(values) + 1e-9


@given(st.one_of(continuous, finite))
def test_corners_are_the_ends_and_yaml_gives_the_same_again(written: dict[str, list[Any]]) -> None:
    distribution = parse(written, "key")
    assert parse(distribution.to_yaml(), "key") == distribution
    corners = distribution.corners()
    assert corners[0] == pytest.approx(distribution.from_unit(0))
    assert corners[-1] == pytest.approx(distribution.from_unit(1))


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (space.int(1, 3), [1, 2, 3]),
        (space.int(64, 512, 64), [64, 128, 192, 256, 320, 384, 448, 512]),
        (space.int(64, 200, 64), [64, 128, 192]),
        (space.log_int(1, 4), [1, 2, 3, 4]),
        (space.uniform(0, 0.5, 0.05), [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]),
        (space.uniform(0.1, 0.3, 0.2), [0.1, 0.3]),
        (space.uniform(0.1, 0.45, 0.1), [0.1, 0.2, 0.3, 0.4]),
        (space.choice("lstm", "gru"), ["lstm", "gru"]),
        (space.choice([True, False]), [True, False]),
        (space.grid(0, 0.25), [0, 0.25]),
    ],
)
def test_all_values(distribution: Distribution, expected: list[Any]) -> None:
    values = distribution.values()
    assert values is not None
    assert list(values) == expected
    middles = [distribution.from_unit(distribution.to_unit(value)) for value in expected]
    assert middles == expected
    assert [type(value) for value in middles] == [type(value) for value in expected]


def test_whole_numbers_of_a_log_range_are_as_likely_as_they_are_wide() -> None:
    distribution = LogInt(1, 8)
    cells = [distribution.from_unit((i + 0.5) / 10_000) for i in range(10_000)]
    for value in range(1, 9):
        expected = math.log((value + 0.5) / (value - 0.5)) / math.log(8.5 / 0.5)
        assert cells.count(value) / 10_000 == pytest.approx(expected, abs=2e-4)


def test_normal_has_the_quantiles_of_a_truncated_normal() -> None:
    distribution = parse({"normal": [0, 1, -1, 2]}, "key")
    draws = np.random.default_rng(0).normal(size=400_000)
    kept = draws[(draws >= -1) & (draws <= 2)]
    for u in (0.1, 0.5, 0.9):
        assert distribution.from_unit(u) == pytest.approx(np.quantile(kept, u), abs=0.01)
    far = parse({"normal": [0, 1, -100, 100]}, "key")
    assert (far.from_unit(0), far.from_unit(1)) == (-100, 100)


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (space.uniform(0, 1), 1.5),
        (space.uniform(0, 1, 0.25), 0.3),
        (space.uniform(0, 1), "text"),
        (space.log_uniform(0.1, 1), 0.01),
        (space.int(1, 9, 2), 4),
        (space.int(1, 8, 2), 8),
        (space.int(1, 8), 2.5),
        (space.log_int(1, 8), 2.5),
        (space.log_int(1, 8), 9),
        (space.normal(0, 1, -1, 1), -2),
        (space.choice("a", "b"), "c"),
    ],
)
def test_a_value_outside_has_no_unit(distribution: Distribution, value: Any) -> None:
    with pytest.raises(ValueError, match=r"is not in|is no |not in tuple"):
        distribution.to_unit(value)


@pytest.mark.parametrize(
    ("distribution", "low", "high", "inside"),
    [
        (space.uniform(0, 0.5), 0.01, 0.495, 0.02),
        (space.uniform(0, 1, 0.3), 0.0, 0.9, 0.3),
        (space.log_uniform(1e-8, 1e-4), 1.1e-8, 9e-5, 1e-7),
        (space.int(1, 100), 2, 99, 4),
        (space.int(64, 200, 64), 64, 192, 128),
        (space.log_int(1, 1000), 1, 900, 2),
        (space.normal(0, 1, -2, 2), -1.95, 1.95, 0),
    ],
)
def test_edges(distribution: Distribution, low: float, high: float, inside: float) -> None:
    assert [distribution.at_edge(value) for value in (low, high, inside)] == ["low", "high", None]


def test_choices_have_no_edge() -> None:
    assert space.choice(1, 2, 3).at_edge(1) is None
    assert space.grid(1, 2, 3).categories() == 3
    assert space.int(1, 3).categories() is None


NUMBERS = "must be finite and between -1e15 and 1e15"
REFUSED: list[tuple[Any, str, str]] = [  # what is written, the rule, the remedy
    ({"uniform": [1, 0]}, "low must be less than high", "Swap the two."),
    ({"uniform": [1, 1]}, "low must be less than high", "Write the value itself, 1, or a range."),
    ({"int": [5, 2]}, "low must be less than high", "Swap the two."),
    ({"log_uniform": [1e-2, 1e-4]}, "low must be less than high", "Swap the two."),
    ({"log_int": [8, 8]}, "low must be less than high", "Write the value itself, 8"),
    ({"normal": [0, 1, 1, -1]}, "low must be less than high", "Swap the two."),
    ({"log_uniform": [0, 1]}, "a logarithmic range cannot touch 0", "Raise low"),
    ({"log_uniform": [-1, 1]}, "low must be greater than 0", "for example to 1e-8, or write uniform."),
    ({"log_int": [0, 8]}, "low must be greater than 0", "Raise low, for example to 1, or write int."),
    ({"uniform": [0]}, "must have a list of 2 or 3 numbers", "or uniform: [low, high, step]."),
    ({"uniform": 0.5}, "must have a list of 2 or 3 numbers", "Write uniform: [low, high]"),
    ({"uniform": [0, 1, 0.1, 2]}, "must have a list of 2 or 3 numbers", "Write uniform: [low, high]"),
    ({"log_uniform": [1, 8, 2]}, "must have a list of 2 numbers", "Write log_uniform: [low, high]."),
    ({"normal": [0, 1]}, "must have a list of 4 numbers", "Write normal: [mean, std, low, high]."),
    ({"normal": [0, 0, -1, 1]}, "std, 0, must be greater than 0", "Write normal: [mean, std, low, high]."),
    ({"normal": [0, 1, 9, 10]}, "at least 1 in 1,000 draws of the normal must lie", "or write uniform"),
    ({"uniform": ["a", "b"]}, "'a' must be a number", "For other values write choice."),
    ({"int": [1, "2"]}, "'2' must be a number", "Write int: [low, high]"),
    ({"int": [True, 3]}, "True must be a number", "Write int: [low, high]"),
    ({"uniform": [0, math.inf]}, f"inf {NUMBERS}", "Write uniform: [low, high]"),
    ({"uniform": [math.nan, 1]}, f"nan {NUMBERS}", "Write uniform: [low, high]"),
    ({"int": [0, 10**400]}, NUMBERS, "Write int: [low, high]"),
    ({"int": [0.5, 3]}, "0.5 must be a whole number", "For real numbers write uniform."),
    ({"log_int": [1, 2.5]}, "2.5 must be a whole number", "For real numbers write log_uniform."),
    ({"int": [1, 8, 0]}, "the step must be greater than 0", "Write a positive step, or none."),
    ({"uniform": [0, 1, -0.1]}, "the step must be greater than 0", "Write a positive step, or none."),
    ({"int": [1, 8, 9]}, "the step must not be larger than high - low", "Write a smaller step, or none."),
    ({"uniform": [0, 1, 1e-9]}, "there must be at most 100,000 steps", "Write a larger step, or none."),
    ({"choice": []}, "must be a list of at least one value", "Write choice: [value, value]."),
    ({"choice": "lstm"}, "must be a list of at least one value", "Write choice: [value, value]."),
    ({"grid": None}, "must be a list of at least one value", "Write grid: [value, value]."),
    ({"choice": [[1], [2]]}, "each value must be a number, a text or true/false, not [1]", "write one_of."),
    ({"choice": [None, 1]}, "each value must be a number, a text or true/false, not None", "write one_of."),
    ({"grid": [1, math.nan]}, "each value must be finite, not nan", "Remove it."),
    ({"choice": [1, 2, 1]}, "1 must not stand there twice", "Write every value once."),
    ({"unifrom": [0, 1]}, "there is no distribution 'unifrom'", "Did you mean uniform?"),
    ({"zipf": [0, 1]}, "there is no distribution 'zipf'", "There are uniform, log_uniform, int,"),
    ({}, "must be one value or one distribution", "Write one, for example {uniform: [0, 0.5]}."),
    ({"uniform": [0, 1], "int": [0, 1]}, "must be one value or one distribution", "Write one"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "rule", "remedy"), REFUSED, ids=[str(row[0])[:40] for row in REFUSED])
def test_refused_with_key_value_rule_and_remedy(written: Any, rule: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(written, "model.hidden_size")
    message = str(caught.value)
    assert message.startswith(f"model.hidden_size: {str(written)[:50]}")
    assert rule in message
    assert remedy in message
    assert "\n" not in message


def test_python_names_refuse_the_same() -> None:
    with pytest.raises(InputError, match=r"space\.log_uniform: .* cannot touch 0"):
        space.log_uniform(0, 1)
    assert space.int(64, 512, 64) == Int(64, 512, 64)
    assert space.uniform(0, 1) == Uniform(0.0, 1.0)
    assert space.grid([1, 2]) == Grid((1, 2))


BRANCHED = Space(
    {"model.layers": space.int(1, 2), "model.tied": space.choice(True, False)},
    {"sgd": {"training.learning_rate": space.grid(1, 10)}, "adam": {}},
)


def test_a_grid_has_every_point_of_every_branch_once() -> None:
    points = BRANCHED.grid()
    assert BRANCHED.grid_size() == len(points) == 2 * 2 * 2 + 2 * 2
    assert len({tuple(point.items()) for point in points}) == len(points)
    sgd = {"one_of": "sgd", "model.layers": 1, "model.tied": True, "training.learning_rate": 1}
    assert points[:2] == [sgd, {**sgd, "training.learning_rate": 10}]
    assert points[-1] == {"one_of": "adam", "model.layers": 2, "model.tied": False}


def test_nothing_to_search_is_one_point() -> None:
    nothing = Space({}, {})
    assert nothing.is_empty
    assert not BRANCHED.is_empty
    assert not Space({}, {"a": {}, "b": {}}).is_empty
    assert nothing.grid() == [{}]
    assert nothing.sample(np.random.default_rng(0)) == {}


def test_samples_are_reproducible_and_reach_every_branch() -> None:
    samples = [BRANCHED.sample(np.random.default_rng(seed)) for seed in range(40)]
    assert samples == [BRANCHED.sample(np.random.default_rng(seed)) for seed in range(40)]
    assert {sample["one_of"] for sample in samples} == {"sgd", "adam"}
    for sample in samples:
        assert set(sample) == {"one_of", *BRANCHED.distributions(sample["one_of"])}
    assert all(type(sample["model.layers"]) is int for sample in samples)


def test_a_grid_refuses_a_continuous_distribution() -> None:
    with pytest.raises(InputError, match=r"^training\.learning_rate: .*finitely many.*grid: \[value, value\]"):
        Space({"training.learning_rate": space.log_uniform(1e-4, 1)}, {}).grid_size()
    with pytest.raises(InputError, match=r"^model\.x: .*this distribution is continuous\. Write a step"):
        Space({"model.x": space.uniform(0, 1)}, {}).grid()


def test_a_grid_beyond_any_budget_is_refused_at_once() -> None:
    wide = Space({f"model.{letter}": space.int(0, 10**12) for letter in "abc"}, {})
    with pytest.raises(InputError, match=r"must not have more than 100,000 points, and has 1,000,000,"):
        wide.grid()
