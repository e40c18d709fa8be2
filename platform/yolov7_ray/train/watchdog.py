"""A rank that hangs is found by itself or by its peers: whoever makes no step in time tells where it stands and ends.

In a collective one silent rank stops all others, so every live process keeps its own clock; Ray then replaces the
workers, and they go on from the last checkpoint.
"""

import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Callable

PATIENCE = 10
"""A step may take so many times as long as the slowest before it, however short the timeout."""
BACKSTOP_S = 30
"""How much later the process is ended without a word, where even the watching thread cannot run."""
FIRST_STEP_S = 600
"""Before the first step there is no measure: shards are fetched, kernels compiled."""


class Watchdog:
    """Ends this process unless `feed` is called again within `timeout_s`, or ten times the longest pause so far."""

    def __init__(self, timeout_s: float, tell: Callable[[str, str], None]) -> None:
        """``tell(problem, stacks)`` is called once before the end, with the stack of every thread."""
        self.timeout_s, self.tell = timeout_s, tell
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
        """Say that there is progress. The pause before the first call counts for nothing."""
        now = time.monotonic()
        self._longest_s = 0.0 if self._longest_s is None else max(self._longest_s, now - self._fed)
        self._limit_s = max(self.timeout_s, PATIENCE * self._longest_s)
        self._fed = now
        faulthandler.dump_traceback_later(self._limit_s + BACKSTOP_S, exit=True)

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.timeout_s / 4)):
            silent_s = time.monotonic() - self._fed
            if silent_s > self._limit_s:
                self._end(f"no step for {silent_s:.0f} s")

    def _end(self, problem: str) -> None:
        try:
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                self.tell(problem, file.read())
        finally:
            os._exit(1)
