"""Storage, local and on a real S3 server: whole or absent, one winner, errors that say what to do."""

import errno
import os
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from yolov7_ray import storage
from yolov7_ray.errors import AlreadyExists, Corrupt, JobError, NotFound, StorageError
from yolov7_ray.storage import s3 as s3_module


def test_join_keeps_both_kinds_of_uri():
    assert storage.join("s3://b/p/", "a", "b.json") == "s3://b/p/a/b.json"
    assert storage.join("/data", "a/b") == "/data/a/b"
    assert storage.join("data/x", "a") == "data/x/a"


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("runs/") == str(tmp_path / "runs")
    assert storage.absolute("s3://b/p/") == "s3://b/p"


def test_bytes_and_json_round_trip(place):
    uri = storage.join(place, "a/b.json")
    assert not storage.exists(uri)
    storage.write_json(uri, {"x": [1, None]})
    storage.write_bytes(storage.join(place, "c.bin"), b"123")
    storage.write_bytes(storage.join(place, "c.bin"), b"45")
    assert storage.read_json(uri) == {"x": [1, None]}
    assert storage.read_bytes(storage.join(place, "c.bin"), storage.digest(b"45")) == b"45"
    assert storage.exists(place) and storage.exists(uri)
    assert [(f.path, f.num_bytes) for f in storage.list_files(place)][1] == ("c.bin", 2)


def test_missing_is_not_found(place):
    for call in (storage.read_bytes, storage.read_json, storage.read_with_etag, storage.download_directory):
        arguments = (place + "/no", place) if call is storage.download_directory else (place + "/no",)
        with pytest.raises(NotFound, match="/no: there "):
            call(*arguments)
    assert storage.list_files(place) == []
    storage.delete(place)  # nothing there is no error


def test_wrong_digest_is_corrupt(place):
    uri = storage.join(place, "x")
    storage.write_bytes(uri, b"abc")
    with pytest.raises(Corrupt, match="is corrupt: its sha256 is .* not 0000"):
        storage.read_bytes(uri, "0000")
    storage.write_bytes(uri, b"{not json")
    with pytest.raises(Corrupt, match="is not JSON"):
        storage.read_json(uri)


def test_racing_creates_have_one_winner(place):
    uri = storage.join(place, "versions/1")
    barrier = threading.Barrier(12)

    def claim(number: int) -> bool:
        barrier.wait()
        try:
            storage.create(uri, f"writer {number}".encode() * 100)
            return True
        except AlreadyExists:
            return False

    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(claim, range(12)))
    assert sum(won) == 1
    assert storage.read_bytes(uri) == f"writer {won.index(True)}".encode() * 100


def test_compare_and_swap_loses_no_update(place):
    uri = storage.join(place, "counter")
    storage.compare_and_swap(uri, b"0", None)
    with pytest.raises(AlreadyExists):
        storage.compare_and_swap(uri, b"0", None)

    def increment(_: int) -> None:
        while True:
            data, etag = storage.read_with_etag(uri)
            try:
                storage.compare_and_swap(uri, str(int(data) + 1).encode(), etag)
                return
            except AlreadyExists:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(12)))
    data, etag = storage.read_with_etag(uri)
    assert data == b"12"
    newer = storage.compare_and_swap(uri, b"13", etag)
    assert newer == storage.read_with_etag(uri)[1] != etag


def test_large_files_and_directories(place, tmp_path):
    content = os.urandom(storage.RANGE_BYTES * 2 + 12345)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "large.bin").write_bytes(content)
    (source / "empty").write_bytes(b"")
    (source / ".hidden").write_bytes(b"left out")
    storage.upload_directory(source, place)
    assert [f.path for f in storage.list_files(place)] == ["empty", "sub/large.bin"]
    storage.download_directory(place, tmp_path / "back")
    assert (tmp_path / "back/sub/large.bin").read_bytes() == content
    assert (tmp_path / "back/empty").read_bytes() == b""
    storage.download(place + "/sub/large.bin", tmp_path / "one", storage.digest(content), len(content))
    with pytest.raises(Corrupt, match="sha256"):
        storage.download(place + "/sub/large.bin", tmp_path / "two", "0" * 64, len(content))
    with pytest.raises(Corrupt, match=f"has {len(content)} bytes, not 7"):
        storage.download(place + "/sub/large.bin", tmp_path / "two", num_bytes=7)
    assert not (tmp_path / "two").exists() and not list(tmp_path.glob(".*part"))
    storage.delete(place + "/sub")
    assert [f.path for f in storage.list_files(place)] == ["empty"]
    storage.delete(place)
    assert not storage.exists(place)


def test_large_uploads_come_back_verified(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_module, "SINGLE_PUT_BYTES", 6 << 20)
    content = os.urandom((32 << 20) + 1)  # a last part of one byte
    (tmp_path / "f").write_bytes(content)
    storage.upload(tmp_path / "f", s3 + "/f")
    storage.download(s3 + "/f", tmp_path / "g", storage.digest(content), len(content))
    assert s3_module.S3.of(s3 + "/f").size_and_digest() == (len(content), storage.digest(content))
    monkeypatch.setattr(storage, "write_at", lambda *_: None)
    with pytest.raises(Corrupt, match="its sha256 is"):  # by the digest beside the object: none is given
        storage.download(s3 + "/f", tmp_path / "g")
    with pytest.raises(NotFound, match="none: there is nothing here"):
        storage.upload(tmp_path / "none", s3 + "/f")


def test_pyarrow_reaches_the_same_bytes(place):
    storage.write_bytes(storage.join(place, "x"), b"hello")
    filesystem, path = storage.filesystem(storage.join(place, "x"))
    filesystem = pickle.loads(pickle.dumps(filesystem))  # Ray ships it to its workers
    with filesystem.open_input_file(path) as file:
        assert file.read() == b"hello"
    path, filesystem = storage.ray_storage(place)
    assert (filesystem is None) == (not storage.is_remote(place))
    assert not path.startswith("s3://")


# --- mistakes and faults ----------------------------------------------------------------------------


def test_missing_credentials(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="credentials are missing.*set AWS_ACCESS_KEY_ID"):
        storage.check_access(s3)


def test_refused_credentials(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="S3 refuses the credentials .SignatureDoesNotMatch"):
        storage.check_access(s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StorageError, match="S3 (refuses the credentials|denies access)"):
        storage.read_bytes(s3 + "/x")


def test_missing_bucket(s3):
    with pytest.raises(StorageError, match="bucket 'no-such-bucket' does not exist"):
        storage.check_access("s3://no-such-bucket/x")
    with pytest.raises(StorageError, match="names no bucket"):
        storage.check_access("s3://")
    with pytest.raises(StorageError, match="not a valid S3 location"):
        storage.check_access("s3://a bucket/x")


def test_unreachable_endpoint_is_bounded(s3, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    begun = time.monotonic()
    with pytest.raises(StorageError, match=f"cannot be reached at http://127.0.0.1:{port}; check AWS_ENDPOINT_URL"):
        storage.check_access(s3)
    assert time.monotonic() - begun < 60
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    with pytest.raises(StorageError, match="'not a url' is not usable"):
        storage.check_access(s3)


def test_local_mistakes_are_explained(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="part of this path is a file"):
        storage.write_bytes(str(tmp_path / "file/below"), b"x")
    with pytest.raises(StorageError, match="is a file, not a directory"):
        storage.check_access(str(tmp_path / "file/below"))
    with pytest.raises(StorageError, match="it is a directory"):
        storage.read_bytes(str(tmp_path))


def test_full_disks_take_a_part_first(tmp_path, monkeypatch):
    taken = []

    def pwrite(descriptor: int, data: memoryview, start: int) -> int:
        if len(taken) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken.append((start, len(data)))
        return len(data) // 2

    monkeypatch.setattr(os, "pwrite", pwrite)
    (tmp_path / "source").write_bytes(b"x" * 400)
    with pytest.raises(storage.DiskFull, match="copy: the disk is full; free some space"):
        storage.download(str(tmp_path / "source"), tmp_path / "copy")
    assert taken == [(0, 400), (200, 200)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(Corrupt("s3://b/x", "is corrupt", "write it again")))
    assert isinstance(error, JobError) and str(error) == "s3://b/x: is corrupt; write it again"
