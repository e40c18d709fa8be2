"""Directories of private Rays: each names its owner; those that killed owners left are removed at the next start."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "yolov7-ray-"
OWNER = "owner"
"""File in such a directory: process, its start, and the process namespace in which the number counts."""


def create(parent: str) -> str:
    """A new directory of this process in ``parent``; abandoned ones beside it are removed first."""
    sweep(parent)
    directory = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    Path(directory, OWNER).write_text(" ".join(_identity(os.getpid())))
    return directory


def disown(directory: str) -> None:
    """Let the directory outlive its owner: its logs are to be read."""
    Path(directory, OWNER).unlink(missing_ok=True)


def sweep(parent: str) -> None:
    """Remove this user's directories whose owner, and every process that it started there, is gone."""
    for directory in Path(parent).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):
            if directory.stat().st_uid == os.getuid() and _is_abandoned(directory):
                shutil.rmtree(directory, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    """OSError or ValueError if there is no record of the owner."""
    pid, start, namespace = (directory / OWNER).read_text().split()
    if namespace != _namespace():
        return False  # a container that shares this directory
    try:
        if _identity(int(pid)) == (pid, start, namespace):
            return False
    except OSError:  # no such process
        pass
    return not any(os.fsencode(directory) in command for command in _commands())


def _identity(pid: int) -> tuple[str, str, str]:
    """Number, start in ticks since boot, and namespace: no two processes have the same. OSError if there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(pid)
    return str(pid), fields[19], _namespace()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _commands() -> list[bytes]:
    """Command lines of all processes: Ray's name their directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return found
