"""Which worker failures are retried, and how the others are reported to the user."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train import WorkerGroupError

from yolov7_ray.errors import Corrupt, JobError, StorageError
from yolov7_ray.cluster.ray_errors import breakdown
from yolov7_ray.train.faults import failures
from yolov7_ray.train.faults.failures import Failures, explain, is_retryable


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


@pytest.fixture
def written(monkeypatch):
    """Names of checkpoints as the progress actor tells them, one an answer; an exception: it does not."""
    class Remote:
        newest_checkpoint = type("Method", (), {"remote": staticmethod(lambda run: None)})

    answers = []

    def get(reference: None, timeout: float) -> str | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(failures.ray, "get", get)
    return lambda *names: answers.extend(names) or Remote()


def test_failures_are_counted_since_the_newest_checkpoint_without_asking_storage(written, monkeypatch):
    monkeypatch.setattr("yolov7_ray.storage.list_files", lambda uri: pytest.fail("asks storage, which may be silent"))
    count = Failures(written(None, None, "a", "a", "b", "b", "b"), "run", limit=2)
    assert [(count.add(), count.in_a_row) for _ in range(7)] == [
        (True, 1), (True, 2), (True, 1), (True, 2), (True, 1), (True, 2), (False, 3)]


def test_a_progress_actor_that_does_not_answer_is_no_progress(written):
    count = Failures(written("a", ActorDiedError(), None, "a"), "run", limit=-1)
    assert [(count.add(), count.in_a_row) for _ in range(4)] == [(True, 1), (True, 2), (True, 3), (True, 4)]


@pytest.mark.parametrize(("error", "problem"), [
    (ActorDiedError(), "a process of Ray was lost (ActorDiedError: The actor died unexpectedly before finishing"),
    (ValueError("x"), None), (JobError("a", "b"), None)])
def test_what_ray_itself_lost_is_one_sentence(error, problem):
    said = breakdown(error)
    assert said is problem is None or said.startswith(problem) and "\n" not in said
