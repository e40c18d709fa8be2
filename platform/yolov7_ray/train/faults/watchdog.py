"""Hang detection: a process that makes no step in time reports its stacks and exits.

In a collective one hanging rank blocks all others, so every process has its own watchdog. Ray then replaces the
workers, which resume from the last checkpoint. Waiting for storage is not hanging: `StorageWaits` tells them apart.
"""

import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Callable

from ray.exceptions import RayError

from ...storage.activity import Observer
from ...storage.retry import READ_TIMEOUT_S
from ..progress import Reporter

SLOWEST_STEP_FACTOR = 10
"""A step may take this many times as long as the slowest one before, even if the timeout is shorter."""
BACKSTOP_S = 30
"""How much later the process is killed without a report, if even the watchdog thread cannot run."""
FIRST_STEP_S = 600
"""Timeout before the first step, when there is no reference yet: shards are fetched, kernels compiled."""
LEASE_EVERY_S = 1.0
"""How often a rank that waits for storage says so to the others."""


class StorageWaits:
    """Whether this rank, or another of its run, waits for storage: as long as bytes move, or storage may be retried."""

    def __init__(self, reporter: Reporter, patience_s: float) -> None:
        self.reporter, self.patience_s = reporter, patience_s
        self._observer, self._leased_at = Observer(), 0.0

    def __call__(self, idle_s: float, is_late: bool) -> bool:
        """Whether there is such a wait; called at every look at a rank that has made no step for ``idle_s``."""
        waiting = self._observer.waiting()
        if waiting is not None and waiting.idle_s < self.patience_s + READ_TIMEOUT_S:
            now = time.monotonic()
            if now - self._leased_at >= LEASE_EVERY_S:
                self._leased_at = now
                self.reporter.waits_for_storage(waiting, idle_s)
            return True
        return is_late and self.reporter.another_waits_for_storage()

    def blame(self) -> str:
        """What a hang has to do with storage, in words to append."""
        waiting = self._observer.waiting()
        return f", and no byte has moved to or from {waiting.place} for {waiting.idle_s:.0f} s" if waiting else ""


class Watchdog:
    """Ends this process unless `feed` is called again within `timeout_s`, or ten times the longest interval so far."""

    def __init__(self, timeout_s: float, report: Callable[[str, str], None], waits: StorageWaits | None = None) -> None:
        """``report(problem, stacks)`` is called once before the exit, with the stack of every thread."""
        self.timeout_s, self.report, self.waits = timeout_s, report, waits
        self._fed: float | None = None
        self._limit_s = max(timeout_s, FIRST_STEP_S)
        self._longest_s: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._fed = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        faulthandler.cancel_dump_traceback_later()
        self._thread.join(timeout=5)

    def feed(self) -> None:
        """Signal progress. The interval before the first call is not counted."""
        now = time.monotonic()
        self._longest_s = 0.0 if self._longest_s is None else max(self._longest_s, now - self._fed)
        self._limit_s = max(self.timeout_s, SLOWEST_STEP_FACTOR * self._longest_s)
        self._fed = now
        self._arm_backstop()

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.timeout_s / 4)):
            idle_s = time.monotonic() - self._fed
            is_late = idle_s > self._limit_s
            if self.waits is not None and self._storage_waits(idle_s, is_late):
                self._arm_backstop(idle_s)
            elif is_late:
                self._exit_process(f"no step for {idle_s:.0f} s{self.waits.blame() if self.waits else ''}")

    def _storage_waits(self, idle_s: float, is_late: bool) -> bool:
        try:
            return self.waits(idle_s, is_late)
        except RayError:  # the progress actor has gone, and with it the job
            return False

    def _arm_backstop(self, idle_s: float = 0.0) -> None:
        if self._longest_s is not None:
            faulthandler.dump_traceback_later(max(0.0, self._limit_s - idle_s) + BACKSTOP_S, exit=True)

    def _exit_process(self, problem: str) -> None:
        try:
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                self.report(problem, file.read())
        finally:
            os._exit(1)
