"""Nodes that leave and join: detected early, and the state is saved before Ray stops the workers.

Ray has no public hook for either. Both classes run in the controller while the workers continue training.
"""

import time
from contextlib import suppress
from functools import cached_property

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import PreemptingState, ResizingState, TrainControllerState
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    get_or_create_autoscaling_coordinator,
)

from ..progress import GRACE_S

NODE_POLL_S = 5
"""How often a run with a range of workers checks whether the cluster has room for more."""


class SaveBeforeChange(ControllerCallback):
    """Makes rank 0 save before workers are added, and repeatedly once a node is about to be reclaimed."""

    def __init__(self, progress_actor: ActorHandle) -> None:
        self.progress_actor = progress_actor

    def after_controller_state_update(self, previous_state: TrainControllerState,
                                      current_state: TrainControllerState) -> None:
        if isinstance(current_state, ResizingState):
            self.progress_actor.write.remote(f"going on with {current_state.scaling_decision.num_workers} workers")
            with suppress(RayError):  # fall back to the newest checkpoint
                ray.get(self.progress_actor.save.remote(), timeout=GRACE_S)
        elif isinstance(current_state, PreemptingState) and not isinstance(previous_state, PreemptingState):
            self.progress_actor.write.remote("a node of this job is being reclaimed; saving until it is gone")
            self.progress_actor.save.remote(repeatedly=True)


class NodeCountRefresh(ControllerCallback, WorkerGroupCallback):
    """Makes Ray recount the nodes before it decides on the number of workers; by default it does so every 20 s."""

    def __init__(self) -> None:
        self._refreshed_at = 0.0

    @cached_property
    def _coordinator(self) -> ActorHandle:
        return get_or_create_autoscaling_coordinator()

    def after_controller_state_update(self, previous_state: TrainControllerState,
                                      current_state: TrainControllerState) -> None:
        self._refresh()

    def after_worker_group_poll_status(self, worker_group_status: object) -> None:
        if time.monotonic() - self._refreshed_at >= NODE_POLL_S:
            self._refresh()

    def _refresh(self) -> None:
        self._refreshed_at = time.monotonic()
        self._coordinator.get_reserved_resources.remote("", recompute=True)
