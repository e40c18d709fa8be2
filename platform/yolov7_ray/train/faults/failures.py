"""Worker failures: which are retried, and how they are reported to the user.

A lost worker is replaced and resumes from the last checkpoint. A permanent error would recur with every new worker
group, so it ends the run at once.
"""

from contextlib import suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.train import UserCallback

from ...cluster.ray_errors import original, out_of_memory
from ...errors import JobError, StorageError

ASK_TIMEOUT_S = 10.0
"""How long the controller waits for an answer of the progress actor."""
PERMANENT_ERRORS = (JobError, ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
                    TypeError, ValueError)
"""Not retried. All others are: a dead worker, the errors that its peers get from that, CUDA errors."""


def is_retryable(error: BaseException) -> bool:
    """Whether the same run may succeed with new workers."""
    cause = original(error)
    unreachable = type(cause) is StorageError  # its subclasses mean that the data are wrong
    return unreachable or not isinstance(cause, PERMANENT_ERRORS) and not out_of_memory(cause)


def reason(error: BaseException) -> str:
    """Why a worker was lost, in a few words."""
    if isinstance(error, RayActorError):
        return "its process or its node died"
    message = str(original(error)).strip()
    if "by peer" in message:
        return "its connection to another worker broke off"
    return message.splitlines()[0] if message else type(original(error)).__name__


class Failures:
    """Counts the failures of a run since its newest checkpoint.

    The workers tell the progress actor of their checkpoints: storage, which may be what fails, is not asked.
    """

    def __init__(self, progress_actor: ActorHandle, run: str, limit: int) -> None:
        """``limit``: how many in a row are survived; -1: any number."""
        self.progress_actor, self.run, self.limit = progress_actor, run, limit
        self.in_a_row, self._newest = 0, None

    def add(self) -> bool:
        """Count one more; whether the run may go on."""
        newest = None
        with suppress(RayError):  # the progress actor is busy, or new
            newest = ray.get(self.progress_actor.newest_checkpoint.remote(self.run), timeout=ASK_TIMEOUT_S)
        progress = newest not in (None, self._newest)
        self.in_a_row, self._newest = 1 if progress else self.in_a_row + 1, newest or self._newest
        return not self.in_a_row > self.limit >= 0


class StopOnFailure(UserCallback):
    """Reports failures as they happen and ends the run if a retry is useless (runs in the controller).

    A lost worker is replaced ``max_failures`` times in a row; -1: without limit. Every checkpoint resets the count,
    so a long run may lose workers every day.
    """

    def __init__(self, progress_actor: ActorHandle, run: str, max_failures: int) -> None:
        self.progress_actor = progress_actor
        self._failures = Failures(progress_actor, run, max_failures)

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            if not is_retryable(error):
                raise original(error)
        rank, error = min(worker_exceptions.items(), key=lambda item: not isinstance(item[1], RayActorError))
        if not self._failures.add():
            raise original(error)
        self.progress_actor.write.remote(f"worker {rank} was lost ({reason(error)}); "
                                         "going on from the last checkpoint")


def explain(error: Exception, run: str) -> Exception:
    """The user error behind a failed run as a JobError; any other failure unchanged."""
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
