"""Directories of private Rays: each names its owner; those that killed owners left are removed at the next start."""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..storage.process import Process

PREFIX = "yolov7-ray-"
OWNER = "owner"
"""File in such a directory: the process that made it."""
REACHED = "reached"
"""File in such a directory: the addresses of its Ray and the token, for this user alone."""


def create(parent: str) -> str:
    """A new directory of this process in ``parent``; abandoned ones beside it are removed first."""
    sweep(parent)
    directory = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    Path(directory, OWNER).write_text(json.dumps(asdict(Process.own())))
    return directory


@dataclass(frozen=True)
class Reached:
    """How a private Ray is reached."""

    address: str
    """Of its GCS, HOST:PORT, for drivers."""
    dashboard: str
    token: str


def announce(directory: str, reached: Reached) -> None:
    """Tell this user's other processes how to reach the Ray of the directory."""
    with open(os.open(Path(directory, REACHED), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump(asdict(reached), file)


def reachable(parent: str) -> list[Reached]:
    """Every private Ray of this user that runs on this machine."""
    found = []
    for directory in sorted(Path(parent).glob(f"{PREFIX}*")):
        with suppress(OSError, ValueError, TypeError):
            if directory.stat().st_uid == os.getuid() and _owner(directory).is_alive():
                found.append(Reached(**json.loads((directory / REACHED).read_text())))
    return found


def disown(directory: str) -> None:
    """Let the directory outlive its owner: its logs are to be read."""
    Path(directory, OWNER).unlink(missing_ok=True)


def sweep(parent: str) -> None:
    """Remove this user's directories whose owner, and every process that it started there, is gone."""
    for directory in Path(parent).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError, TypeError):
            if directory.stat().st_uid == os.getuid() and _is_abandoned(directory):
                shutil.rmtree(directory, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    """OSError, ValueError or TypeError if there is no record of the owner."""
    owner = _owner(directory)
    earlier_boot = owner.boot != Process.own().boot
    if not earlier_boot and owner.is_alive() is not False:  # it runs, or is in a container that shares this directory
        return False
    return not any(os.fsencode(directory) in command for command in _commands())


def _owner(directory: Path) -> Process:
    return Process(**json.loads((directory / OWNER).read_text()))


def _commands() -> list[bytes]:
    """Command lines of all processes: Ray's name their directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return found
