"""Interruptions that are known beforehand: what was learnt is saved before Ray takes the workers away."""

from contextlib import suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback  # Ray has no public hook for resizing
from ray.train.v2._internal.execution.controller.state import PreemptingState, ResizingState, TrainControllerState

from .board import GRACE_S


class SaveInTime(ControllerCallback):
    """Has rank 0 save before workers are added, and again and again once their node is to be reclaimed.

    Runs in the controller, while the workers go on training.
    """

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
