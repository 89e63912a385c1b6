"""Comparing trials of different budgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.search.comparison import expected_scores
from tune_rnn.search.evidence import Evidence
from tune_rnn.search.observed import Observed


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


def test_how_a_capped_score_improves_is_expected_of_nobody() -> None:
    """One learns far too slowly: its scores are capped, and lower and lower, as so are the caps."""
    slow, good = trial(3.53, 3.02, 2.79, 2.58), trial(1.86, 1.51, 1.40, 1.33)
    others = [trial(2.10, 1.79, 1.73), trial(1.88, 1.56, 1.44, 1.37), trial(1.88), trial(1.92), trial(2.03)]
    expected = expected_scores([slow, good, *others, trial(1.66, 1.57)])
    assert 1.33 < expected[-1] < 1.55


def test_a_trial_that_reported_later_than_others_hides_nothing() -> None:
    """As of an earlier run whose reports were rarer."""
    late = Observed({}, [2.0, 4.0, 8.0], [3.2, 2.2, 1.2])
    long = [trial(4.0, 3.0, 2.0, 1.0), trial(4.4, 3.4, 2.4, 1.4)]
    expected = expected_scores([late, *long, trial(4.1), trial(3.8, 2.8)])
    assert expected == pytest.approx([1.2, 1.0, 1.4, 1.1, 0.8], abs=0.05)


def test_budgets_that_lie_close_are_taken_for_one() -> None:
    """Of 1, 2, … 7 those at 7, 4, 2 and 1 are looked at."""
    budgets = tuple(float(spent) for spent in range(1, 8))
    curves = [trial(*np.linspace(2 + 0.1 * n, 1 + 0.1 * n, 7), spent=budgets) for n in range(4)]
    assert expected_scores(curves) == pytest.approx([curve.scores[6] for curve in curves])


def of_group(group: str, *scores: float) -> list[Observed]:
    return [Observed({}, [1.0], [score], group=group) for score in scores]


def test_the_best_of_another_study_is_good_and_its_worst_is_bad() -> None:
    """Losses of the other data are all far above; one of its trials is as much above the others as one here."""
    own, other = of_group("", 1.0, 1.1, 1.2, 1.3, 1.6), of_group("x", 40.0, 41.0, 42.0, 43.0, 46.0)
    expected = expected_scores([*other, *own])
    assert expected[5:].tolist() == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.6]), "this study's own stay as they are"
    assert expected[:5] == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.6])
    order = np.argsort(expected, kind="stable")
    assert {int(place) for place in order[:2]} == {0, 5}
    assert {int(place) for place in order[-2:]} == {4, 9}


def test_each_other_study_is_compared_within_itself() -> None:
    first, second = of_group("x", 10.0, 11.0, 12.0), of_group("y", 500.0, 510.0, 520.0)
    alone = expected_scores([*first, *second])
    assert alone[:3] == pytest.approx(alone[3:])
    assert np.median(alone) == pytest.approx(0.0), "there is no own scale yet"
    expected = expected_scores([*first, *second, *of_group("", 2.0)])
    assert (np.diff(expected[:3]) > 0).all()
    assert expected[1] == expected[4] == expected[6] == 2.0


def test_budgets_of_another_study_are_its_own() -> None:
    """There is nothing to learn from 100 epochs there about what 8 bring here."""
    other = [Observed({}, [50.0, 100.0], [9.0 - n, 8.0 - n], group="x") for n in range(3)]
    own = [trial(4.0, 3.0), trial(5.0)]
    expected = expected_scores([*other, *own])
    assert expected[3:].tolist() == expected_scores(own).tolist()
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("scores", [(1.0,), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 2.0)])
def test_groups_without_a_spread(scores: tuple[float, ...]) -> None:
    bad = Observed({}, bad=True, group="x")
    for own, other in ((scores, (5.0, 6.0, 9.0)), ((5.0, 6.0, 9.0), scores)):
        expected = expected_scores([*of_group("", *own), *of_group("x", *other), bad])
        assert np.isfinite(expected[:-1]).all()
        assert expected[-1] == math.inf
        assert (np.diff(expected[: len(own)]) >= 0).all()
        assert (np.diff(expected[len(own) : -1]) >= 0).all()


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
    expected = evidence.expected
    evidence.report(0, 3.0, 2.7)
    assert evidence.expected is expected, "nothing to work out anew"
    evidence.report(0, 4.0, math.nan)
    assert evidence.trials[0].bad


def test_evidence_tells_what_is_known_the_oldest_first_and_what_is_pending() -> None:
    evidence = Evidence(of_group("x", 7.0))
    evidence.refuse({"x": 3})
    for number in range(4):
        evidence.begin(number, {"x": number})
    evidence.report(0, 1.0, 2.0)
    evidence.end(1, diverged=True)
    evidence.end(2)
    assert [one.assignment for one in evidence.known] == [{}, {"x": 0}, {"x": 3}, {"x": 1}]
    assert [one.assignment for one in evidence.pending] == [{"x": 3}], "trial 2 has failed"


def test_evidence_keeps_the_order_of_beginning_whoever_reports_first() -> None:
    evidence = Evidence()
    for number in (7, 3, 5):
        evidence.begin(number, {"x": number})
    evidence.end(7)
    for number in (5, 3):
        evidence.report(number, 1.0, 2.0)
    assert [one.assignment["x"] for one in evidence.known] == [3, 5]
    assert evidence.shown == 2
    evidence.report(7, 1.0, 2.0)
    assert [one.assignment["x"] for one in evidence.known] == [7, 3, 5], "it had failed, and was resumed"
    assert evidence.pending == []
    evidence.begin(7, {"x": 8})
    assert [one.assignment["x"] for one in (*evidence.known, *evidence.pending)] == [3, 5, 8]


def test_of_a_very_long_study_the_latest_trials_are_compared_and_those_that_came_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tune_rnn.search.evidence.LATEST", 3)
    evidence = Evidence()
    for number in range(8):
        evidence.begin(number, {"x": number})
        evidence.report(number, 1.0, 2.0)
    evidence.report(1, 9.0, 1.0)
    for number in (1, 2, 3, 4, 6):
        evidence.end(number, diverged=number == 6)
    assert [one.assignment["x"] for one in evidence.known] == [0, 1, 5, 6, 7], "0 still runs, and 1 has come far"
    assert [one.assignment["x"] for one in evidence.latest] == [5, 6, 7]
    assert len(evidence.expected) == 5
    assert evidence.shown == 8


@pytest.mark.parametrize(
    ("trials", "refused", "known"),
    [
        (5, 0, [0, 1, 2, 3, 4]),
        (5, 1, [0, 1, 2, 3, -1, 4]),
        (5, 2, [0, 1, -1, 2, 3, -2, 4]),
        (2, 5, [-1, -2, 0, -3, -4, -5, 1]),
        (0, 2, [-1, -2]),
    ],
)
def test_what_is_refused_is_spread_among_the_trials(trials: int, refused: int, known: list[int]) -> None:
    """Whenever it was: the journal that a study is resumed from does not tell."""
    first, last = Evidence(), Evidence()
    for number in range(1, refused + 1):
        first.refuse({"x": -number})
    for number in range(trials):
        for evidence in (first, last):
            evidence.begin(number, {"x": number})
            evidence.report(number, 1.0, 2.0)
    for number in range(1, refused + 1):
        last.refuse({"x": -number})
    assert [one.assignment["x"] for one in first.known] == [one.assignment["x"] for one in last.known] == known


def test_the_course_of_a_loss_depends_on_hyperparameters() -> None:
    """A high x begins low and ends high."""
    places = np.linspace(-0.5, 0.5, 40)
    long = [Observed({}, [1.0, 2.0], [4 - x, 2 + x], features=(x,)) for x in places]
    short = [Observed({}, [1.0], [4 - x], features=(x,)) for x in (-0.4, 0.4)]
    slow, fast = expected_scores([*long, *short])[-2:]
    assert slow < 1.8
    assert fast > 2.2


def test_who_improves_faster_is_expected_to_go_on_so() -> None:
    curves = [trial(4.0 + 0.1 * n, 3.0, 2.0 - 0.1 * n) for n in range(9)]
    slow, fast = expected_scores([*curves, trial(4.1, 3.0), trial(4.7, 3.0)])[-2:]
    assert fast < slow - 0.3
