"""Nodes that leave and join: seen soon, and what was learnt is saved before Ray takes the workers away.

Ray has no public hook for either; both classes run in the controller, while the workers go on training.
"""

import time
from contextlib import suppress
from functools import cached_property

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import PreemptingState, ResizingState, TrainControllerState
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    get_or_create_autoscaling_coordinator,
)

from .progress import GRACE_S

LOOK_EVERY_S = 5
"""How often a run with a range of workers asks whether the cluster holds more of them by now."""


class SaveInTime(ControllerCallback):
    """Has rank 0 save before workers are added, and again and again once their node is to be reclaimed."""

    def __init__(self, board: ActorHandle) -> None:
        self.board = board

    def after_controller_state_update(self, previous_state: TrainControllerState,
                                      current_state: TrainControllerState) -> None:
        if isinstance(current_state, ResizingState):
            self.board.write.remote(f"going on with {current_state.scaling_decision.num_workers} workers")
            with suppress(GetTimeoutError):  # the newest checkpoint has to do
                ray.get(self.board.save.remote(), timeout=GRACE_S)
        elif isinstance(current_state, PreemptingState) and not isinstance(previous_state, PreemptingState):
            self.board.write.remote("a node of this job is being reclaimed; saving until it is gone")
            self.board.save.remote(repeatedly=True)


class FreshView(ControllerCallback, WorkerGroupCallback):
    """Has Ray count the nodes before it decides on the number of workers; by itself it does so every 20 s."""

    def __init__(self) -> None:
        self._counted_at = 0.0

    @cached_property
    def _coordinator(self) -> ActorHandle:
        return get_or_create_autoscaling_coordinator()

    def after_controller_state_update(self, previous_state: TrainControllerState,
                                      current_state: TrainControllerState) -> None:
        self._count()

    def after_worker_group_poll_status(self, worker_group_status: object) -> None:
        if time.monotonic() - self._counted_at >= LOOK_EVERY_S:
            self._count()

    def _count(self) -> None:
        self._counted_at = time.monotonic()
        self._coordinator.get_reserved_resources.remote("", recompute=True)
