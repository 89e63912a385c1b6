"""Comparing trials of different budgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.search.comparison import expected_scores
from tune_rnn.search.evidence import Evidence, Observed


def trial(*scores: float, spent: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)) -> Observed:
    return Observed({}, list(spent[: len(scores)]), list(scores))


def test_a_short_trial_is_expected_to_improve_as_the_long_ones_did() -> None:
    long = [trial(4.0, 3.0, 2.0, 1.0), trial(4.4, 3.4, 2.4, 1.4), trial(4.2, 3.2, 2.2, 1.2)]
    expected = expected_scores([*long, trial(4.1), trial(3.8, 2.8)])
    assert expected == pytest.approx([1.0, 1.4, 1.2, 1.1, 0.8])


def test_a_lucky_long_trial_is_not_better_than_a_promising_short_one() -> None:
    """The last scores say the contrary."""
    expected = expected_scores([trial(5.0, 4.0, 3.5, 3.0), trial(3.1)])
    assert expected[1] < expected[0]


def test_what_diverged_is_worst_and_what_has_no_score_is_unknown() -> None:
    bad = trial(0.1)
    bad.bad = True
    expected = expected_scores([trial(1.0), bad, Observed({})])
    assert expected[:2].tolist() == [1.0, math.inf]
    assert math.isnan(expected[2])
    assert expected_scores([bad]).tolist() == [math.inf]
    assert len(expected_scores([])) == 0


def test_a_huge_loss_tilts_no_line() -> None:
    curves = [trial(4 + 0.1 * n, 3 + 0.1 * n, 2 + 0.1 * n) for n in range(9)]
    usual = expected_scores([*curves, trial(4.05)])
    assert expected_scores([*curves, trial(4.05), trial(1e18, 1e18)])[:10] == pytest.approx(usual, abs=0.05)


def test_budgets_that_lie_close_are_taken_for_one() -> None:
    """Of 1, 2, … 7 those at 1, 2, 3 and 5 are looked at."""
    budgets = tuple(float(spent) for spent in range(1, 8))
    curves = [trial(*np.linspace(2 + 0.1 * n, 1 + 0.1 * n, 7), spent=budgets) for n in range(4)]
    assert expected_scores(curves) == pytest.approx([curve.scores[4] for curve in curves])


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30), st.integers(0, 1000))
def test_the_order_at_a_budget_is_kept(first: list[float], seed: int) -> None:
    """Whatever the longer trials show, two that stopped at the same budget keep their order."""
    rng = np.random.default_rng(seed)
    long = [trial(a, a * rng.random(), 0.1 * rng.random()) for a in rng.uniform(0.1, 10, 5)]
    expected = expected_scores([*long, *(trial(score) for score in first)])[5:]
    order = np.argsort(first, kind="stable")
    assert (np.diff(expected[order]) >= -1e-9).all()


def test_evidence_keeps_the_lowest_scores_and_forgets_repeated_reports() -> None:
    evidence = Evidence()
    evidence.begin(0, {})
    for spent, score in ((1.0, 3.0), (2.0, 2.0), (2.0, 2.5), (3.0, 2.7)):
        evidence.report(0, spent, score)
    assert (evidence.trials[0].spent, evidence.trials[0].scores) == ([1.0, 2.0, 3.0], [3.0, 2.0, 2.0])
    evidence.report(0, 4.0, math.nan)
    assert evidence.trials[0].bad
