"""The claim of one process on a directory, e.g. a run's: whoever holds it renews it, and a dead owner loses it.

``<directory>/.lease`` names the owner. It is written by conditional create, renewed every RENEW_S by compare-and-swap,
and removed at the end. On its own machine a dead owner is known at once; elsewhere one that has not renewed for LEASE_S
counts as dead, by the watch of whoever waits: no two clocks are compared.
"""

import json
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from typing import Any

from .. import storage
from ..errors import AlreadyExists, JobError, NotFound, StorageError
from .process import Process

FILE = ".lease"
LEASE_S = 60.0
"""An owner elsewhere that has not renewed its lease for so long has lost it."""
RENEW_S = 10.0
POLL_S = 2.0


class Lease:
    """The claim of this process on ``directory``, called ``what`` in messages; not held before `claim`."""

    def __init__(self, directory: str, what: str, remedy: str) -> None:
        self.uri, self.what, self.remedy = storage.join(directory, FILE), what, remedy
        self.lost: JobError | None = None
        """Set when another process has taken the directory over."""
        self._owner = {"owner": secrets.token_hex(8), "host": socket.gethostname(), **asdict(Process.own()),
                       "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())}
        self._renewals, self._etag = 0, ""
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._keep, name="lease", daemon=True)

    def claim(self, say: Callable[[str], object]) -> None:
        """Take the lease, also from a dead owner, which may take LEASE_S; JobError if its owner is alive."""
        seen, unchanged_since, read_at = None, 0.0, 0.0
        expected: str | None = None
        while not self._swap(expected):
            try:
                data, etag = storage.read_with_etag(self.uri)
            except NotFound:  # released a moment ago
                expected = None
                continue
            owner, now = _parsed(data), time.monotonic()
            alive = _is_alive(owner)
            if alive or seen not in (None, etag):
                raise self._taken(owner)
            if seen is None:
                say(f"waiting up to {LEASE_S:g} s for {self.what}: {_in_words(owner)} may still be at work there"
                    if alive is None else f"{_in_words(owner)} is dead: {self.what} is taken over")
            if seen is None or now - read_at > RENEW_S:  # a silent storage says nothing about the owner
                unchanged_since = now
            seen, read_at = etag, now
            dead = alive is False or now - unchanged_since >= LEASE_S
            expected = etag if dead else ""
            if not dead:
                time.sleep(POLL_S)
        self._renewer.start()

    def release(self) -> None:
        """Give the lease back, unless it is lost; what cannot be given back now runs out."""
        self._ended.set()
        if self._renewer.is_alive():
            self._renewer.join(RENEW_S)
        with suppress(StorageError):
            if _parsed(storage.read_bytes(self.uri)).get("owner") == self._owner["owner"]:
                storage.delete(self.uri)

    def _swap(self, expected: str | None) -> bool:
        """Write this owner in the place of version ``expected`` (None: nothing; empty: never); whether it is ours."""
        if expected == "":
            return False
        self._renewals += 1
        content = json.dumps(self._owner | {"renewals": self._renewals}, indent=1).encode()
        try:
            self._etag = storage.compare_and_swap(self.uri, content, expected)
        except (AlreadyExists, NotFound):
            return False
        return True

    def _keep(self) -> None:
        """Renew until the end; if the lease is lost, interrupt the main thread."""
        while not self._ended.wait(RENEW_S):
            with suppress(StorageError):  # who waits for the lease cannot read it now, either
                if not self._swap(self._etag) and not self._is_ours():
                    if not self._ended.is_set():
                        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                    return

    def _is_ours(self) -> bool:
        """Whether the lease is ours after a renewal that failed: its answer may have been lost, or the file."""
        try:
            data, etag = storage.read_with_etag(self.uri)
        except NotFound:
            return self._ended.is_set() or self._swap(None)
        owner = _parsed(data)
        if owner.get("owner") == self._owner["owner"]:
            self._etag = etag
            return True
        self.lost = self._taken(owner)
        return False

    def _taken(self, owner: dict[str, Any]) -> JobError:
        return JobError(self.what, f"belongs to {_in_words(owner)}, which is at work there", self.remedy)


@contextmanager
def held(directory: str, what: str, remedy: str, say: Callable[[str], object] = print) -> Iterator[None]:
    """Hold the lease of ``directory`` while the block runs; JobError if another process does, also later.

    ``what`` names the directory in messages, ``remedy`` what to do about another owner; ``say`` is told what is
    waited for. In the main thread the block is interrupted when the lease is lost.
    """
    lease = Lease(directory, what, remedy)
    lease.claim(say)
    try:
        with _interrupted_when_lost(lease):
            yield
        if lease.lost:
            raise lease.lost
    finally:
        lease.release()


@contextmanager
def _interrupted_when_lost(lease: Lease) -> Iterator[None]:
    """Raise the loss of the lease in the main thread; other interrupts go where they went before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        if lease.lost:
            raise lease.lost
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt and before is not None:
            signal.signal(signal.SIGINT, before)


# --- owners -------------------------------------------------------------------------------------------


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(data)
    except ValueError:
        owner = None
    return owner if isinstance(owner, dict) else {}


def _in_words(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} (since {owner.get('since', '?')})"


def _is_alive(owner: dict[str, Any]) -> bool | None:
    """Whether the owner runs; None if it is on another machine, where that cannot be seen."""
    try:
        return Process(**{field.name: owner[field.name] for field in fields(Process)}).is_alive()
    except KeyError:
        return None
