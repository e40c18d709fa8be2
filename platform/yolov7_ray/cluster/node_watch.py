"""Ends this process in one sentence when its private Ray has lost a process that it cannot do without."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOOK_EVERY_S = 0.1
"""Shorter than Ray takes to notice: its own message is a page, and it may wait a minute first."""
VITAL = {"raylet": "raylet", "gcs_server": "GCS"}
"""Ray's name of a process -> what users call it."""
EXIT_STATUS = 2


@contextmanager
def watched(directory: str, remedy: str) -> Iterator[None]:
    """Watch the Ray that this process has started in ``directory``; ``remedy`` says what to do when it is lost."""
    from ray._private import worker

    node, done = worker._global_node, threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_EVERY_S):
            for kind, process in node.dead_processes():
                if kind in VITAL and not done.is_set():
                    end(f"Ray's {VITAL[kind]} has died ({status(process.returncode)}); {remedy}")

    def end(problem: str) -> None:
        sys.stdout.flush()
        print(f"error: {problem}", file=sys.stderr, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # what Ray says of it, in its own threads
        with suppress(Exception):  # whatever fails here, this process ends
            node.kill_all_processes(check_alive=False)
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(EXIT_STATUS)

    threading.Thread(target=watch, name="node-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def status(code: int) -> str:
    """How a process ended."""
    return f"signal {-code}" if code < 0 else f"status {code}"
