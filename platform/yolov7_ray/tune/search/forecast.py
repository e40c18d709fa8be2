"""What trials will reach at their end, from what they and the others reached so far.

The figures of a trial at the rungs, and what is known of it in advance, are one draw of a normal distribution whose
mean and covariance are fitted by expectation maximisation with a weak prior (figures of near rungs resemble each
other). As trials are promoted by figures that the fit knows, those that were left behind do not distort it (missing at
random: Little and Rubin, Statistical Analysis with Missing Data, chapter 11).

N trials · K rungs · C covariates · V = K + C columns
"""

import numpy as np

STEPS = 12
"""Of expectation maximisation, each time from the prior on, so that a resumed search forecasts the same."""
PRIOR_TRIALS = 6.0
"""How many trials the prior of the covariance weighs as much as."""
PRIOR_MEAN_TRIALS = 0.3
CORRELATION = 0.8
"""Between the figures of neighbouring rungs, before any is known."""
LEAST_STD = 0.02
"""Of a forecast, in units of the spread between trials: a training told again differs by that."""


def forecast(figures: np.ndarray, covariates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (N,) of the figure at the last rung.

    figures: (N, K), NaN where a trial has not been. covariates: (N, C), known for all. Where the last rung is known
    it is returned, with no deviation.
    """
    num_rungs = figures.shape[1]
    known = figures[~np.isnan(figures)]
    if not len(known):
        return np.zeros(len(figures)), np.ones(len(figures))
    latest = np.array([row[~np.isnan(row)][-1] if (~np.isnan(row)).any() else known.mean() for row in figures])
    scale = latest.std() or abs(latest.mean()) or 1.0
    spread = covariates.std(0)
    covariates = (covariates - covariates.mean(0)) / np.where(spread > 0, spread, 1)
    values = np.hstack([(figures - latest.mean()) / scale, covariates])
    mean, covariance = fit(values, num_rungs)
    missing = np.isnan(values)
    expected, deviation = values[:, num_rungs - 1].copy(), np.zeros(len(values))
    for rows, found, lost in patterns(missing):
        if missing[rows[0], num_rungs - 1]:
            filled, rest = condition(values[rows], mean, covariance, found, lost)
            at = lost.tolist().index(num_rungs - 1)
            expected[rows] = filled[:, at]
            deviation[rows] = max(np.sqrt(max(rest[at, at], 0)), LEAST_STD)
    return expected * scale + latest.mean(), deviation * scale


def fit(values: np.ndarray, num_rungs: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (V,) and covariance (V, V) of the rows, NaN where unknown; the first columns are the rungs."""
    num, width = values.shape
    prior = np.eye(width)
    rungs = np.arange(num_rungs)
    prior[:num_rungs, :num_rungs] = CORRELATION ** abs(rungs[:, None] - rungs)
    mean, covariance = np.zeros(width), prior.copy()
    groups = patterns(np.isnan(values))
    for _ in range(STEPS):
        filled, extra = np.where(np.isnan(values), 0.0, values), np.zeros((width, width))
        for rows, found, lost in groups:
            if len(lost):
                filled[np.ix_(rows, lost)], rest = condition(values[rows], mean, covariance, found, lost)
                extra[np.ix_(lost, lost)] += len(rows) * rest
        mean = filled.sum(0) / (num + PRIOR_MEAN_TRIALS)
        centred = filled - mean
        covariance = (PRIOR_TRIALS * prior + centred.T @ centred + extra + PRIOR_MEAN_TRIALS * np.outer(mean, mean)) / (
            num + PRIOR_TRIALS)
    return mean, covariance


def patterns(missing: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows that lack the same columns, the columns they have, and those they lack."""
    kinds, kind_of = np.unique(missing, axis=0, return_inverse=True)
    return [(np.flatnonzero(kind_of.reshape(-1) == number), np.flatnonzero(~kind), np.flatnonzero(kind))
            for number, kind in enumerate(kinds)]


def condition(values: np.ndarray, mean: np.ndarray, covariance: np.ndarray, found: np.ndarray, lost: np.ndarray,
              ) -> tuple[np.ndarray, np.ndarray]:
    """Expected columns ``lost`` of rows that have the columns ``found``, and their covariance."""
    if not len(found):
        return np.tile(mean[lost], (len(values), 1)), covariance[np.ix_(lost, lost)]
    across = covariance[np.ix_(found, lost)]
    weights = np.linalg.solve(covariance[np.ix_(found, found)], across)
    return mean[lost] + (values[:, found] - mean[found]) @ weights, covariance[np.ix_(lost, lost)] - across.T @ weights
