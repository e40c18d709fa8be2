"""Network faults on a real server: each is retried or ends in an error; the bytes are never wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty_s3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from yolov7_ray import storage
from yolov7_ray.errors import AlreadyExists, Corrupt, StorageError
from yolov7_ray.storage import retry
from yolov7_ray.storage import s3 as s3_module

CONTENT = bytes(range(256)) * 800
LARGE = os.urandom((5 << 20) + 1000)
"""Two parts of an upload: S3 takes none below 5 MiB but the last."""


@pytest.fixture(scope="module")
def proxy(s3_server):
    with faulty_s3.running(s3_server) as proxy:
        yield proxy


@pytest.fixture
def faulty(proxy, monkeypatch):
    """The proxy instead of the server, with short waits; the code paths are the same."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setattr(retry, "READ_TIMEOUT_S", 0.6)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(storage, "RANGE_BYTES", 64_000)
    monkeypatch.setattr(s3_module, "SINGLE_PUT_BYTES", len(CONTENT))
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 << 20)
    proxy.requests.clear()
    yield proxy
    proxy.heal()


# --- the operations, each with a check of its result -------------------------------------------------------


def reads(uri: str, directory: Path) -> None:
    assert storage.read_bytes(uri) == CONTENT


def downloads(uri: str, directory: Path) -> None:
    storage.download(uri, directory / "copy")
    assert (directory / "copy").read_bytes() == CONTENT


def lists(uri: str, directory: Path) -> None:
    folder, _, name = uri.rpartition("/")
    assert [(info.path, info.num_bytes) for info in storage.list_files(folder)] == [(name, len(CONTENT))]


def writes(uri: str, directory: Path) -> None:
    storage.write_bytes(uri, CONTENT[::-1])
    assert storage.read_bytes(uri) == CONTENT[::-1]


def uploads(uri: str, directory: Path) -> None:
    (directory / "file").write_bytes(CONTENT[::-1])
    storage.upload(directory / "file", uri)
    assert storage.read_bytes(uri) == CONTENT[::-1]


def uploads_parts(uri: str, directory: Path) -> None:
    (directory / "file").write_bytes(LARGE)
    storage.upload(directory / "file", uri)
    assert storage.read_bytes(uri) == LARGE


def creates(uri: str, directory: Path) -> None:
    storage.create(uri + "-new", b"mine")
    with pytest.raises(AlreadyExists):
        storage.create(uri + "-new", b"theirs")
    assert storage.read_bytes(uri + "-new") == b"mine"


def swaps(uri: str, directory: Path) -> None:
    etag = storage.read_with_etag(uri)[1]
    newer = storage.compare_and_swap(uri, b"next", etag)
    assert storage.read_with_etag(uri) == (b"next", newer)
    with pytest.raises(AlreadyExists):
        storage.compare_and_swap(uri, b"late", etag)


READING, WRITING = [reads, downloads, lists], [writes, uploads, uploads_parts, creates, swaps]
CASES = [(kind, operation) for kinds, operations in (
    (["busy", "reset", "silent"], READING + WRITING), (["lost"], WRITING), (["cut", "garbled"], WRITING),
    (["broken", "short", "stalled"], READING), (["flipped"], [reads, downloads])) for kind in kinds
    for operation in operations]


@pytest.fixture
def uri(s3) -> str:
    storage.write_bytes(s3 + "/x", CONTENT)
    return s3 + "/x"


@pytest.mark.parametrize("kind, operation", CASES)
def test_transient_faults_are_retried(kind, operation, uri, faulty, tmp_path):
    fault = faulty.inject(kind, count=1 if kind in ("silent", "stalled") else 2)
    operation(uri, tmp_path)
    assert fault.count == 0  # it did happen
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind, operation", CASES)
def test_permanent_faults_end_in_an_error(kind, operation, uri, faulty, tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "RETRY_FOR_S", 0.15)
    monkeypatch.setattr(retry, "RETRY_CHECK_FOR_S", 0.1)
    faulty.inject(kind, "PUT", "GET", "POST", part=uri[len("s3:/"):] if operation is not lists else "")
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        operation(uri, tmp_path)
    assert time.monotonic() - started < 60
    assert caught.value.where.startswith("s3://bucket/") and caught.value.remedy
    faulty.heal()
    monkeypatch.undo()
    if kind != "lost":  # where the reply alone is lost, the whole object is there
        assert [info.num_bytes for info in storage.list_files(uri.rpartition("/")[0])] == [len(CONTENT)]
        assert storage.read_bytes(uri) == CONTENT
    assert not (tmp_path / "copy").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kinds", [["busy"], ["reset", "broken", "lost", "busy"]])
def test_a_fifth_of_all_requests_may_fail(kinds, s3, faulty, tmp_path):
    faults = [faulty.inject(kind, share=0.2 / len(kinds), count=1000) for kind in kinds]
    storage.write_bytes(s3 + "/x", CONTENT)
    for number in range(8):
        reads(s3 + "/x", tmp_path)
        downloads(s3 + "/x", tmp_path)
        storage.create(f"{s3}/{number}", b"%d" % number)
    assert len(storage.list_files(s3)) == 9
    assert sum(1000 - fault.count for fault in faults) >= 3  # they did fail: a dozen of 70 on average


def test_busy_for_a_while(uri, faulty, monkeypatch, tmp_path):
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 5.0)
    faulty.inject("busy", seconds=1.5)
    started = time.monotonic()
    reads(uri, tmp_path)
    assert time.monotonic() - started > 1.4


class Clock:
    """A clock that only `sleep` advances."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("busy_s, passes", [(30, True), (75, True), (120, False)])
def test_retries_last_more_than_thirty_seconds(busy_s, passes, monkeypatch):
    clock, tries = Clock(), []
    monkeypatch.setattr(retry, "time", clock)

    def attempt() -> str:
        tries.append(clock.now)
        if clock.now < busy_s:
            raise ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")
        return "here"

    if passes:
        assert retry.with_retries("s3://bucket/x", attempt) == "here"
    else:
        with pytest.raises(StorageError, match="S3 answers 503 SlowDown"):
            retry.with_retries("s3://bucket/x", attempt)
    assert tries[-1] <= retry.RETRY_FOR_S
    assert len(tries) < 60  # a server in trouble is not hammered


@pytest.mark.parametrize("answered, longest_s", [(False, 10), (True, 90)])
def test_a_server_that_restarts_is_retried(answered, longest_s, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(retry, "_reached_endpoints", {retry.endpoint()} if answered else set())

    def attempt() -> None:
        raise EndpointConnectionError(endpoint_url="http://there")

    with pytest.raises(StorageError, match="cannot be reached at .*; check AWS_ENDPOINT_URL"):
        retry.with_retries("s3://bucket/x", attempt)
    assert longest_s - retry.LONGEST_PAUSE_S <= clock.now <= longest_s


def test_a_slow_body_is_fetched_again(uri, faulty, monkeypatch, tmp_path):
    monkeypatch.setattr(retry, "SLOWEST_BYTES_PER_S", 1e6)
    faulty.inject("dripping", count=1)
    started = time.monotonic()
    reads(uri, tmp_path)
    assert time.monotonic() - started > retry.READ_TIMEOUT_S


# --- what only a digest can tell ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["short", "flipped"])
def test_objects_of_other_writers_are_checked_against_their_etag(kind, s3, faulty, tmp_path):
    place = s3_module.S3.of(s3 + "/x")
    s3_module._client().put_object(Bucket=place.bucket, Key=place.key, Body=CONTENT)
    fault = faulty.inject(kind, count=1)
    reads(s3 + "/x", tmp_path)
    assert fault.count == 0


def test_permanent_damage_is_reported(uri, faulty, tmp_path):
    faulty.inject("flipped", "GET")
    with pytest.raises(Corrupt, match="/x: is corrupt: .* write it again from its source, or restore it"):
        storage.read_bytes(uri)
    with pytest.raises(Corrupt, match="/x: is corrupt: its sha256 is"):
        storage.download(uri, tmp_path / "copy")
    assert len(faulty.requests) < 30


# --- replies that are lost ----------------------------------------------------------------------------------


def test_a_lost_reply_does_not_lose_the_race_against_itself(s3, faulty):
    faulty.inject("lost", "PUT", count=1)
    storage.create(s3 + "/claim", b"ours")
    data, etag = storage.read_with_etag(s3 + "/claim")
    faulty.inject("lost", "PUT", count=1)
    newer = storage.compare_and_swap(s3 + "/claim", b"ours, again", etag)
    assert storage.read_with_etag(s3 + "/claim") == (b"ours, again", newer)
    faulty.inject("busy", "PUT", count=1)
    with pytest.raises(AlreadyExists):
        storage.create(s3 + "/claim", b"theirs")


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_lost_completion_of_an_upload(s3, faulty, tmp_path, monkeypatch, forgotten):
    monkeypatch.setattr(retry, "READ_TIMEOUT_S", 10.0)  # a busy machine is no fault: nothing is to be sent twice
    lost = faulty.inject("lost", "POST", part="uploadId=", count=1)
    gone = faulty.inject("gone", "POST", part="uploadId=", count=int(forgotten))  # AWS forgets completed uploads
    uploads_parts(s3 + "/x", tmp_path)
    assert lost.count == gone.count == 0
    parts = [path for method, path, _ in faulty.requests if method == "PUT" and "partNumber=" in path]
    assert len(parts) == 2  # not sent again


def test_an_upload_that_is_forgotten_half_way_starts_again(s3, faulty, tmp_path):
    gone = faulty.inject("gone", "PUT", part="partNumber=2", count=1)
    uploads_parts(s3 + "/x", tmp_path)
    assert gone.count == 0


UPLOADER = """
import sys
from yolov7_ray import storage
from yolov7_ray.storage import s3

s3.SINGLE_PUT_BYTES = s3.PART_BYTES = 5 << 20
storage.upload(sys.argv[1], sys.argv[2])
"""


def test_a_killed_upload_leaves_what_was_there(uri, faulty, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    faulty.inject("silent", "PUT", part="partNumber=2")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", UPLOADER, tmp_path / "file", uri], env=environment)
    deadline = time.monotonic() + 120
    while not any("partNumber=2" in path for _, path, _ in faulty.requests) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    reads(uri, tmp_path)
    lists(uri, tmp_path)
