"""What trials will reach at their end, from what they and the others have reached so far.

A trial's figures at the rungs are a draw of a normal distribution, fitted by expectation maximisation with a weak
prior; what trials promoted by figures that the fit knows leave unknown does not distort it (missing at random: Little
and Rubin, Statistical Analysis with Missing Data, chapter 11). Trials of similar values deviate from it in similar
ways: a Gaussian process over rungs and values (freeze-thaw, Swersky et al. 2014), weighed by how well it tells each end
from the others.

N trials · K rungs · F features · M known figures
"""

from collections.abc import Mapping, Sequence

import numpy as np

STEPS = 12
"""Of expectation maximisation, each time from the prior on, so that a resumed search forecasts the same."""
PRIOR_TRIALS, PRIOR_MEAN_TRIALS = 6.0, 0.3
"""How many trials the prior weighs as much as: that of the covariance, that of the means."""
RUNG_CORRELATION, COST_CORRELATION = 0.8, 0.3
"""Prior correlation of the figures at neighbouring rungs, and of the last figure and the cost of an epoch: larger
models reach more, but not yet at the first rung."""
SIMILARITY, LEAST_ENDS = (0.6, 0.0, 0.3, 0.9), 4
"""Shares of the variance between trials that their values may explain; the first one until so many ends are known."""
LENGTH = 0.4
"""Distance between values, as a part of their range, over which trials resemble each other."""
ROUNDING = 1e-9
"""Trials whose figures differ by no more, as a part of these, are equal."""
NOISE = 1e-2
"""Least standard deviation of a forecast, in units of the spread between trials."""


def encode(values: Sequence[Mapping[str, object]], costs: Sequence[float]) -> np.ndarray:
    """(N, F) in [0, 1]: cost and values of each trial, positive numbers by their logarithm, others as columns."""
    columns = [np.log(np.asarray(costs, np.float64))]
    for key in sorted({key for row in values for key in row}):
        column = [row.get(key) for row in values]
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column):
            numbers = np.array(column, np.float64)
            columns.append(np.log(numbers) if numbers.min() > 0 else numbers)
        else:
            columns += [np.array([str(value) == kind for value in column], np.float64) / np.sqrt(2)
                        for kind in sorted(set(map(str, column)))]
    found = np.array(columns).T
    low, high = found.min(0), found.max(0)
    varied = high > low
    return (found[:, varied] - low[varied]) / (high - low)[varied]


def forecast(figures: np.ndarray, costs: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (N,) of the figure at the last rung.

    figures: (N, K), NaN where a trial has not been, at least one known in all. costs: (N,), of an epoch, above 0.
    features: (N, F) of `encode`. Where the last figure is known it is returned, with no deviation. Figures to which no
    distribution can be fitted are taken as they are.
    """
    try:
        return _fitted(figures, costs, features)
    except np.linalg.LinAlgError:
        newest = np.array([row[~np.isnan(row)][-1] if (~np.isnan(row)).any() else np.nan for row in figures])
        known, average, spread = ~np.isnan(figures[:, -1]), np.nanmean(newest), np.nanstd(newest)
        return np.where(np.isnan(newest), average, newest), np.where(known, 0, spread or 1.0)


def _fitted(figures: np.ndarray, costs: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    num, num_rungs = figures.shape
    centre = np.mean([row[~np.isnan(row)][-1] for row in figures if (~np.isnan(row)).any()])
    around = np.concatenate([column - column.mean() for column in (column[~np.isnan(column)] for column in figures.T)
                             if len(column)])
    spread = around.std()
    scale = spread if spread > ROUNDING * abs(centre) else abs(centre) or 1.0
    cost = np.log(costs)
    cost = (cost - cost.mean()) / (cost.std() or 1)
    mean, covariance = fit(np.column_stack([(figures - centre) / scale, cost]))
    slope = covariance[:-1, -1] / covariance[-1, -1]
    of_rungs = covariance[:-1, :-1] - np.outer(slope, covariance[-1, :-1])  # of trials of one cost
    trend = mean[:-1] + np.outer(cost - mean[-1], slope)
    trial, rung = np.nonzero(~np.isnan(figures))
    rest = (figures[trial, rung] - centre) / scale - trend[trial, rung]
    near = similarity(features)
    at_end, best = rung == num_rungs - 1, None
    for share in SIMILARITY if at_end.sum() >= LEAST_ENDS else SIMILARITY[:1]:
        alike = share * near + (1 - share) * np.eye(num)
        factor = np.linalg.cholesky(alike[np.ix_(trial, trial)] * of_rungs[np.ix_(rung, rung)]
                                    + NOISE ** 2 * np.eye(len(rest)))
        white = np.linalg.solve(factor, rest)
        inverse = np.linalg.solve(factor, np.eye(len(rest)))
        error = (((white @ inverse) / (inverse ** 2).sum(0))[at_end] ** 2).sum()  # of each end, were it left out
        if best is None or error < best[0]:
            best = error, alike, factor, white
    _, alike, factor, white = best
    size = (white @ white + PRIOR_TRIALS) / (len(white) + PRIOR_TRIALS)  # by which the fit misses the variance
    gain = np.linalg.solve(factor, (alike[:, trial] * of_rungs[-1, rung]).T)
    expected = trend[:, -1] + white @ gain
    variance = size * (of_rungs[-1, -1] - (gain ** 2).sum(0))
    known = ~np.isnan(figures[:, -1])
    deviation = np.where(known, 0, np.sqrt(np.maximum(variance, NOISE ** 2)) * scale)
    return np.where(known, figures[:, -1], expected * scale + centre), deviation


def similarity(features: np.ndarray) -> np.ndarray:
    """(N, N) correlation of trials by their values; each value's effect is added, and so learnt where it is cheap."""
    if not features.shape[1]:
        return np.eye(len(features))
    return np.exp(-(features[:, None] - features[None]) ** 2 / (2 * LENGTH ** 2)).mean(2)


def fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (V,) and covariance (V, V) of rows of the figures at the rungs, NaN where unknown, and the cost."""
    num, width = values.shape
    rungs = np.arange(width - 1)
    prior = np.eye(width)
    prior[:-1, :-1] = RUNG_CORRELATION ** abs(rungs[:, None] - rungs)
    prior[:-1, -1] = prior[-1, :-1] = COST_CORRELATION * rungs / max(1, width - 2)
    mean, covariance = np.zeros(width), prior.copy()
    kinds, kind_of = np.unique(np.isnan(values), axis=0, return_inverse=True)
    groups = [(np.flatnonzero(kind_of.reshape(-1) == number), np.flatnonzero(~kind), np.flatnonzero(kind))
              for number, kind in enumerate(kinds)]
    for _ in range(STEPS):
        filled, spread = np.nan_to_num(values), np.zeros((width, width))
        for rows, found, lost in groups:
            across = covariance[np.ix_(found, lost)]
            weights = np.linalg.solve(covariance[np.ix_(found, found)], across)
            filled[np.ix_(rows, lost)] = mean[lost] + (values[np.ix_(rows, found)] - mean[found]) @ weights
            spread[np.ix_(lost, lost)] += len(rows) * (covariance[np.ix_(lost, lost)] - across.T @ weights)
        mean = filled.sum(0) / (num + PRIOR_MEAN_TRIALS)
        centred = filled - mean
        scatter = centred.T @ centred + spread + PRIOR_MEAN_TRIALS * np.outer(mean, mean)
        covariance = (PRIOR_TRIALS * prior + scatter) / (num + PRIOR_TRIALS)
    return mean, covariance
