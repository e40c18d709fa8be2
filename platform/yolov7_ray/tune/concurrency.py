"""How many trials run at the same time."""

from ..cluster.resources import Amounts, capacity
from .spec import TuneSpec

TRIAL_DRIVER_CPUS = 0.01
"""What Tune reserves for the driver of a trial, which only waits: a whole CPU would starve the workers."""


def trials_at_once(spec: TuneSpec, available: Amounts) -> int:
    """How many trials a cluster with ``available`` resources holds at the same time; at least 1."""
    workers = spec.train.resources.demand().total
    each = {"CPU": workers["CPU"] + TRIAL_DRIVER_CPUS, "GPU": workers["GPU"]}
    return max(1, min(spec.max_concurrent_trials or spec.trials, capacity(each, available)))
