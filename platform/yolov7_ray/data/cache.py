"""Shards on this node's disk, shared by all of its processes.

A shard from S3 is fetched once per node, whoever asks first, and kept under its digest until the cache is
full; a shard on a local disk is used where it lies. Either is verified before anyone maps it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import storage
from ..errors import Corrupt, NotFound, StorageError
from .schema import Shard


def default_directory() -> Path:
    """``$YOLOV7_CACHE_DIR``, else ``~/.cache/yolov7-ray``."""
    return Path(os.environ.get("YOLOV7_CACHE_DIR") or Path.home() / ".cache" / "yolov7-ray")


class NodeCache:
    """A directory of verified shards of at most `limit_bytes`; the least recently used go first."""

    def __init__(self, directory: str | os.PathLike | None = None, limit_bytes: float = 200e9):
        self.directory = Path(directory).expanduser() if directory else default_directory()
        self.limit_bytes = int(limit_bytes)

    def path(self, dataset_uri: str, shard: Shard) -> Path:
        """A local file with exactly the bytes of `shard`; Corrupt where the dataset has others."""
        uri = storage.join(dataset_uri, shard.path)
        try:
            return self._cached(uri, shard) if storage.is_remote(uri) else self._in_place(Path(uri), shard)
        except NotFound:
            raise NotFound(uri, "a shard of the dataset is missing",
                           "run the ingest job again: it completes the dataset") from None
        except Corrupt as error:
            raise Corrupt(uri, error.problem, "run the ingest job again with `overwrite: true`") from None
        except OSError as error:
            raise StorageError(str(self.directory), f"the cache is not usable ({error.strerror})",
                               "set data.cache_dir to a directory with enough space") from error

    # --- local datasets -----------------------------------------------------------------------------

    def _in_place(self, path: Path, shard: Shard) -> Path:
        """The shard where it lies, its digest computed once per node and change of the file."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise NotFound(str(path), "there is nothing here") from None
        if stat.st_size != shard.num_bytes:
            raise Corrupt(str(path), f"the shard is truncated: it has {stat.st_size} bytes, not {shard.num_bytes}")
        identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {shard.sha256}"
        verified = self.directory / "verified" / storage.digest(identity.encode())
        with self._locked(shard):
            if not verified.exists():
                _verify(path, shard)
                verified.parent.mkdir(exist_ok=True)
                verified.touch()
        return path

    # --- remote datasets ----------------------------------------------------------------------------

    def _cached(self, uri: str, shard: Shard) -> Path:
        cached = self.directory / "shards" / f"{shard.sha256}.arrow"
        if shard.num_bytes > self.limit_bytes:
            raise StorageError("data.cache_gb", f"{self.limit_bytes / 1e9:g} GB cannot hold one shard of "
                                                f"{shard.num_bytes / 1e9:.3g} GB", "set it higher")
        with self._locked(shard):
            if not cached.exists() or cached.stat().st_size != shard.num_bytes:
                cached.parent.mkdir(exist_ok=True)
                for leftover in cached.parent.glob(f".{cached.name}.*.part"):  # of a killed process: we hold the lock
                    leftover.unlink(missing_ok=True)
                self._evict(shard.num_bytes, keep=cached)
                storage.download(uri, cached, shard.sha256, shard.num_bytes)
            os.utime(cached)
        return cached

    def _evict(self, needed_bytes: int, keep: Path) -> None:
        """Remove the least recently used shards; a process that has one mapped goes on reading it."""
        entries = []
        for path in keep.parent.glob("*.arrow"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # evicted by another process just now
            entries.append((stat.st_mtime_ns, stat.st_size, path))
        excess = sum(size for _, size, _ in entries) + needed_bytes - self.limit_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size

    @contextmanager
    def _locked(self, shard: Shard) -> Iterator[None]:
        """Only one process of this node fetches or verifies a shard; the others wait for it."""
        locks = self.directory / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with open(locks / shard.sha256[:32], "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _verify(path: Path, shard: Shard) -> None:
    actual = storage.digest(path)
    if actual != shard.sha256:
        raise Corrupt(str(path), f"the shard is corrupt: its sha256 is {actual[:16]}…, not {shard.sha256[:16]}…")
