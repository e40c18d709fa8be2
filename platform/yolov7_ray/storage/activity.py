"""What this process and its children do in storage just now, so that waiting for storage is not taken for a hang.

Each process notes the start of its oldest operation, when bytes last moved, and since when nothing has answered. The
notes lie in a file in memory that the observing process makes and its children inherit by name (`OBSERVER`), because
shards are fetched in loader processes. Times are those of `time.monotonic`, which processes of a node share.
"""

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

OBSERVER = "YOLOV7_RAY_STORAGE_ACTIVITY"
"""Environment variable with the path of the file of notes."""
NOTE = struct.Struct("qddd160s")
"""Process, start of its oldest operation (0: none), last movement, since when nothing answers (0: it does), place."""
SLOTS = 1024
WRITE_EVERY_S = 0.2
"""How often movements are written down."""


@dataclass(frozen=True)
class Waiting:
    """An operation that is going on."""

    place: str
    """What is waited for, e.g. ``S3 at http://host``."""
    silent_s: float
    """For how long nothing has answered; 0: it does."""
    idle_s: float
    """For how long no byte has moved."""


class _Process:
    """The operations of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Start anew, as after a fork."""
        self.pid, self.operations, self.place = os.getpid(), {}, ""
        self.moved_at = self.silent_since = self.written_at = 0.0
        self.descriptor: int | None = None

    def note(self) -> tuple:
        started = min(self.operations.values(), default=0.0)
        return self.pid, started, self.moved_at, self.silent_since, self.place.encode()[:160]

    def write(self) -> None:
        """Write the note into the observer's file, if there is one."""
        self.written_at = time.monotonic()
        path = os.environ.get(OBSERVER)
        if path is None:
            return
        with suppress(OSError):  # the observer has gone
            if self.descriptor is None:
                self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            os.pwrite(self.descriptor, NOTE.pack(*self.note()), self.pid % SLOTS * NOTE.size)


_process = _Process()
os.register_at_fork(after_in_child=_process.__init__)


@contextmanager
def operation(place: str) -> Iterator[None]:
    """Note that an operation on ``place`` goes on while the block runs."""
    key = object()
    with _process.lock:
        _process.operations[key], _process.place = time.monotonic(), place
        _process.write()
    try:
        yield
    finally:
        with _process.lock:
            _process.operations.pop(key, None)
            if not _process.operations:
                _process.silent_since = 0.0
            _process.write()


def moved() -> None:
    """Note that bytes have moved, or an answer has come."""
    now = time.monotonic()
    _process.moved_at, answered, _process.silent_since = now, bool(_process.silent_since), 0.0
    if answered or now - _process.written_at >= WRITE_EVERY_S:
        with _process.lock:
            _process.write()


def silent(place: str, since: float) -> None:
    """Note that nothing has answered at ``place`` since that moment."""
    with _process.lock:
        _process.place, _process.silent_since = place, _process.silent_since or since
        _process.write()


class Observer:
    """Sees the operations of this process and of all that it starts from now on."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("storage-activity", os.MFD_CLOEXEC)
        os.environ[OBSERVER] = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        _process.descriptor = None

    def waiting(self) -> Waiting | None:
        """The operation of which least is known to have moved; None if there is none."""
        now, found = time.monotonic(), []
        notes = os.pread(self._descriptor, SLOTS * NOTE.size, 0)
        notes = notes[:len(notes) // NOTE.size * NOTE.size]
        for pid, started, moved_at, silent_since, place in NOTE.iter_unpack(notes):
            if pid and started and os.path.exists(f"/proc/{pid}"):
                silent_s = now - silent_since if silent_since else 0.0
                found.append(Waiting(place.rstrip(b"\0").decode(errors="replace"), silent_s,
                                     now - max(started, moved_at)))
        return max(found, key=lambda waiting: (waiting.silent_s, waiting.idle_s), default=None)
