"""Which worker failures are retried, and how the others are reported to the user."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train import WorkerGroupError

from yolov7_ray.errors import Corrupt, JobError, StorageError
from yolov7_ray.train.failures import explain, is_retryable


@pytest.mark.parametrize("error", [ActorDiedError(), RuntimeError("Connection closed by peer"), OSError("disk"),
                                   StorageError("s3://b/x", "does not answer")])
def test_transient_failures_are_retryable(error):
    assert is_retryable(error)


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), FloatingPointError("the loss is not finite"),
                                   Corrupt("s3://b/x", "is truncated"), RuntimeError("CUDA out of memory")])
def test_permanent_failures_are_not_retryable(error):
    assert not is_retryable(error)


@pytest.mark.parametrize(("error", "message"), [
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
     "run r: a worker ran out of memory; lower batch_size"),
    (FloatingPointError("the loss is not finite; lower x"), "run r: the loss is not finite; lower x"),
    (Corrupt("d/s.arrow", "is truncated", "ingest again"), "d/s.arrow: is truncated; ingest again"),
])
def test_the_cause_is_reported(error, message):
    explained = explain(WorkerGroupError("…", {1: error}), "r")
    assert isinstance(explained, JobError) and str(explained).startswith(message)


def test_an_unknown_failure_is_unchanged():
    failure = WorkerGroupError("…", {0: TypeError("our own fault")})
    assert explain(failure, "r") is failure
