"""Shards on this node's disk, shared by all of its processes.

A shard from S3 is fetched once per node, whoever asks first, and kept under its digest until the cache is
full; a shard on a local disk is used where it lies. Either is verified before anyone maps it.

One lock per shard, a file whose length is the number of bytes that its holder is fetching: so all processes
together stay below the limit, and what a killed process had begun is recognised and removed.
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

ROOM = "room"
"""The lock of those who count and evict."""
WAIT_S = 0.05
"""Between two looks for room, while other processes' fetches fill the cache."""


def default_directory() -> Path:
    """``$YOLOV7_CACHE_DIR``, else ``~/.cache/yolov7-ray``."""
    return Path(os.environ.get("YOLOV7_CACHE_DIR") or Path.home() / ".cache" / "yolov7-ray")


class NodeCache:
    """A directory of verified shards of at most `limit_bytes`; the least recently used go first."""

    def __init__(self, directory: str | os.PathLike | None = None, limit_bytes: float = 200e9):
        self.directory = Path(directory).expanduser() if directory else default_directory()
        self.limit_bytes = int(limit_bytes)

    def path(self, dataset_uri: str, shard: Shard) -> Path:
        """A local file with exactly the bytes of `shard`; Corrupt where the dataset has others.

        Another process may evict it as soon as this returns: map it within `held` instead.
        """
        with self.held(dataset_uri, shard) as path:
            return path

    @contextmanager
    def held(self, dataset_uri: str, shard: Shard) -> Iterator[Path]:
        """`path`, which stays there meanwhile; what is mapped then can be read on when it is evicted."""
        uri = storage.join(dataset_uri, shard.path)
        with _explained(uri, self.directory), self._locked(shard.sha256[:32]) as lock:
            path = self._cached(uri, shard, lock) if storage.is_remote(uri) else self._in_place(Path(uri), shard)
            yield path

    def fetch(self, dataset_uri: str, shard: Shard) -> None:
        """Get `shard` ready for `path`, unless another process is at it already."""
        uri = storage.join(dataset_uri, shard.path)
        with _explained(uri, self.directory), self._locked(shard.sha256[:32], wait=False) as lock:
            if lock is not None:
                self._cached(uri, shard, lock) if storage.is_remote(uri) else self._in_place(Path(uri), shard)

    def missing(self, dataset_uri: str, shards: Sequence[Shard]) -> list[Shard]:
        """Which of `shards` are to be fetched, or verified: of the first ones, as many as the cache can hold together.

        Those that are there are made the last to go.
        """
        if not storage.is_remote(dataset_uri):
            return [shard for shard in shards if not self._is_verified(Path(dataset_uri, shard.path), shard)]
        ends = itertools.accumulate(shard.num_bytes for shard in shards)
        fitting = [shard for shard, end in zip(shards, ends, strict=True) if end <= self.limit_bytes]
        missing = []
        for shard in reversed(fitting):
            try:
                _use(self._file(shard))
            except OSError:  # one that is not usable is the reader's to report
                missing.append(shard)
        return missing[::-1]

    # --- local datasets -----------------------------------------------------------------------------

    def _in_place(self, path: Path, shard: Shard) -> Path:
        """The shard where it lies, its digest computed once per node and change of the file."""
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError:
            raise NotFound(str(path), "there is nothing here") from None
        if num_bytes != shard.num_bytes:
            raise Corrupt(str(path), f"the shard is truncated: it has {num_bytes} bytes, not {shard.num_bytes}")
        mark = self._mark(path, shard)
        if not mark.exists():
            actual = storage.digest(path)
            if actual != shard.sha256:
                raise Corrupt(str(path), f"the shard is corrupt: its sha256 is {actual[:16]}…, "
                                         f"not {shard.sha256[:16]}…")
            _touch(mark)
        return path

    def _is_verified(self, path: Path, shard: Shard) -> bool:
        return path.exists() and self._mark(path, shard).exists()

    def _mark(self, path: Path, shard: Shard, boot: str = "") -> Path:
        """A file that is there once `path`, as it is now, was found to be `shard`."""
        stat = path.stat()
        identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {shard.sha256}{boot}"
        return self.directory / "verified" / storage.digest(identity.encode())

    # --- remote datasets ----------------------------------------------------------------------------

    def _file(self, shard: Shard) -> Path:
        return self.directory / "shards" / f"{shard.sha256}.arrow"

    def _cached(self, uri: str, shard: Shard, lock: int) -> Path:
        if shard.num_bytes > self.limit_bytes:
            raise StorageError("data.cache_gb", f"{self.limit_bytes / 1e9:g} GB cannot hold one shard of "
                                                f"{shard.num_bytes / 1e9:.3g} GB", "set it higher")
        cached = self._file(shard)
        if not self._is_whole(cached, shard):
            cached.unlink(missing_ok=True)
            self._remove_leftovers(cached.name)
            self._fetch(uri, shard, cached, lock)
            _touch(self._mark(cached, shard, _boot()))
        _use(cached)
        return cached

    def _is_whole(self, cached: Path, shard: Shard) -> bool:
        """Verified since the node was started: what it had not yet written out when its power failed is lost."""
        if not cached.exists() or cached.stat().st_size != shard.num_bytes:
            return False
        mark = self._mark(cached, shard, _boot())
        if not mark.exists():
            if storage.digest(cached) != shard.sha256:
                return False
            _touch(mark)
        return True

    def _fetch(self, uri: str, shard: Shard, cached: Path, lock: int) -> None:
        while not self._reserved(shard, lock):
            time.sleep(WAIT_S)  # others' fetches end, after a bounded patience, and can be evicted then
        try:
            try:
                storage.download(uri, cached, shard.sha256, shard.num_bytes)
            except storage.DiskFull:  # it is smaller than the limit, or others fill it
                with self._locked(ROOM):
                    if not self._evict(shard.num_bytes):
                        raise
                storage.download(uri, cached, shard.sha256, shard.num_bytes)
        except storage.DiskFull as error:
            raise storage.DiskFull(
                str(self.directory), error.problem, "free some space, set data.cache_dir to a directory on a larger "
                f"disk, or data.cache_gb to less than the disk can hold (now {self.limit_bytes / 1e9:g})") from error
        finally:
            os.ftruncate(lock, 0)

    # --- room ---------------------------------------------------------------------------------------

    def _reserved(self, shard: Shard, lock: int) -> bool:
        """Make room for `shard` and reserve it; False where fetches of others, and files in use, leave none."""
        with self._locked(ROOM):
            fetching_bytes = self._fetching_bytes()  # first: what arrives meanwhile is counted twice, not left out
            kept_bytes = sum(num_bytes for _, num_bytes, _ in self._entries())
            excess_bytes = kept_bytes + fetching_bytes + shard.num_bytes - self.limit_bytes
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
        """What is being fetched now; on the way, the ends of fetches whose process was killed."""
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
        """Remove the least recently used shards that no one is about to map; the bytes that this frees."""
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
        """Partial files, of shards whose names begin so, of a process that was killed: we hold the lock."""
        for leftover in (self.directory / "shards").glob(f".{name}*.part"):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str, wait: bool = True) -> Iterator[int | None]:
        """The descriptor of the lock `name`, which one process or thread of this node holds; None: another does."""
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


def _use(path: Path) -> None:
    """Make `path` the most recently used; its modification time stays, by which it is recognised."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _touch(mark: Path) -> None:
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def _boot() -> str:
    """Names this start of the node; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
