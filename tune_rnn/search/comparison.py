"""Comparing trials that had different budgets: what each one's score would be at the deepest budget any had.

A trial stopped after one epoch and one trained to the end cannot be compared by their last scores. But between any
two budgets there are trials that had both. From these the score at the next budget is predicted, and so from budget to
budget up to the deepest one, by a ridge regression: on the score so far, on how much it has improved since the budget
before, and on the trial's hyperparameters, for what learns slowly may end best. Where few trials tell, all improve
alike: that is what the regression is pulled towards.

Trials of earlier studies on other data are compared among themselves. What is best there shall be good here, and what
is worst there bad: a group's scores, standardised by their median and spread, are put on the scale of this study's own
scores (on that of median 0 and spread 1 as long as there are none), the shape of their distribution being kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune_rnn.search.observed import OWN, Observed

Array = NDArray[np.float64]

SPACING = 1.5
"""Ratio between neighbouring budgets that are looked at: more would predict noise from noise."""

PRIOR, PLACE_PRIOR = 2.0, 20.0
"""In trials, the weight of "all improve alike", and that of "whatever the hyperparameters are"."""

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
    scores_LN = np.frombuffer(rows).reshape(len(trials), len(levels)).T.copy()
    scores_LN[:, bad] = np.nan
    if not len(levels):
        return np.where(bad, np.inf, np.nan)
    features_NF = np.array([trial.features for trial in trials]).reshape(len(trials), -1)
    capped_LN = np.array([_capped(scores_N) for scores_N in scores_LN])
    tells_LN = capped_LN == scores_LN  # neither unknown nor capped
    expected, improved = capped_LN[0], None
    for before_N, there_N, tells_N in zip(tells_LN, capped_LN[1:], tells_LN[1:], strict=False):
        there = _next_level(expected, improved, features_NF, there_N, before_N & tells_N)
        expected, improved = there, there - expected
    return np.where(bad, np.inf, expected)


def _levels(trials: list[Observed]) -> tuple[float, ...]:
    """The budgets that are looked at: the deepest of all, and from there each next one at a ratio of `SPACING`."""
    seen = sorted(set[float]().union(*[trial.spent for trial in trials if not trial.bad]), reverse=True)
    chosen: list[float] = []
    for spent in seen:
        if not chosen or spent * SPACING <= chosen[-1]:
            chosen.append(spent)
    return tuple(reversed(chosen))


def _capped(scores: Array) -> Array:
    """Scores at one budget; those far above the median, as of trials about to diverge, would tilt every line.

    How much a capped score improves, or seems to, as the cap itself changes from budget to budget, tells nothing.
    """
    known = scores[np.isfinite(scores)]
    if not len(known):
        return scores
    median = float(np.median(known))
    capped: Array = np.minimum(scores, median + CAP * (median - float(known.min())))
    return capped


def _next_level(
    scores_N: Array, improved_N: Array | None, features_NF: Array, there_N: Array, tells_N: NDArray[np.bool_]
) -> Array:
    """Scores at the next budget: those that are known, and for the others what the regression says.

    It learns from the trials of `tells_N`, whose scores are known at both budgets; without any, nobody improves.
    The lowest loss so far never rises, so that nobody is expected above the score that it has.
    """
    (known,) = np.nonzero(tells_N)
    if not len(known):
        return np.where(np.isfinite(there_N), there_N, scores_N)
    if improved_N is not None:  # unknown of a trial whose first report was at a later budget than others'
        improvements = improved_N[known][np.isfinite(improved_N[known])]
        improved_N = np.where(np.isfinite(improved_N), improved_N, improvements.mean() if len(improvements) else 0.0)
    curve = [scores_N] if improved_N is None else [scores_N, improved_N]
    inputs_ND = np.column_stack([*curve, features_NF])
    there_mean = there_N[known].mean()
    inputs_ND -= inputs_ND[known].mean(axis=0)
    told_KD = inputs_ND[known]
    of_curve = [PRIOR * max(float(column_K.var()), 1e-12) for column_K in told_KD.T[: len(curve)]]
    prior_D = np.array(of_curve + [PLACE_PRIOR / 12] * features_NF.shape[1])  # 1/12: variance of a place
    weights_D = _ridge(told_KD, there_N[known] - there_mean - told_KD[:, 0], prior_D)
    weights_D[0] += 1  # all improve alike
    if weights_D[0] < 0:  # what was better would be worse: it tells nothing
        weights_D[0], weights_D[1:] = 0.0, _ridge(told_KD[:, 1:], there_N[known] - there_mean, prior_D[1:])
    predicted_N = there_mean + inputs_ND @ weights_D
    expected_N: Array = np.where(np.isfinite(there_N), there_N, np.minimum(predicted_N, scores_N))
    return expected_N


def _ridge(inputs_KD: Array, targets_K: Array, prior_D: Array) -> Array:
    """Weights (D,) of the regression; the prior is how much the inputs vary in as many trials as it is worth."""
    gram_DD = inputs_KD.T @ inputs_KD + np.diag(prior_D)
    return np.asarray(np.linalg.solve(gram_DD, inputs_KD.T @ targets_K), np.float64)
