"""What is expected of trials' ends: hypervolume, and which of them add most to it for a given compute.

A trial's end is normal and independent in each objective, so that it dominates a point of objective space with a
probability, and a set of trials covers a point with the probability that any of them dominates it. The mean of that
over points spread evenly over the space is the expected hypervolume, a monotone submodular function of the set.

N trials · S points
"""

import math

import numpy as np

NUM_POINTS = 256
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Gains are weighed against costs to these powers; greedy choice by the ratio alone wastes what is left on the cheap
(Leskovec et al. 2007)."""
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)


def points_along(axis: int) -> np.ndarray:
    """(S,) coordinates in (0, 1) of the first points of Halton's sequence along one of its axes."""
    base, numbers = _PRIMES[axis], np.arange(1, NUM_POINTS + 1)
    found, digit = np.zeros(NUM_POINTS), 1 / base
    while numbers.any():
        found += digit * (numbers % base)
        numbers, digit = numbers // base, digit / base
    return found


def exceeds(mean: np.ndarray, deviation: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, S) probability that a normal variable of each trial is at least each point, to 3e-4."""
    z = (mean[:, None] - points) / np.maximum(deviation, 1e-12)[:, None]
    return 0.5 * (1 + np.tanh(np.clip(math.sqrt(2 / math.pi) * (z + 0.044715 * z ** 3), -20, 20)))


def best_plan(dominates: np.ndarray, uncovered: np.ndarray, costs: np.ndarray, budget: float) -> list[int]:
    """Indices of trials, in the order of choice, that together cost at most ``budget`` and cover most.

    dominates: (N, S) probabilities. uncovered: (S,) probability that nothing else covers a point. costs: (N,). Of
    greedy choices by gain / cost^a the one that covers most.
    """
    best, least_uncovered = [], math.inf
    for exponent in EXPONENTS:
        plan, rest, left, weight = [], uncovered.copy(), budget, costs ** -exponent
        fits = costs <= left
        while fits.any():
            index = int(np.argmax(np.where(fits, (dominates @ rest) * weight, -1)))
            plan.append(index)
            rest *= 1 - dominates[index]
            left -= costs[index]
            fits &= costs <= left
            fits[index] = False
        if rest.mean() < least_uncovered - 1e-12:
            best, least_uncovered = plan, rest.mean()
    return best
