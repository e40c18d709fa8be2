"""Local storage: files on this machine's disks, or on a filesystem that all nodes mount."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ..errors import AlreadyExists, NotFound, StorageError
from . import activity

if TYPE_CHECKING:
    import pyarrow.fs


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file in a listing."""

    path: str
    """Relative to the listed directory, with forward slashes."""
    num_bytes: int
    mark: str
    """Changes when the file does: modification time locally, ETag in S3."""


class Skipped(NamedTuple):
    """What a listing leaves out."""

    path: str
    """Relative to the listed directory; bytes that are no UTF-8 as escapes."""
    reason: str
    is_directory: bool
    """Whether it is a directory, and nobody knows what lies in it."""


class Denied(StorageError):
    """A path that this user may not read."""


class DiskFull(StorageError):
    """A disk, or a quota on it, has no space left."""


_REMEDIES = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another directory"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another directory"),
    errno.EFBIG: ("the file is larger than this disk or `ulimit -f` allows", "choose another directory"),
    errno.EACCES: ("access is denied", "check the permissions of this path"),
    errno.EPERM: ("access is denied", "check the permissions of this path"),
    errno.EROFS: ("the filesystem is read-only", "choose another directory"),
    errno.ENOTDIR: ("a part of this path is a file, not a directory", "check the path"),
    errno.EEXIST: ("a part of this path is a file, not a directory", "check the path"),
    errno.EISDIR: ("it is a directory, not a file", "check the path"),
}


def explained(error: OSError, path: str) -> StorageError:
    """The StorageError with problem and remedy for `error`."""
    if error.errno == errno.ENOENT:
        return NotFound(path, "there is nothing here", "check the path")
    problem, remedy = _REMEDIES.get(error.errno, (error.strerror or str(error), "check the path and its disk"))
    kinds = {errno.ENOSPC: DiskFull, errno.EDQUOT: DiskFull, errno.EACCES: Denied, errno.EPERM: Denied}
    return kinds.get(error.errno, StorageError)(path, problem, remedy)


def write_failure(error: Exception, directory: str, num_bytes: int) -> StorageError:
    """The StorageError for a failed write of ``num_bytes`` into a directory by any library, with problem and remedy."""
    if isinstance(error, OSError) and error.errno:
        return explained(error, directory)
    if "space left" in str(error) or shutil.disk_usage(directory).free < num_bytes:
        return explained(OSError(errno.ENOSPC, ""), directory)
    return StorageError(directory, str(error).partition("\n")[0], "check the path and its disk")


def digest(source: bytes | str | os.PathLike) -> str:
    """SHA-256, as hex, of bytes or of a local file."""
    if isinstance(source, bytes | bytearray | memoryview):
        return hashlib.sha256(source).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_at(descriptor: int, data: bytes, start: int) -> None:
    """Write all of `data`: a disk that fills up first accepts a part, then fails."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written


class Disk:
    """One local path, file or directory."""

    def __init__(self, path: str):
        self.path = Path(path)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            with activity.operation(str(self.path)):
                yield
        except OSError as error:
            raise explained(error, str(self.path)) from error

    def arrow(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """The filesystem of pyarrow and the path in it."""
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), str(self.path)

    def check_access(self, write: bool) -> None:
        """Raise if the nearest existing directory cannot be used."""
        nearest = next(path for path in [self.path, *self.path.parents] if path.exists())
        if nearest != self.path and not nearest.is_dir():
            raise StorageError(str(self.path), f"{nearest} is a file, not a directory", "check the path")
        if not os.access(nearest, os.R_OK | (os.W_OK if write else 0)):
            raise StorageError(str(self.path), f"access to {nearest} is denied", "check the permissions")

    def read(self) -> bytes:
        """The whole content."""
        with self._translated_errors():
            return self.path.read_bytes()

    def read_with_etag(self) -> tuple[bytes, str]:
        """The content, and its digest as version."""
        data = self.read()
        return data, digest(data)

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop."""
        with self._translated_errors(), open(self.path, "rb") as file:
            return os.pread(file.fileno(), stop - start, start)

    def open(self) -> BinaryIO:
        """The open file."""
        with self._translated_errors():
            return open(self.path, "rb")

    def size_and_digest(self) -> tuple[int, str | None]:
        """Bytes of the file; its digest is not recorded anywhere."""
        with self._translated_errors():
            return self.path.stat().st_size, None

    def exists(self) -> bool:
        """Whether there is a file, or a directory that holds one."""
        return self.path.is_file() or next(self.files([]), None) is not None

    def files(self, skipped: list[Skipped]) -> Iterator[FileInfo]:
        """Files below this directory, without hidden ones; links are followed, but not in a circle."""
        waiting = [(str(self.path), "", ())]
        while waiting:
            directory, prefix, above = waiting.pop()
            try:
                status = os.stat(directory)
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    skipped.append(Skipped(_readable(prefix[:-1]), "link to a directory above it", False))
                    continue
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if _is_directory(entry):
                            waiting.append((entry.path, f"{prefix}{entry.name}/", (*above, identity)))
                        elif found := _listed(entry, prefix + entry.name, skipped):
                            yield found
            except OSError as error:
                if prefix:
                    skipped.append(Skipped(_readable(prefix[:-1]), explained(error, "").problem, True))
                elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise explained(error, directory) from error

    def write(self, data: bytes) -> None:
        """Write or replace."""
        with self._translated_errors(), self._complete_copy(data) as complete:
            os.replace(complete, self.path)

    def upload(self, local_path: Path) -> None:
        """Copy a local file to this path."""
        with self._translated_errors(), self._complete_copy(local_path) as complete:
            os.replace(complete, self.path)

    def adopt(self, local_path: Path) -> None:
        """Move a file of the same disk to this path, flushed."""
        with self._translated_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(local_path, "rb") as file:
                os.fsync(file.fileno())
            os.replace(local_path, self.path)

    def write_if(self, data: bytes, expected_etag: str | None) -> str:
        """Write if the version is `expected_etag` (None: nothing exists)."""
        with self._translated_errors(), self._complete_copy(data) as complete:
            if expected_etag is None:
                self._create(complete)
                return digest(data)
            with self._locked():
                if digest(self.path.read_bytes()) != expected_etag:
                    raise AlreadyExists(str(self.path), "another writer changed it meanwhile", "read it again")
                os.replace(complete, self.path)
                return digest(data)

    def _create(self, complete: Path) -> None:
        try:
            os.link(complete, self.path)  # unlike a rename it never replaces, and the content is already complete
        except FileExistsError:
            raise AlreadyExists(str(self.path), "it exists already", "choose another name") from None

    @contextmanager
    def _complete_copy(self, content: bytes | Path) -> Iterator[Path]:
        """`content` flushed to the disk, in a temporary file in the same directory."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.part")
        try:
            with open(partial, "wb") as file:
                if isinstance(content, Path):
                    with open(content, "rb") as source:
                        while chunk := source.read(1 << 20):
                            file.write(chunk)
                            activity.moved()
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.path.with_name(f".{self.path.name}.lock"), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def delete(self) -> None:
        """Remove the file or the tree."""
        with self._translated_errors():
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path, ignore_errors=False)
            else:
                self.path.unlink(missing_ok=True)


def _listed(entry: os.DirEntry, path: str, skipped: list[Skipped]) -> FileInfo | None:
    """A file of a directory; None, and why, if it is none that can be read or named."""
    try:
        status = entry.stat()
    except OSError as error:
        reason = "link to nothing" if error.errno == errno.ENOENT else explained(error, "").problem
        skipped.append(Skipped(_readable(path), reason, False))
        return None
    if not stat.S_ISREG(status.st_mode):
        skipped.append(Skipped(_readable(path), "neither file nor directory", False))
    elif not _is_text(path):
        skipped.append(Skipped(_readable(path), "name that is not UTF-8", False))
    else:
        return FileInfo(path, status.st_size, str(status.st_mtime_ns))
    return None


def _is_directory(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(path: str) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")
