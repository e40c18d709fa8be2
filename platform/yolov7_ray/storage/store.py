"""What a place that holds bytes can do, whatever its scheme."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .disk import FileInfo

if TYPE_CHECKING:  # pyarrow takes a tenth of a second, which a mistake in a job file saves
    import pyarrow.fs


class Store(Protocol):
    """One URI: a file, or a directory of files. Every failure is a StorageError; what is written is whole or absent."""

    def arrow(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """The filesystem of pyarrow and the path in it."""

    def check_access(self, write: bool) -> None:
        """Raise within about 15 s where it cannot be used; its content need not exist yet."""

    def read(self) -> bytes:
        """The whole content."""

    def read_with_etag(self) -> tuple[bytes, str]:
        """The content and its version."""

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop."""

    def size_and_digest(self) -> tuple[int, str | None]:
        """Bytes of the file, and its sha256 where that was recorded."""

    def exists(self) -> bool:
        """Whether there is a file, or a directory that holds one."""

    def files(self) -> Iterator[FileInfo]:
        """Files below this directory, hidden ones left out."""

    def write(self, data: bytes) -> None:
        """Write or replace."""

    def upload(self, local_path: Path) -> None:
        """Copy a local file to here."""

    def write_if(self, data: bytes, expected_etag: str | None) -> str:
        """Write where the version is `expected_etag` (None: nothing is there), else AlreadyExists; the new version."""

    def delete(self) -> None:
        """Remove the file, or the directory with all that it holds."""
