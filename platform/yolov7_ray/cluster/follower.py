"""The log of a job on a cluster, followed by position through every outage, until the job ends."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import JobError
from ..program import command
from .jobs_api import TERMINAL, Cluster, ConnectionLost, NoSuchJob, Refused, exit_status

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

SILENCE_S = 60.0
"""A log that is silent for so long is requested again: its connection may be dead."""
RECONNECT_S = 600.0
"""How long an outage may last until a follower gives up; the job itself is not affected."""
SUPERVISOR_DIED = "Job supervisor actor died: "
"""Ray adds this and its details at the end of a job's log, which then says no more; the last sentence here does."""
PAUSE_S = (0.5, 5.0)
"""Between requests: the first, doubled up to the last while there is no contact."""
DENIALS = 3
"""A head that starts may not know its jobs yet: so many denials in a row, and it was replaced."""


class Follower:
    """Writes one job's log: each character once, whatever connections it takes."""

    def __init__(self, cluster: Cluster, job_id: str, write: Callable[[str], object], reconnect_s: float) -> None:
        self.cluster, self.job_id, self.write, self.reconnect_s = cluster, job_id, write, reconnect_s
        self.run: str | None = None
        """Name of the job's run, known after the first contact."""
        self._written, self._denials = 0, 0
        self._outage_since: float | None = None
        self._is_over = False

    def follow(self) -> int:
        """Write the log until the job ends; its exit status. JobError after an outage of more than reconnect_s."""
        pause_s = PAUSE_S[0]
        while True:
            try:
                info = self.cluster.info(self.job_id)
                self._contact()
                self.run = (info.metadata or {}).get("run") or self.run
                if info.status in TERMINAL:
                    self._write_rest()
                    if info.status == "FAILED" and (info.driver_exit_code is None or info.driver_exit_code < 0):
                        raise self._lost(info)
                    return exit_status(info)
                pause_s = PAUSE_S[0]
                self._tail()
            except NoSuchJob:
                self._denials += 1
                if self._denials >= DENIALS:
                    raise self._replaced() from None
            except (ConnectionLost, Refused) as error:
                self._outage(error)
                pause_s = min(2 * pause_s, PAUSE_S[1])
            time.sleep(pause_s)

    def _tail(self) -> None:
        """Write what is new on one connection until it ends; the job's status tells why it did."""
        import aiohttp

        async def tail() -> None:
            position, stream = 0, self.cluster.tail(self.job_id)  # a stream begins at the log's beginning
            while True:
                async with asyncio.timeout(SILENCE_S):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                self._contact()
                self._write_from(position, chunk)
                position += len(chunk)

        with suppress(RuntimeError, OSError, aiohttp.ClientError):
            asyncio.run(tail())

    def _write_from(self, position: int, text: str) -> None:
        """Write of ``text``, which begins at ``position`` of the log, what was not written before."""
        new, death, _ = text[max(0, self._written - position):].partition(SUPERVISOR_DIED)
        if new and not self._is_over:
            self.write(new)
            sys.stdout.flush()
        self._is_over = self._is_over or bool(death)
        self._written = max(self._written, position + len(text))

    def _write_rest(self) -> None:
        """What came after the last connection broke; an error of the job's node is told, not raised."""
        for attempt in range(DENIALS):
            try:
                self._write_from(0, self.cluster.logs(self.job_id))
                return
            except JobError as error:
                if attempt == DENIALS - 1:
                    _say(f"the end of the log of {self.job_id} cannot be read ({error.problem})")
            time.sleep(PAUSE_S[0])

    def _contact(self) -> None:
        if self._outage_since is not None:
            _say(f"{self.cluster.address} answers again")
        self._outage_since, self._denials = None, 0

    def _outage(self, error: JobError) -> None:
        """Tell of an outage once; JobError when it has lasted too long."""
        now = time.monotonic()
        if self._outage_since is None:
            self._outage_since = now
            _say(f"{self.cluster.address} {error.problem}; trying for {self.reconnect_s / 60:g} minutes, "
                 "the job is not affected")
        silent_s = now - self._outage_since
        if silent_s >= self.reconnect_s:
            raise ConnectionLost(
                self.cluster.address, f"{error.problem}, for {silent_s / 60:.1f} minutes",
                f"if the cluster is up, the job goes on: {self._command}; if its head is lost, {self._resume()}") from None

    def _lost(self, info: "JobDetails") -> JobError:
        """Of a job that ended without a word of its own: its process, or Ray's that watches it, was killed."""
        code = info.driver_exit_code
        reason = f"ended by signal {-code}" if code else first_line(info.message) or "no reason is known"
        return JobError(self.job_id, f"failed on the cluster ({reason})", self._resume())

    def _replaced(self) -> JobError:
        return JobError(self.cluster.address, f"no longer knows {self.job_id}: its head was replaced", self._resume())

    @property
    def _command(self) -> str:
        return command(f"logs {self.job_id} --follow --address {self.cluster.address}")

    def _resume(self) -> str:
        return f"go on from what the run has saved: the same job file with --resume {self.run or self.job_id}"


def follow(cluster: Cluster, job_id: str, write: Callable[[str], object] = sys.stdout.write,
           reconnect_s: float = RECONNECT_S) -> int:
    """Write a job's log as it grows until the job ends; return its exit status.

    No line is lost or doubled by outages shorter than ``reconnect_s``; after a longer one, or when the cluster no
    longer knows the job, JobError says how to go on.
    """
    return Follower(cluster, job_id, write, reconnect_s).follow()


def first_line(text: str | None) -> str:
    """The first line that says something, at most 200 characters of it."""
    first = next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
    return first if len(first) <= 200 else first[:200] + "…"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
