"""Waiting for storage is not hanging, and uses up no failure: slow uploads, and an S3 that falls silent."""

import json
import threading
import time

import faulty_s3
import pytest
import yaml
from conftest import ingest_here
from training_jobs import Output, submit, train_job

from yolov7_ray import storage
from yolov7_ray.data.sources.spec import ShapesSource
from yolov7_ray.storage import activity, retry

SILENCE_S = 100
"""Longer than storage is retried where nothing would be lost (`retry.RETRY_FOR_S`)."""


@pytest.fixture
def proxy(s3_server, monkeypatch):
    with faulty_s3.running(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


# --- what is seen of storage ----------------------------------------------------------------------------


@pytest.fixture
def observer(monkeypatch):
    monkeypatch.setenv(activity.OBSERVER, "")  # restored afterwards
    return activity.Observer()


def test_a_slow_upload_is_seen_to_move(proxy, s3, observer):
    """One PUT of 10 s: longer than the connection's timeout of 4 s, and idle only while buffers drain."""
    proxy.upload_bytes_per_s = 1.2e6
    upload = threading.Thread(target=storage.write_bytes, args=(f"{s3}/slow", bytes(12_000_000)))
    start = time.monotonic()
    upload.start()
    idle_s, places = [], set()
    while upload.is_alive():
        waiting = observer.waiting()
        if waiting is not None:
            idle_s.append(waiting.idle_s)
            places.add(waiting.place)
        upload.join(0.1)
    assert time.monotonic() - start > 9 and len(proxy.requests) == 1, "sent once, slowly"
    assert max(idle_s) < 8 and places == {f"S3 at {proxy.endpoint}"}
    assert observer.waiting() is None


def test_silence_is_seen_from_its_start(proxy, s3, observer, monkeypatch):
    monkeypatch.setattr(retry, "READ_TIMEOUT_S", 0.5)
    storage.write_bytes(f"{s3}/x", b"x")
    proxy.inject("silent", count=3)
    seen = []
    reader = threading.Thread(target=storage.read_bytes, args=(f"{s3}/x",))
    reader.start()
    while reader.is_alive():
        seen.append(observer.waiting())
        reader.join(0.05)
    silent_s = [waiting.silent_s for waiting in seen if waiting]
    assert 1 < max(silent_s) < 30 and silent_s[0] == 0 and observer.waiting() is None


def test_operations_of_child_processes_are_seen(observer, tmp_path):
    import multiprocessing

    child = multiprocessing.get_context("spawn").Process(target=_wait_in_storage, args=(str(tmp_path),))
    child.start()
    try:
        deadline = time.monotonic() + 60
        while not ((waiting := observer.waiting()) and waiting.silent_s):
            assert time.monotonic() < deadline
        assert waiting.place == "a place" and waiting.silent_s > 4
    finally:
        child.kill()
        child.join()
    assert observer.waiting() is None, "of a process that has died"


def _wait_in_storage(directory: str) -> None:
    with activity.operation("a place"):
        activity.silent("a place", time.monotonic() - 5)
        time.sleep(600)


@pytest.mark.parametrize("patience_s", [None, "0.4"])
def test_patience_is_that_of_the_job(monkeypatch, patience_s):
    """Also with a server that never answered this process: a worker that is started during a silence."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(retry, "_reached_endpoints", set())
    monkeypatch.setattr(retry, "RETRY_UNREACHABLE_FOR_S", 0)
    if patience_s:
        monkeypatch.setenv(storage.PATIENCE, patience_s)
    pauses = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    with pytest.raises(storage.StorageError, match="S3 cannot be reached at http://127.0.0.1:9"):
        storage.read_bytes("s3://bucket/x")
    assert bool(pauses) == bool(patience_s)


# --- runs -----------------------------------------------------------------------------------------------


def start(proxy, s3, tmp_path, **changes) -> Output:
    """A submitted job whose dataset and run are in S3 behind the proxy."""
    ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64), f"{s3}/shapes",
                shard_mb=0.01)
    path = tmp_path / "job.yaml"
    data = {"image_size_px": 64, "cache_dir": str(tmp_path / "cache")}
    path.write_text(yaml.safe_dump(train_job(f"{s3}/shapes", f"{s3}/runs", data=data, **changes)))
    return Output(submit(str(path), "--name", "run", environment={"AWS_ENDPOINT_URL": proxy.endpoint}))


def assert_undisturbed(output: Output) -> None:
    assert output.to_end() == 0, output.text
    for blame in ("Traceback", "no step for", "was lost", "Thread 0x", "could not be saved"):
        assert blame not in output.text.replace("no step for", "", output.text.count("bytes moved")), output.text


@pytest.mark.ray
@pytest.mark.long
def test_a_slow_upload_is_no_hang(proxy, s3, tmp_path):
    """Every save takes some 10 s; a hang is one after 4 s. Rank 0 waits for storage, rank 1 for rank 0."""
    proxy.upload_bytes_per_s = 150e3
    output = start(proxy, s3, tmp_path, epochs=3, resources={"workers": 2, "hang_timeout_s": 4, "max_failures": 0})
    assert_undisturbed(output)
    proxy.upload_bytes_per_s = float("inf")
    assert len(json.loads(storage.read_bytes(f"{s3}/runs/run/results.json"))["epochs"]) == 3


@pytest.mark.ray
@pytest.mark.long
def test_a_silent_s3_is_waited_for(proxy, s3, tmp_path):
    output = start(proxy, s3, tmp_path, epochs=40, checkpoint={"every_updates": 1},
                   resources={"workers": 2, "hang_timeout_s": 10, "max_failures": 0})
    output.wait_for("epoch 3/")
    proxy.inject("silent", seconds=SILENCE_S)
    output.wait_for(f"waiting for S3 at {proxy.endpoint}, ", timeout_s=SILENCE_S)
    proxy.stopping.wait(SILENCE_S)
    trained = output.text.count("AP50")
    output.wait_for("AP50", timeout_s=60)
    assert output.text.count("AP50") > trained
    assert_undisturbed(output)
