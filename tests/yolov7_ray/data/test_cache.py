"""The node's cache: verified bytes, fetched once, bounded, shared by processes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import faulty_s3
import pytest
from yolov7_ray import storage
from yolov7_ray.data.manifest import Shard
from yolov7_ray.data.reading.cache import EVICTION_LOCK, NodeCache
from yolov7_ray.errors import Corrupt, JobError, NotFound, StorageError


def put(uri: str, number: int, num_bytes: int = 1000) -> Shard:
    """Store a shard's bytes and describe them."""
    data = bytes([number]) * num_bytes
    storage.write_bytes(storage.join(uri, f"train/{number}.arrow"), data)
    return Shard(f"train/{number}.arrow", 1, num_bytes, storage.digest(data))


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """URIs that were fetched."""
    fetched, original = [], storage.download

    def download(uri, *arguments):
        fetched.append(uri)
        return original(uri, *arguments)

    monkeypatch.setattr(storage, "download", download)
    return fetched


def test_local_shards_are_used_where_they_lie(tmp_path, monkeypatch):
    shard, cache = put(str(tmp_path / "d"), 1), NodeCache(tmp_path / "cache")
    assert cache.path(str(tmp_path / "d"), shard) == tmp_path / "d/train/1.arrow"
    digest = storage.digest
    monkeypatch.setattr(storage, "digest", lambda source: digest(source) if isinstance(source, bytes)
                        else pytest.fail("verified twice"))
    NodeCache(tmp_path / "cache").path(str(tmp_path / "d"), shard)


def test_changed_local_shards_are_noticed(tmp_path):
    shard, cache = put(str(tmp_path / "d"), 1), NodeCache(tmp_path / "cache")
    path = cache.path(str(tmp_path / "d"), shard)
    path.write_bytes(b"\x01" * 999 + b"?")
    with pytest.raises(Corrupt, match="1.arrow: the shard is corrupt: its sha256 is .*overwrite: true"):
        cache.path(str(tmp_path / "d"), shard)
    path.write_bytes(b"\x01" * 500)
    with pytest.raises(Corrupt, match="the shard is truncated: it has 500 bytes, not 1000; run the ingest job"):
        cache.path(str(tmp_path / "d"), shard)


def test_remote_shards_are_fetched_once(s3, tmp_path, downloads):
    shard, cache = put(s3, 1), NodeCache(tmp_path / "cache")
    with ThreadPoolExecutor(6) as pool:
        paths = set(pool.map(lambda _: cache.path(s3, shard), range(6)))
    assert len(paths) == 1 and paths.pop().read_bytes() == b"\x01" * 1000
    NodeCache(tmp_path / "cache").path(s3, shard)
    assert len(downloads) == 1


def test_remote_corruption_is_an_error(s3, tmp_path):
    shard, cache = put(s3, 1), NodeCache(tmp_path / "cache")
    storage.write_bytes(storage.join(s3, shard.path), b"\x01" * 999 + b"?")
    with pytest.raises(Corrupt, match="1.arrow: is corrupt: its sha256 is .*; run the ingest job again"):
        cache.path(s3, shard)
    storage.write_bytes(storage.join(s3, shard.path), b"\x01" * 400)
    with pytest.raises(Corrupt, match="has 400 bytes, not 1000"):
        cache.path(s3, shard)
    assert not list((tmp_path / "cache/shards").glob("*.arrow"))


def test_missing_shards_are_reported(place, tmp_path):
    shard = put(place, 1)
    storage.delete(storage.join(place, shard.path))
    with pytest.raises(NotFound, match="a shard of the dataset is missing; run the ingest job again"):
        NodeCache(tmp_path / "cache").path(place, shard)


def test_least_recently_used_shards_are_evicted(s3, tmp_path, downloads):
    shards, cache = [put(s3, number) for number in range(4)], NodeCache(tmp_path / "cache", limit_bytes=3000)
    for shard in shards[:3]:
        cache.path(s3, shard)
        time.sleep(0.02)  # recency is the file's time
    cache.path(s3, shards[0])
    cache.path(s3, shards[3])
    kept = {path.stem for path in (tmp_path / "cache/shards").glob("*.arrow")}
    assert kept == {shards[0].sha256, shards[2].sha256, shards[3].sha256}
    missing = cache.missing(s3, shards)  # of the first three, the fourth would not fit beside them
    assert [shard.path for shard in missing] == ["train/1.arrow"]
    assert cache.path(s3, shards[1]).read_bytes() == b"\x01" * 1000  # fetched again
    assert len(downloads) == 5


def test_a_shard_must_fit(s3, tmp_path):
    with pytest.raises(StorageError, match="data.cache_gb: .* cannot hold one shard.*set it higher"):
        NodeCache(tmp_path, limit_bytes=999).path(s3, put(s3, 1))


def test_unusable_directory(s3, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError, match="the cache is not usable.*set data.cache_dir"):
        NodeCache(tmp_path / "file").path(s3, put(s3, 1))


def test_directory_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path))
    assert NodeCache().directory == tmp_path
    assert str(NodeCache("~/x").directory) == os.path.expanduser("~/x")


def test_a_file_damaged_by_a_power_failure_is_fetched_again(s3, tmp_path, monkeypatch, downloads):
    shard, cache = put(s3, 1), NodeCache(tmp_path / "cache")
    path = cache.path(s3, shard)
    stat = path.stat()
    path.write_bytes(bytes(1000))  # of the right size, never written out
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    monkeypatch.setattr("yolov7_ray.data.reading.cache._boot_id", lambda: "the next one")
    assert cache.path(s3, shard).read_bytes() == b"\x01" * 1000
    assert len(downloads) == 2
    cache.path(s3, shard)
    assert len(downloads) == 2


# --- many processes -------------------------------------------------------------------------------------


@pytest.fixture
def faulty(s3_server, monkeypatch):
    with faulty_s3.running(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def _read_elsewhere(endpoint: str, directory: str, limit_bytes: float, uri: str, shards: list[Shard]) -> list[bool]:
    """In another process: whether the first and last byte of each shard are right, and their number."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    cache, right = NodeCache(directory, limit_bytes), []
    for shard in shards:
        with cache.held(uri, shard) as path:
            data = path.read_bytes()
        right.append(data == data[:1] * shard.num_bytes and shard.path == f"train/{data[0]}.arrow")
    return right


def test_processes_share_the_cache_and_its_bound(s3, faulty, tmp_path):
    limit_bytes, directory = 3500, tmp_path / "cache"
    shards = [put(s3, number) for number in range(1, 9)]
    common = put(s3, 9, 3 << 20)
    faulty.delay_s = 0.01  # so that fetches overlap
    with multiprocessing.get_context("forkserver").Pool(3) as pool:
        arguments = faulty.endpoint, str(tmp_path / "common"), 1e9, s3, [common]
        calls = [pool.apply_async(_read_elsewhere, arguments) for _ in range(6)]
        assert [call.get(60) for call in calls] == [[True]] * 6
        assert [path.rpartition("/")[2] for method, path, _ in faulty.requests if method == "GET"] == ["9.arrow"]

        calls = [pool.apply_async(_read_elsewhere, (faulty.endpoint, str(directory), limit_bytes, s3, order))
                 for order in (shards, shards[::-1], shards[4:] + shards[:4]) for _ in range(2)]
        cache, most_bytes = NodeCache(directory), 0
        while not all(call.ready() for call in calls):
            with cache._locked(EVICTION_LOCK):  # nothing is evicted while we count
                most_bytes = max(most_bytes, sum(_size(path) for path in (directory / "shards").glob("*")))
            time.sleep(0.005)
        assert [call.get(60) for call in calls] == [[True] * 8] * 6
        assert 1000 < most_bytes <= limit_bytes
    assert not list((directory / "shards").glob(".*"))
    assert all(path.stat().st_size == 0 for path in (directory / "locks").iterdir())  # nothing reserved any more


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


FETCHER = """
import json, os, sys
from yolov7_ray import storage
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.manifest import Shard

storage.RANGE_BYTES = 100_000
NodeCache(sys.argv[1]).path(sys.argv[2], Shard(**json.loads(sys.argv[3])))
"""


def python_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_a_killed_fetch_is_completed_by_the_next(s3, faulty, tmp_path):
    shard, other, cache = put(s3, 1, 400_000), put(s3, 2), NodeCache(tmp_path / "cache", limit_bytes=400_500)
    stall = faulty.inject("stalled", "GET", part="/1.arrow", count=1)
    process = subprocess.Popen([sys.executable, "-c", FETCHER, cache.directory, s3, json.dumps(asdict(shard))],
                               env=python_environment())
    deadline = time.monotonic() + 120
    while len([1 for method, *_ in faulty.requests if method == "GET"]) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL and stall.count == 0
    shards = cache.directory / "shards"
    assert [path.name[:65] for path in shards.iterdir()] == [f".{shard.sha256}"]  # a part, for no reader to see
    cache.path(s3, other)  # fits only when what the killed one reserved is free again
    assert [path.stem for path in shards.iterdir()] == [other.sha256]
    assert cache.path(s3, shard).read_bytes() == b"\x01" * 400_000
    assert [path.stem for path in shards.iterdir()] == [shard.sha256]


# --- full disks -----------------------------------------------------------------------------------------


ON_A_SMALL_DISK = """
import json, os, shutil, sys
from pathlib import Path
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.manifest import Shard
from yolov7_ray.errors import StorageError

directory, uri = Path(sys.argv[1]), sys.argv[2]
shards = [Shard(**values) for values in json.loads(sys.argv[3])]
cache = NodeCache(directory)
kept = lambda: sorted(path.name for path in (directory / "shards").iterdir())

def read(numbers):
    return all(cache.path(uri, shards[n]).read_bytes()[:1] == bytes([n]) for n in numbers)

answers = {"larger than the disk": read(range(5)), "kept": len(kept())}
usage = shutil.disk_usage
shutil.disk_usage = lambda path: usage("/proc")._replace(free=1 << 40)  # as under a quota: no one tells
answers |= {"under a quota": read(range(5)), "kept under a quota": len(kept())}
shutil.disk_usage = usage
for path in (directory / "shards").iterdir():
    path.unlink()
(directory / "of others").write_bytes(bytes(5 << 19))  # 2.5 of 3 MiB
try:
    read([0])
except StorageError as error:
    answers |= {"error": str(error), "left": kept()}
print(json.dumps(answers))
"""


def small_disk(command: list[str], directory: Path) -> list[str]:
    """`command` with a disk of 3 MiB at `directory`, of its own; skips the test where that is not allowed."""
    directory.mkdir()
    mount = f"mount -t tmpfs -o size=3m tmpfs {directory} && "
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount + "true"], capture_output=True, timeout=120).returncode:
        pytest.skip("small disks need user namespaces (unshare -Urm)")
    return ["unshare", "-Urm", "sh", "-c", mount + 'exec "$@"', "sh", *command]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk in a namespace")
def test_full_disks(s3, tmp_path):
    shards = [put(s3, number, 1 << 20) for number in range(5)]
    directory = tmp_path / "disk"
    command = small_disk([sys.executable, "-c", ON_A_SMALL_DISK, str(directory), s3,
                          json.dumps([asdict(shard) for shard in shards])], directory)
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers.pop("error").startswith(
        f"{directory}: the disk is full; free some space, set data.cache_dir to a directory on a larger disk, or "
        "data.cache_gb to less than the disk can hold (now 200)")
    assert answers == {"larger than the disk": True, "kept": 3, "under a quota": True, "kept under a quota": 3,
                       "left": []}


def test_a_full_disk_costs_the_oldest_shard(s3, tmp_path, monkeypatch):
    shards, cache, download, full = [put(s3, n) for n in range(3)], NodeCache(tmp_path), storage.download, [True]
    for shard in shards[:2]:
        cache.path(s3, shard)
        time.sleep(0.02)

    def download_once_full(*arguments) -> None:
        if full.pop() if full else False:
            raise storage.DiskFull("x", "the disk is full", "free some space")
        download(*arguments)

    monkeypatch.setattr(storage, "download", download_once_full)
    assert cache.path(s3, shards[2]).read_bytes() == b"\x02" * 1000
    assert {path.stem for path in (tmp_path / "shards").iterdir()} == {shards[1].sha256, shards[2].sha256}
    full.extend([True, True])  # and once more after that
    with pytest.raises(storage.DiskFull, match="the disk is full; .*data.cache_dir.*data.cache_gb"):
        cache.path(s3, shards[0])
    assert cache.path(s3, shards[2]).read_bytes() == b"\x02" * 1000
