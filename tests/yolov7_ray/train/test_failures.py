"""Which failures of workers are tried again, and what the user reads of the others."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train import WorkerGroupError

from yolov7_ray.errors import Corrupt, JobError, StorageError
from yolov7_ray.train.failures import explain, worth_retrying


@pytest.mark.parametrize("error", [ActorDiedError(), RuntimeError("Connection closed by peer"), OSError("disk"),
                                   StorageError("s3://b/x", "does not answer")])
def test_what_may_pass_is_tried_again(error):
    assert worth_retrying(error)


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), FloatingPointError("the loss is not finite"),
                                   Corrupt("s3://b/x", "is truncated"), RuntimeError("CUDA out of memory")])
def test_what_would_only_come_back_is_not(error):
    assert not worth_retrying(error)


@pytest.mark.parametrize(("error", "message"), [
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "run r: a worker ran out of memory; lower batch_size"),
    (FloatingPointError("the loss is not finite; lower x"), "run r: the loss is not finite; lower x"),
    (Corrupt("d/s.arrow", "is truncated", "ingest again"), "d/s.arrow: is truncated; ingest again"),
])
def test_the_user_reads_the_cause(error, message):
    explained = explain(WorkerGroupError("…", {1: error}), "r")
    assert isinstance(explained, JobError) and str(explained).startswith(message)


def test_an_unknown_failure_stays_as_it_is():
    failure = WorkerGroupError("…", {0: TypeError("our own fault")})
    assert explain(failure, "r") is failure
