"""Failures of workers: which are worth another try, and how they are told to the user.

A lost worker is replaced and goes on from the last checkpoint. A mistake would only repeat itself, at the price
of a new worker group each time, so it ends the run at once.
"""

from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train import UserCallback

from ..cluster.ray_errors import original, out_of_memory
from ..errors import JobError, StorageError
from .checkpoints import Checkpoints

MISTAKES = (JobError, ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError,
            ValueError)
"""What comes back however often one tries. All else passes: a worker that died, what its peers see of that, CUDA."""


def worth_retrying(error: BaseException) -> bool:
    """Whether the same run may well succeed with new workers."""
    cause = original(error)
    unreachable = type(cause) is StorageError  # its subclasses say that the bytes themselves are wrong
    return unreachable or not isinstance(cause, MISTAKES) and not out_of_memory(cause)


def reason(error: BaseException) -> str:
    """Why a worker was lost, in a few words."""
    if isinstance(error, RayActorError):
        return "its process or its node died"
    said = str(original(error)).strip()
    if "by peer" in said:
        return "its connection to another worker broke off"
    return said.splitlines()[0] if said else type(original(error)).__name__


class StopOnFailure(UserCallback):
    """Tells failures as they happen, and ends the run when it is no use to try again (runs in the controller).

    A lost worker is replaced: ``max_failures`` times in a row, -1 without end. With every checkpoint the count
    begins anew, so that a long run may lose workers every day.
    """

    def __init__(self, board: ActorHandle, label: str, run: str, max_failures: int) -> None:
        self.board, self.label, self.run, self.max_failures = board, label, run, max_failures
        self._newest, self._failures = None, 0

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            if not worth_retrying(error):
                raise original(error)
        rank, error = min(worker_exceptions.items(), key=lambda item: not isinstance(item[1], RayActorError))
        if self._failures_in_a_row() > self.max_failures >= 0:
            raise original(error)
        self.board.write.remote(f"{self.label}worker {rank} was lost ({reason(error)}); "
                                "going on from the last checkpoint")

    def _failures_in_a_row(self) -> int:
        """How many there were since the newest checkpoint, this one included."""
        newest = Checkpoints(self.run, 1).newest()
        self._failures = self._failures + 1 if newest == self._newest else 1
        self._newest = newest
        return self._failures


def explain(error: Exception, run: str) -> Exception:
    """The job author's mistake inside a failed run as a JobError; any other failure as it is."""
    failures = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    for cause in (original(failure) for failure in failures if failure is not None):
        if isinstance(cause, JobError):
            return cause
        if out_of_memory(cause):
            return JobError(f"run {run}", "a worker ran out of memory",
                            "lower batch_size (nominal_batch_size keeps the recipe), data.image_size_px or model.width")
        if isinstance(cause, (ValueError, FloatingPointError)):
            problem, _, remedy = str(cause).partition("; ")
            return JobError(f"run {run}", problem, remedy)
    return error
