"""What fsspec reads: ``gs://``, ``abfs://``, ``https://`` and others, where the package of the scheme is installed."""

import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.registry import known_implementations

from ..errors import NotFound, StorageError
from . import PATIENCE, activity, retry
from .disk import FileInfo, Skipped
from .location import scheme_of
from .read_only import ReadOnly
from .stream import Ranges

if TYPE_CHECKING:
    import pyarrow.fs

WEB = ("http", "https")
_MARKS = ("etag", "ETag", "md5Hash", "generation", "content_md5", "last_modified", "LastModified", "updated", "mtime",
          "modified", "created")
"""Keys by which file systems tell versions of a file apart, the best first."""
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ImportError,
              ValueError, TypeError, KeyError)
_reached: set[str] = set()
"""Hosts and buckets that have answered this process."""

T = TypeVar("T")


class Remote(ReadOnly):
    """One location of any scheme that fsspec knows."""

    def __init__(self, uri: str):
        self.uri, self.scheme = uri.rstrip("/"), scheme_of(uri)
        self.place = f"{self.scheme}://{urlsplit(uri).netloc}"

    def _asked(self, question: Callable[[Any, str], T], retry_for_s: float | None = None) -> T:
        """The answer of the file system to a question about this path, repeated after transient errors."""
        def attempt() -> T:
            try:
                answer = question(*fsspec.url_to_fs(self.uri))
            except FileNotFoundError as error:
                raise (self.scheme in WEB and error.__cause__) or error  # a host that does not answer is no missing file
            _reached.add(self.place)
            return answer

        with activity.operation(self.place):
            return retry.repeated(self.place, attempt, (Exception,), lambda error: self._limit_s(error, retry_for_s),
                                  self._explained)

    def _limit_s(self, error: Exception, retry_for_s: float | None) -> float:
        if _status(error):
            _reached.add(self.place)
        if isinstance(error, (*_PERMANENT, StorageError)) or 400 <= _status(error) < 500 and _status(error) not in (408, 429):
            return 0
        limit_s = retry_for_s or float(os.environ.get(PATIENCE, 0)) or retry.RETRY_FOR_S
        return limit_s if self.place in _reached else min(limit_s, retry.RETRY_UNREACHABLE_FOR_S)

    def _explained(self, error: Exception) -> StorageError:
        if isinstance(error, StorageError):
            return error
        if isinstance(error, FileNotFoundError) or _status(error) == 404:
            return NotFound(self.uri, "there is nothing here", "check the path")
        if isinstance(error, ImportError):
            known = known_implementations.get(self.scheme, {})
            package = known.get("class", "").partition(".")[0].replace("fsspec", "aiohttp")
            return StorageError(self.uri, f"{self.scheme}:// is read with the package {package}, which is not installed",
                                f"pip install {package}, on all nodes")
        if isinstance(error, PermissionError) or _status(error) in (401, 403):
            return StorageError(self.uri, "access is denied", "check the credentials of this machine, and the address")
        return StorageError(self.uri, f"cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0]})",
                            "check the address, the network and the credentials")

    def arrow(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """pyarrow's view of fsspec's file system."""
        import pyarrow.fs

        return self._asked(lambda system, path: (pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system)), path))

    def check_access(self, write: bool) -> None:
        """Raise if the place does not answer, or is to be written to."""
        if write:
            raise self._refused()
        try:
            self._asked(lambda system, path: system.info(path), retry.RETRY_CHECK_FOR_S)
        except NotFound:
            pass

    def read(self) -> bytes:
        """The whole content."""
        return self._asked(lambda system, path: system.cat_file(path))

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop; StorageError if the server has no parts to give."""
        def read(system: Any, path: str) -> bytes:
            data = system.cat_file(path, start=start, end=stop)
            if len(data) > stop - start and not start:  # a server without ranges
                return data[:stop]
            if len(data) > stop - start:
                raise StorageError(self.uri, "the server gives no parts of files", "download it, and give its path")
            if len(data) < stop - start:
                raise retry.BrokenBody(f"{len(data)} of {stop - start} bytes")
            return data

        return self._asked(read)

    def open(self) -> BinaryIO:
        """The content in ranges, or in memory where the server has none."""
        num_bytes = self._asked(lambda system, path: system.info(path)).get("size")
        if num_bytes is None:
            return io.BytesIO(self.read())
        if self.scheme in WEB and num_bytes > 1:
            data = self._asked(lambda system, path: system.cat_file(path, start=1, end=2))
            if len(data) == num_bytes:
                return io.BytesIO(data)
        return Ranges.opened(num_bytes, self.read_range)

    def size_and_digest(self) -> tuple[int, str | None]:
        """Bytes of the file; NotFound if it is none."""
        info = self._asked(lambda system, path: system.info(path))
        if info.get("type") == "directory":
            raise NotFound(self.uri, "there is a directory here", "check the path")
        return (len(self.read()) if info.get("size") is None else info["size"]), None

    def exists(self) -> bool:
        """Whether there is a file or a directory."""
        try:
            return bool(self._asked(lambda system, path: system.info(path)))
        except NotFound:
            return False

    def files(self, skipped: list[Skipped]) -> Iterator[FileInfo]:
        """Files below this directory, without hidden ones; a web address has none that could be told."""
        if self.scheme in WEB:
            raise StorageError(self.uri, "a web address cannot be listed", "give a .zip there, or a COCO .json beside "
                                         "whose address the images lie, or copy the folder to a local path or S3")

        def find(system: Any, path: str) -> tuple[str, dict[str, dict]]:
            system.invalidate_cache()
            return path.rstrip("/") + "/", system.find(path, detail=True)

        try:
            root, found = self._asked(find)
        except NotFound:
            return
        for name, info in found.items():
            path = name.removeprefix(root) if name.startswith(root) else ""
            if path and not any(part.startswith(".") for part in path.split("/")):
                yield FileInfo(path, info.get("size") or 0, next((str(info[key]) for key in _MARKS if info.get(key)), ""))


def _status(error: Exception) -> int:
    """The HTTP status in an error of any client; 0 if there is none."""
    found = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((int(value) for value in found if str(value).isdecimal()), 0)
