"""Comparing trials that had different budgets: what each one's score would be at the deepest budget any had.

A trial stopped after one epoch and one trained to the end cannot be compared by their last scores. But between any
two budgets there are trials that had both. From these the score at the next budget is predicted by a straight line,
pulled towards "all improve alike" where few trials tell (ridge regression of slope 1), and so from budget to budget
up to the deepest one. The order of trials at a budget is kept unless the line falls, which it is not allowed to.

Trials of earlier studies on other data are compared among themselves. What is best there shall be good here, and what
is worst there bad: a group's scores, standardised by their median and spread, are put on the scale of this study's own
scores (on that of median 0 and spread 1 as long as there are none), the shape of their distribution being kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune_rnn.search.evidence import OWN, Observed

Array = NDArray[np.float64]

SPACING = 1.5
"""Ratio between neighbouring budgets that are looked at: more would predict noise from noise."""

PRIOR = 2.0
"""Weight of "all improve alike", in trials."""

CAP = 2.0
"""Scores further above the median than so many times the best one's distance below it are taken to be there."""

NORMAL = 1.4826
"""Standard deviation of a normal distribution over the median distance from its median."""


def expected_scores(trials: list[Observed]) -> Array:
    """For each trial its score as it would be at the deepest budget of its group; inf for a bad one, NaN where unknown.

    Scores of all groups are on one scale, that of this study's own.
    """
    if {trial.group for trial in trials} == {OWN}:  # as nearly always, and there may be thousands
        return _comparable(trials)
    groups = np.array([trial.group for trial in trials], dtype=object)
    expected = np.full(len(trials), np.nan)
    for group in dict.fromkeys(groups):
        (members,) = np.nonzero(groups == group)
        expected[members] = _comparable([trials[member] for member in members])
    return _on_one_scale(expected, groups)


def _on_one_scale(expected: Array, groups: NDArray[np.object_]) -> Array:
    own_median, own_spread = _median_and_spread(expected[groups == OWN])
    for group in set(groups) - {OWN}:
        members = groups == group
        median, spread = _median_and_spread(expected[members])
        expected[members] = own_median + own_spread * (expected[members] - median) / spread
    return expected


def _median_and_spread(scores: Array) -> tuple[float, float]:
    """Median and standard deviation, as the median distance from the median tells it: some scores lie far above."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return 0.0, 1.0
    median = float(np.median(finite))
    spread = NORMAL * float(np.median(np.abs(finite - median))) or float(finite.std())
    return median, spread or 1.0


def _comparable(trials: list[Observed]) -> Array:
    """The expected scores of one group."""
    levels = _levels(trials)
    bad = np.array([trial.bad for trial in trials], dtype=bool)
    rows = b"".join([trial.scores_at(levels) for trial in trials])
    scores = np.frombuffer(rows).reshape(len(trials), len(levels)).T.copy()
    scores[:, bad] = np.nan
    expected = _capped(scores[0]) if len(levels) else np.full(len(trials), np.nan)
    for at_level in scores[1:]:
        expected = _one_level_on(expected, _capped(at_level))
    return np.where(bad, np.inf, expected)


def _levels(trials: list[Observed]) -> tuple[float, ...]:
    """The budgets that are looked at: the lowest of all, and each next one at a ratio of at least `SPACING`."""
    seen = sorted(set[float]().union(*[trial.spent for trial in trials if not trial.bad]))
    chosen: list[float] = []
    for spent in seen:
        if not chosen or spent >= SPACING * chosen[-1]:
            chosen.append(spent)
    return tuple(chosen)


def _capped(scores: Array) -> Array:
    """Scores at one budget; those far above the median, as of trials about to diverge, would tilt every line."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return scores
    median = float(np.median(known))
    capped: Array = np.minimum(scores, median + CAP * (median - float(known.min())))
    return capped


def _one_level_on(before: Array, there: Array) -> Array:
    """Scores at the next budget: those that are known, and for the others what the line through them says."""
    both = np.isfinite(before) & np.isfinite(there)
    if not both.any():
        return before
    x, y = before[both], there[both]
    x_mean, y_mean = x.mean(), y.mean()
    spread = ((x - x_mean) ** 2).sum()
    prior = PRIOR * max(float(x.var()), 1e-12)
    slope = max((((x - x_mean) * (y - y_mean)).sum() + prior) / (spread + prior), 0.0)
    return np.where(np.isfinite(there), there, y_mean + slope * (before - x_mean))
