"""How many trials run at the same time."""

import time

import ray

from ..cluster.resources import Amounts, capacity
from .spec import TuneSpec

LOOK_EVERY_S = 5.0
"""How old the known size of the cluster may be."""


def trials_at_once(spec: TuneSpec, nodes: list[Amounts]) -> int:
    """How many trials these nodes hold at the same time; at least 1. A worker needs its amounts on one node."""
    workers = spec.train.resources.demand()
    held = sum(capacity(workers.each, node) for node in nodes) // workers.count
    return max(1, min(spec.max_concurrent_trials or spec.budget.trials, held))


class TrialSlots:
    """`trials_at_once` of the cluster as it is now: nodes may join and leave during a search."""

    def __init__(self, spec: TuneSpec) -> None:
        self._spec, self._count, self._looked_at = spec, 1, float("-inf")

    def __enter__(self) -> "TrialSlots":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self) -> int:
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._count, self._looked_at = trials_at_once(self._spec, nodes), time.monotonic()
        return self._count
