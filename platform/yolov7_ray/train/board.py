"""Lines of progress from the workers to the terminal of whoever waits for the job."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

POLL_S = 0.5
PRINT_EVERY_S = 5.0


@ray.remote(num_cpus=0)
class Board:
    """Keeps the lines that nobody has fetched yet."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


@contextmanager
def following() -> Iterator[ActorHandle]:
    """A board whose lines are printed while the block runs."""
    board = Board.remote()
    done = threading.Event()

    def print_lines() -> None:
        with suppress(RayError):  # when Ray itself is ending, the lines that are left go with it
            for line in ray.get(board.take.remote(), timeout=10):
                print(line, flush=True)

    def follow() -> None:
        while not done.wait(POLL_S):
            print_lines()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield board
    finally:
        done.set()
        follower.join(timeout=15)
        if ray.is_initialized():
            print_lines()
            ray.kill(board)


class Reporter:
    """What rank 0 says: a line every few seconds within an epoch and one after it."""

    def __init__(self, board: ActorHandle | None, label: str, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        self.board, self.label, self.epochs = board, label, epochs
        self.steps_per_epoch, self.batch_size = steps_per_epoch, batch_size
        self._last = self._epoch_start = time.perf_counter()

    def say(self, line: str) -> None:
        """Print ``line`` on the terminal of whoever waits."""
        if self.board is not None:
            self.board.write.remote(self.label + line)

    def start_epoch(self) -> None:
        self._last = self._epoch_start = time.perf_counter()

    def step(self, epoch: int, steps: int, shares: dict[str, float]) -> None:
        """Speed and what bounds it, at most every few seconds."""
        now = time.perf_counter()
        if now - self._last < PRINT_EVERY_S:
            return
        self._last = now
        rate = steps * self.batch_size / (now - self._epoch_start)
        stages = ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items())
        self.say(f"  epoch {epoch + 1}/{self.epochs}  step {steps}/{self.steps_per_epoch}  "
                 f"{rate:.0f} images/s  ({stages})")

    def epoch(self, row: dict) -> None:
        """The line that stays: losses, AP, speed."""
        losses = "  ".join(f"{name.removeprefix('train/')} {row[name]:.4f}" for name in row if name.startswith("train/"))
        scores = "".join(f"  {key.upper()} {row[key]:.3f}" for key in ("ap50", "ap") if row.get(key) is not None)
        self.say(f"epoch {row['epoch']}/{self.epochs}  {losses}{scores}  {row['images_per_s']:.0f} images/s")
