"""Hang detection: a process that makes no step in time reports its stacks and exits.

In a collective one hanging rank blocks all others, so every process has its own watchdog. Ray then replaces the
workers, which resume from the last checkpoint.
"""

import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Callable

SLOWEST_STEP_FACTOR = 10
"""A step may take this many times as long as the slowest one before, even if the timeout is shorter."""
BACKSTOP_S = 30
"""How much later the process is killed without a report, if even the watchdog thread cannot run."""
FIRST_STEP_S = 600
"""Timeout before the first step, when there is no reference yet: shards are fetched, kernels compiled."""


class Watchdog:
    """Ends this process unless `feed` is called again within `timeout_s`, or ten times the longest interval so far."""

    def __init__(self, timeout_s: float, report: Callable[[str, str], None]) -> None:
        """``report(problem, stacks)`` is called once before the exit, with the stack of every thread."""
        self.timeout_s, self.report = timeout_s, report
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
        faulthandler.dump_traceback_later(self._limit_s + BACKSTOP_S, exit=True)

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.timeout_s / 4)):
            idle_s = time.monotonic() - self._fed
            if idle_s > self._limit_s:
                self._exit_process(f"no step for {idle_s:.0f} s")

    def _exit_process(self, problem: str) -> None:
        try:
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                self.report(problem, file.read())
        finally:
            os._exit(1)
