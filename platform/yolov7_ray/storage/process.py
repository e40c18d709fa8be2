"""Processes of this machine by more than their number, which the system gives to others later."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process: no two that ever ran have the same values. Empty ones are what the system does not tell."""

    pid: int
    started: str
    """In ticks since boot."""
    boot: str
    """This boot of the machine; its containers share it."""
    namespace: str
    """In which the number counts: containers have their own."""

    @classmethod
    def own(cls) -> "Process":
        """The calling process."""
        boot = namespace = ""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            namespace = os.readlink("/proc/self/ns/pid")
        return cls(os.getpid(), _state_and_start(os.getpid())[1], boot, namespace)

    def is_alive(self) -> bool | None:
        """Whether it runs: one that has ended but was not waited for does not. None if it cannot be seen from here."""
        own = Process.own()
        if not self.boot or (self.boot, self.namespace) != (own.boot, own.namespace):
            return None
        state, started = _state_and_start(self.pid)
        if started:
            return started == self.started and state not in "ZX"
        try:  # there is none, or other users' processes are hidden
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


def _state_and_start(pid: int) -> tuple[str, str]:
    """State and start of a process; empty where it is not visible."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
