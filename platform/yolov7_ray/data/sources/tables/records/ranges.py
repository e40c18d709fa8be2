"""Parts of a file, read where they lie: locally or in a store."""

import io
from typing import BinaryIO

from ..... import storage
from .....storage.disk import explained

BUFFER_BYTES = 1 << 20


def opened(uri: str, num_bytes: int) -> BinaryIO:
    """A file to seek and read in; in a store a buffer is read at once."""
    if storage.is_remote(uri):
        return io.BufferedReader(RangedFile(uri, num_bytes), BUFFER_BYTES)
    try:
        return open(storage.absolute(uri), "rb")
    except OSError as error:
        raise explained(error, uri) from error


class RangedFile(io.RawIOBase):
    """A file of `num_bytes` that reads no more than it is asked for."""

    def __init__(self, uri: str, num_bytes: int):
        self.uri, self.num_bytes, self.position = uri, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.num_bytes}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer) -> int:
        data = storage.read_range(self.uri, self.position, min(self.position + len(buffer), self.num_bytes))
        buffer[:len(data)] = data
        self.position += len(data)
        return len(data)
