"""Stores that are only read: places of raw data. Datasets, runs and the registry lie on local paths and S3."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StorageError
from .disk import digest

if TYPE_CHECKING:
    import pyarrow.fs


class ReadOnly:
    """What all of them have in common."""

    uri: str

    def arrow(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """StorageError, unless a store has a filesystem of pyarrow."""
        raise StorageError(self.uri, "cannot be read with Ray Data here", "unpack it, or copy it to a local path or S3")

    def read(self) -> bytes:
        """The whole content."""
        raise NotImplementedError

    def read_with_etag(self) -> tuple[bytes, str]:
        """The content, and its digest as version."""
        data = self.read()
        return data, digest(data)

    def write(self, data: bytes) -> None:
        """StorageError."""
        raise self._refused()

    def upload(self, local_path: Path) -> None:
        """StorageError."""
        raise self._refused()

    def write_if(self, data: bytes, expected_etag: str | None) -> str:
        """StorageError."""
        raise self._refused()

    def delete(self) -> None:
        """StorageError."""
        raise self._refused()

    def _refused(self) -> StorageError:
        return StorageError(self.uri, "is only read here", "give a local path or s3://bucket/prefix")
