"""The population stability index, by which distributions of scores and classes are compared."""

import numpy as np


def stability_index(expected: np.ndarray, actual: np.ndarray) -> float:
    """Sum of (a - e) ln(a / e) over shares (B,), none of which is zero.

    0 where they are the same; by convention below 0.1 is stable and above 0.25 is a change.
    """
    return float(((actual - expected) * np.log(actual / expected)).sum())
