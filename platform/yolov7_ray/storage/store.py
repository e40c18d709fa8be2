"""The interface of a store, whatever its scheme."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from .disk import FileInfo, Skipped

if TYPE_CHECKING:  # importing pyarrow takes a tenth of a second
    import pyarrow.fs


class Store(Protocol):
    """One URI: a file, or a directory of files. Every failure is a StorageError; writes are atomic."""

    def arrow(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """The filesystem of pyarrow and the path in it."""

    def check_access(self, write: bool) -> None:
        """Raise within about 15 s if it cannot be used; it need not exist yet."""

    def read(self) -> bytes:
        """The whole content."""

    def read_with_etag(self) -> tuple[bytes, str]:
        """The content and its version."""

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop."""

    def size_and_digest(self) -> tuple[int, str | None]:
        """Bytes of the file, and its sha256 if recorded."""

    def exists(self) -> bool:
        """Whether there is a file, or a directory that holds one."""

    def open(self) -> BinaryIO:
        """The content as a stream, verified at its end where its digest is known."""

    def files(self, skipped: list[Skipped]) -> Iterator[FileInfo]:
        """Files below this directory, without hidden ones, in any order; what is left out is added to `skipped`."""

    def write(self, data: bytes) -> None:
        """Write or replace."""

    def upload(self, local_path: Path) -> None:
        """Copy a local file to this URI."""

    def write_if(self, data: bytes, expected_etag: str | None) -> str:
        """Write if the version is `expected_etag` (None: nothing exists); the new version, else AlreadyExists."""

    def delete(self) -> None:
        """Remove the file or the directory tree."""
