"""The node's cache: verified bytes, fetched once, bounded, shared by processes."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from yolov7_ray import storage
from yolov7_ray.data.cache import NodeCache
from yolov7_ray.data.schema import Shard
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
    monkeypatch.setattr("yolov7_ray.data.cache._verify", lambda *_: pytest.fail("verified twice"))
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


def _fetch_elsewhere(directory: str, uri: str, shard: Shard) -> str:
    return str(NodeCache(directory).path(uri, shard))


def test_processes_share_the_cache(s3, tmp_path):
    shard = put(s3, 1, 3 << 20)
    with multiprocessing.get_context("forkserver").Pool(3) as pool:
        calls = [pool.apply_async(_fetch_elsewhere, (str(tmp_path / "cache"), s3, shard)) for _ in range(6)]
        assert len({call.get(60) for call in calls}) == 1
    assert len(list((tmp_path / "cache/shards").iterdir())) == 1


def test_remote_corruption_is_an_error(s3, tmp_path):
    shard, cache = put(s3, 1), NodeCache(tmp_path / "cache")
    storage.write_bytes(storage.join(s3, shard.path), b"\x01" * 999 + b"?")
    with pytest.raises(Corrupt, match="1.arrow: is corrupt: its sha256 is .*; run the ingest job again"):
        cache.path(s3, shard)
    storage.write_bytes(storage.join(s3, shard.path), b"\x01" * 400)
    with pytest.raises(Corrupt, match="has 400 bytes, not 1000"):
        cache.path(s3, shard)
    assert not list((tmp_path / "cache/shards").glob("*.arrow"))


def test_missing_shards_say_so(place, tmp_path):
    shard = put(place, 1)
    storage.delete(storage.join(place, shard.path))
    with pytest.raises(NotFound, match="a shard of the dataset is missing; run the ingest job again"):
        NodeCache(tmp_path / "cache").path(place, shard)


def test_least_recently_used_shards_leave(s3, tmp_path, downloads):
    shards, cache = [put(s3, number) for number in range(4)], NodeCache(tmp_path / "cache", limit_bytes=3000)
    for shard in shards[:3]:
        cache.path(s3, shard)
        time.sleep(0.02)  # recency is the file's time
    cache.path(s3, shards[0])
    cache.path(s3, shards[3])
    kept = {path.stem for path in (tmp_path / "cache/shards").glob("*.arrow")}
    assert kept == {shards[0].sha256, shards[2].sha256, shards[3].sha256}
    assert cache.path(s3, shards[1]).read_bytes() == b"\x01" * 1000  # fetched again
    assert len(downloads) == 5


def test_a_shard_must_fit(s3, tmp_path):
    with pytest.raises(StorageError, match="data.cache_gb: .* cannot hold one shard.*set it higher"):
        NodeCache(tmp_path, limit_bytes=999).path(s3, put(s3, 1))


def test_leftovers_of_killed_processes_go(s3, tmp_path):
    shard, cache = put(s3, 1), NodeCache(tmp_path / "cache")
    leftover = tmp_path / "cache/shards" / f".{shard.sha256}.arrow.abc.part"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    cache.path(s3, shard)
    assert not leftover.exists()


def test_unusable_directory(s3, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError, match="the cache is not usable.*set data.cache_dir"):
        NodeCache(tmp_path / "file").path(s3, put(s3, 1))


def test_directory_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path))
    assert NodeCache().directory == tmp_path
    assert str(NodeCache("~/x").directory) == os.path.expanduser("~/x")
