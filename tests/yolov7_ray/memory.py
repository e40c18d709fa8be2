"""Watches the memory of this process and of those below it that run a task."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_S = 0.1


class Memory:
    """Samples in MB, one list for this process and one for each process that has run the task."""

    def __init__(self, task: str):
        self.task = task
        self.driver_mb: list[float] = []
        self.workers_mb: dict[int, list[float]] = {}

    def sample(self) -> None:
        """Take one of each."""
        self.driver_mb.append(private_mb(os.getpid()))
        for pid in descendants(os.getpid()):
            if pid in self.workers_mb or self.task in _title(pid):
                self.workers_mb.setdefault(pid, []).append(private_mb(pid))


@contextmanager
def watched(task: str) -> Iterator[Memory]:
    """Samples that are taken while the block runs."""
    memory, stop = Memory(task), threading.Event()

    def watch() -> None:
        while not stop.wait(INTERVAL_S):
            memory.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(pid, ()))
    for child in found:
        found += children.get(child, ())
    return found


def private_mb(pid: int) -> float:
    """Memory of a process that it shares with no other; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1e3


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
