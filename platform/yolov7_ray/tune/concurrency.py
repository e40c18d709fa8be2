"""How many trials run at the same time, and how a cluster that can grow is asked to."""

import time

import ray
from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from ..cluster.local_ray import may_grow
from ..cluster.resources import Amounts, capacity
from .scheduler import Scheduler
from .spec import TuneSpec

LOOK_EVERY_S = 2.0
"""How old the known size of the cluster may be."""


def trials_at_once(spec: TuneSpec, nodes: list[Amounts]) -> int:
    """How many trials these nodes hold at the same time; at least 1. A worker needs its amounts on one node."""
    workers = spec.train.resources.demand()
    held = sum(capacity(workers.each, node) for node in nodes) // workers.count
    return max(1, min(most_at_once(spec), held))


def most_at_once(spec: TuneSpec) -> int:
    """How many trials may run at the same time on any cluster."""
    return spec.max_concurrent_trials or spec.budget.trials


def placement(spec: TuneSpec) -> PlacementGroupFactory:
    """What the workers of a trial need, each on one node. Nobody else of a trial needs anything."""
    workers = spec.train.resources.demand()
    return PlacementGroupFactory([dict(workers.each)] * workers.count)


class TrialSlots:
    """Room for trials on the cluster as it is now: nodes may join and leave during a search.

    Where an autoscaler may add nodes, placement groups of as many more trials as could start now wait for them, at
    most as many as run, so that the cluster doubles at each step. Such a group gives its room back to the trials.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._spec = scheduler, scheduler.spec
        self._count, self._looked_at = 1, float("-inf")
        self._asks: list[PlacementGroup] = []
        self._may_grow = may_grow()

    def __enter__(self) -> "TrialSlots":
        return self

    def __exit__(self, *_: object) -> None:
        if ray.is_initialized():
            self._ask_for(0)

    def has_room(self) -> bool:
        """Whether another trial fits."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._count = trials_at_once(self._spec, [node["Resources"] for node in ray.nodes() if node["Alive"]])
            if self._may_grow:
                self._ask()
        return self._scheduler.num_started < self._count

    def _ask(self) -> None:
        left = most_at_once(self._spec) - self._count
        full = self._scheduler.num_started >= self._count
        if full and left > 0 and self._scheduler.could_start:
            self._asks = [ask for ask in self._asks if not self._given_back(ask)]
            self._ask_for(min(left, self._count))
        else:
            self._ask_for(0)

    def _given_back(self, ask: PlacementGroup) -> bool:
        """Whether there was room for this group, which a trial takes now."""
        if placement_group_table(ask)["state"] != "CREATED":
            return False
        remove_placement_group(ask)
        return True

    def _ask_for(self, number: int) -> None:
        """Let so many placement groups wait."""
        while len(self._asks) > number:
            remove_placement_group(self._asks.pop())
        while len(self._asks) < number:
            self._asks.append(placement(self._spec).to_placement_group())
