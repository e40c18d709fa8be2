"""The actor that decides for all trials of a search which end early; its state lies in the search's directory."""

from contextlib import suppress
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from .. import storage
from ..errors import NotFound, StorageError
from .halving import Halving, rungs
from .spec import TuneSpec

STATE = "rungs.json"
"""In a search's directory: AP of every trial at every rung, and which trials were stopped, when and why."""
ANSWER_TIMEOUT_S = 30.0
"""How long a trial waits for the decision; without one it goes on. Less than the watchdog allows."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Judge:
    """Holds the rungs of one search. It may be lost and started again at any time: a decision is saved first."""

    def __init__(self, run: str, reduction: int, epochs: list[int]) -> None:
        self._uri = storage.join(run, STATE)
        self._halving = Halving(reduction, epochs, **read_state(run))

    def decide(self, trial: str, epoch: int, ap: float | None) -> str | None:
        reason = self._halving.decide(trial, epoch, ap)
        if ap is not None:
            with suppress(StorageError):  # the next decision writes all of it
                storage.write_json(self._uri, self._halving.state())
        return reason


def start_judge(spec: TuneSpec, run: str) -> ActorHandle:
    """The judge of a search, which goes on where an earlier one of the same run ended."""
    epochs = rungs(spec.grace_epochs, spec.reduction_factor, spec.train.epochs, spec.train.evaluation.every_epochs)
    return Judge.remote(run, spec.reduction_factor, epochs)


def read_state(run: str) -> dict:
    """``recorded`` and ``stopped`` of `Halving`; empty before the first decision."""
    try:
        return storage.read_json(storage.join(run, STATE))
    except NotFound:
        return {"recorded": {}, "stopped": {}}


@dataclass(frozen=True)
class EarlyStop:
    """What the training loop of one trial asks after an evaluated epoch."""

    judge: ActorHandle
    trial: str

    def __call__(self, epoch: int, ap: float | None) -> str | None:
        with suppress(RayError):
            return ray.get(self.judge.decide.remote(self.trial, epoch, ap), timeout=ANSWER_TIMEOUT_S)
        return None
