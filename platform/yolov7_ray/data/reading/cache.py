"""Shards on this node's disk, shared by all of its processes.

A shard from S3 is fetched once per node and kept under its digest until it is evicted. A shard on a local disk
is used in place. Both are verified before they are mapped.

Each shard has a lock, a file whose length is the number of bytes that its holder is fetching. This keeps all
processes together below the limit, and lets partial files of a killed process be found and removed.
"""

import fcntl
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ... import storage
from ...errors import Corrupt, NotFound, StorageError
from ..manifest import Shard

EVICTION_LOCK = "room"
"""Name of the lock that is held while cached bytes are counted and shards evicted."""
POLL_S = 0.05
"""Interval between attempts to reserve space while other processes' fetches fill the cache."""


def default_directory() -> Path:
    """``$YOLOV7_CACHE_DIR``, else ``~/.cache/yolov7-ray``."""
    return Path(os.environ.get("YOLOV7_CACHE_DIR") or Path.home() / ".cache" / "yolov7-ray")


class NodeCache:
    """A directory of verified shards of at most `limit_bytes`; the least recently used are evicted first."""

    def __init__(self, directory: str | os.PathLike | None = None, limit_bytes: float = 200e9):
        self.directory = Path(directory).expanduser() if directory else default_directory()
        self.limit_bytes = int(limit_bytes)

    def path(self, dataset_uri: str, shard: Shard) -> Path:
        """A local file with exactly the bytes of `shard`; Corrupt if the dataset holds other bytes.

        Another process may evict it as soon as this returns: map it within `held` instead.
        """
        with self.held(dataset_uri, shard) as path:
            return path

    @contextmanager
    def held(self, dataset_uri: str, shard: Shard) -> Iterator[Path]:
        """`path`, not evicted inside the block; a file that is mapped there stays readable after eviction."""
        uri = storage.join(dataset_uri, shard.path)
        with _explained(uri, self.directory), self._locked(shard.sha256[:32]) as lock:
            path = self._cached_path(uri, shard, lock) if storage.is_remote(uri) else self._local_path(Path(uri), shard)
            yield path

    def fetch(self, dataset_uri: str, shard: Shard) -> None:
        """Prepare `shard` for `path`, unless another process is doing so already."""
        uri = storage.join(dataset_uri, shard.path)
        with _explained(uri, self.directory), self._locked(shard.sha256[:32], wait=False) as lock:
            if lock is not None:
                self._cached_path(uri, shard, lock) if storage.is_remote(uri) else self._local_path(Path(uri), shard)

    def missing(self, dataset_uri: str, shards: Sequence[Shard]) -> list[Shard]:
        """Which of `shards` have to be fetched or verified, among the first ones that fit into the cache together.

        Those already cached are marked as used, so that they are evicted last.
        """
        if not storage.is_remote(dataset_uri):
            return [shard for shard in shards if not self._is_verified(Path(dataset_uri, shard.path), shard)]
        ends = itertools.accumulate(shard.num_bytes for shard in shards)
        fitting = [shard for shard, end in zip(shards, ends, strict=True) if end <= self.limit_bytes]
        missing = []
        for shard in reversed(fitting):
            try:
                _mark_as_used(self._cache_file(shard))
            except OSError:  # missing; if it is unusable, the reader reports it
                missing.append(shard)
        return missing[::-1]

    # --- local datasets -----------------------------------------------------------------------------

    def _local_path(self, path: Path, shard: Shard) -> Path:
        """The shard in place; its digest is computed once per node and version of the file."""
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError:
            raise NotFound(str(path), "there is nothing here") from None
        if num_bytes != shard.num_bytes:
            raise Corrupt(str(path), f"the shard is truncated: it has {num_bytes} bytes, not {shard.num_bytes}")
        marker = self._verified_marker(path, shard)
        if not marker.exists():
            actual = storage.digest(path)
            if actual != shard.sha256:
                raise Corrupt(str(path), f"the shard is corrupt: its sha256 is {actual[:16]}…, "
                                         f"not {shard.sha256[:16]}…")
            _touch(marker)
        return path

    def _is_verified(self, path: Path, shard: Shard) -> bool:
        return path.exists() and self._verified_marker(path, shard).exists()

    def _verified_marker(self, path: Path, shard: Shard, boot_id: str = "") -> Path:
        """A file that exists once the current content of `path` was verified to be `shard`."""
        stat = path.stat()
        identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {shard.sha256}{boot_id}"
        return self.directory / "verified" / storage.digest(identity.encode())

    # --- remote datasets ----------------------------------------------------------------------------

    def _cache_file(self, shard: Shard) -> Path:
        return self.directory / "shards" / f"{shard.sha256}.arrow"

    def _cached_path(self, uri: str, shard: Shard, lock: int) -> Path:
        if shard.num_bytes > self.limit_bytes:
            raise StorageError("data.cache_gb", f"{self.limit_bytes / 1e9:g} GB cannot hold one shard of "
                                                f"{shard.num_bytes / 1e9:.3g} GB", "set it higher")
        cached = self._cache_file(shard)
        if not self._is_valid(cached, shard):
            cached.unlink(missing_ok=True)
            self._remove_leftovers(cached.name)
            self._fetch(uri, shard, cached, lock)
            _touch(self._verified_marker(cached, shard, _boot_id()))
        _mark_as_used(cached)
        return cached

    def _is_valid(self, cached: Path, shard: Shard) -> bool:
        """Whether the file was verified since the last boot: a power failure can lose data not yet written out."""
        if not cached.exists() or cached.stat().st_size != shard.num_bytes:
            return False
        marker = self._verified_marker(cached, shard, _boot_id())
        if not marker.exists():
            if storage.digest(cached) != shard.sha256:
                return False
            _touch(marker)
        return True

    def _fetch(self, uri: str, shard: Shard, cached: Path, lock: int) -> None:
        while not self._reserve(shard, lock):
            time.sleep(POLL_S)  # other fetches end after bounded retries; their shards can then be evicted
        try:
            try:
                storage.download(uri, cached, shard.sha256, shard.num_bytes)
            except storage.DiskFull:  # the disk is smaller than the limit, or other files fill it
                with self._locked(EVICTION_LOCK):
                    if not self._evict(shard.num_bytes):
                        raise
                storage.download(uri, cached, shard.sha256, shard.num_bytes)
        except storage.DiskFull as error:
            raise storage.DiskFull(
                str(self.directory), error.problem, "free some space, set data.cache_dir to a directory on a larger "
                f"disk, or data.cache_gb to less than the disk can hold (now {self.limit_bytes / 1e9:g})") from error
        finally:
            os.ftruncate(lock, 0)

    # --- eviction -----------------------------------------------------------------------------------

    def _reserve(self, shard: Shard, lock: int) -> bool:
        """Evict and reserve space for `shard`; False if other fetches and files in use leave too little."""
        with self._locked(EVICTION_LOCK):
            fetching_bytes = self._fetching_bytes()  # first: a fetch that ends now is counted twice, not missed
            cached_bytes = sum(num_bytes for _, num_bytes, _ in self._entries())
            excess_bytes = cached_bytes + fetching_bytes + shard.num_bytes - self.limit_bytes
            free_bytes = shutil.disk_usage(self.directory).free
            freed_bytes = self._evict(max(excess_bytes, shard.num_bytes - free_bytes))
            if freed_bytes < excess_bytes:
                return False
            os.ftruncate(lock, shard.num_bytes)
            return True

    def _entries(self) -> list[tuple[int, int, Path]]:
        """Time of the last use, size and path of each shard that is kept."""
        entries = []
        for path in (self.directory / "shards").glob("*.arrow"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_atime_ns, stat.st_size, path))
        return entries

    def _fetching_bytes(self) -> int:
        """Bytes being fetched now; also cleans up fetches whose process was killed."""
        fetching_bytes = 0
        for path in (self.directory / "locks").iterdir():
            num_bytes = path.stat().st_size
            if not num_bytes:
                continue
            with self._locked(path.name, wait=False) as lock:
                if lock is None:
                    fetching_bytes += num_bytes
                else:
                    self._remove_leftovers(path.name)
                    os.ftruncate(lock, 0)
        return fetching_bytes

    def _evict(self, wanted_bytes: int) -> int:
        """Remove the least recently used shards that are not locked; returns the bytes freed."""
        freed_bytes = 0
        for _, num_bytes, path in sorted(self._entries()):
            if freed_bytes >= wanted_bytes:
                break
            with self._locked(path.name[:32], wait=False) as lock:
                if lock is not None:
                    path.unlink(missing_ok=True)
                    freed_bytes += num_bytes
        return freed_bytes

    def _remove_leftovers(self, name: str) -> None:
        """Remove partial files of shards whose names start with `name`; the caller holds the lock."""
        for leftover in (self.directory / "shards").glob(f".{name}*.part"):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str, wait: bool = True) -> Iterator[int | None]:
        """The descriptor of the lock `name`, held by one process or thread of this node; None: another holds it."""
        path = self.directory / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
            else:
                yield lock
        finally:
            os.close(lock)


@contextmanager
def _explained(uri: str, directory: Path) -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise NotFound(uri, "a shard of the dataset is missing",
                       "run the ingest job again: it completes the dataset") from None
    except Corrupt as error:
        raise Corrupt(uri, error.problem, "run the ingest job again with `overwrite: true`") from None
    except OSError as error:
        raise StorageError(str(directory), f"the cache is not usable ({error.strerror})",
                           "set data.cache_dir to a directory with enough space") from error


def _mark_as_used(path: Path) -> None:
    """Make `path` the most recently used; its modification time, part of its identity, is kept."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _touch(marker: Path) -> None:
    marker.parent.mkdir(exist_ok=True)
    marker.touch()


def _boot_id() -> str:
    """Id of the node's current boot; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
