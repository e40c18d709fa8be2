"""Content as a stream: a file read in large ranges, its digest compared at its end."""

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

PIECE_BYTES = 8 << 20


class Ranges(io.RawIOBase):
    """A file of `num_bytes` that `fetch(start, stop)` reads, at least `piece_bytes` (`PIECE_BYTES`) at a time.

    What is read in order is given to `check` as a digest.
    """

    def __init__(self, num_bytes: int, fetch: Callable[[int, int], bytes], algorithm: str = "md5",
                 check: Callable[[str], None] | None = None, piece_bytes: int | None = None):
        self.num_bytes, self.fetch, self.check = num_bytes, fetch, check
        self.piece_bytes = PIECE_BYTES if piece_bytes is None else piece_bytes
        self._position, self._piece, self._piece_start = 0, b"", 0
        self._hash, self._hashed_bytes = hashlib.new(algorithm, usedforsecurity=False), 0

    @classmethod
    def opened(cls, *arguments) -> BinaryIO:
        """The same, buffered."""
        return io.BufferedReader(cls(*arguments))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.num_bytes)[whence]
        return self._position

    def readinto(self, target: memoryview) -> int:
        if self._position >= self.num_bytes:
            return 0
        if not self._piece_start <= self._position < self._piece_start + len(self._piece):
            stop = min(self._position + max(self.piece_bytes, len(target)), self.num_bytes)
            self._piece, self._piece_start = self.fetch(self._position, stop), self._position
            self._digest(stop)
        start = self._position - self._piece_start
        count = min(len(target), len(self._piece) - start)
        target[:count] = memoryview(self._piece)[start:start + count]
        self._position += count
        return count

    def _digest(self, stop: int) -> None:
        """Continue the digest, as long as all comes in order."""
        if self.check is None or self._piece_start != self._hashed_bytes:
            return
        self._hash.update(self._piece)
        self._hashed_bytes = stop
        if stop == self.num_bytes:
            self.check(self._hash.hexdigest())


class Chunks(io.RawIOBase):
    """A stream of what an iterator yields."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
