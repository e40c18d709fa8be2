"""Lines of progress from the workers to the terminal of whoever waits for the job, and his word to stop."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

POLL_S = 0.5
PRINT_EVERY_S = 5.0
GRACE_S = 20.0
"""How long a job that is told to stop waits for its state to be saved."""


@ray.remote(num_cpus=0)
class Board:
    """Keeps the lines that nobody has fetched yet; carries the word that the job is to stop, and the answer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._stopping = self._is_training = False
        self._saved = asyncio.Event()

    async def stop(self) -> None:
        """Ask the workers to save, and wait until they have; nothing to wait for before the first update."""
        self._stopping = True
        if self._is_training:
            await self._saved.wait()

    async def stopping(self) -> bool:
        self._is_training = True
        return self._stopping

    async def saved(self) -> None:
        self._saved.set()

    async def write(self, line: str) -> None:
        self._lines.append(line)

    async def take(self) -> list[str]:
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
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or SIGTERM: a machine that is taken away
        with suppress(RayError):
            ray.get(board.stop.remote(), timeout=GRACE_S)
        raise
    finally:
        done.set()
        follower.join(timeout=15)
        if ray.is_initialized():
            print_lines()
            ray.kill(board)


class Reporter:
    """What a rank says: rank 0 a line every few seconds within an epoch and one after it, any other its distress."""

    def __init__(self, board: ActorHandle, rank: int, label: str, epochs: int, steps_per_epoch: int,
                 batch_size: int) -> None:
        self.board, self.rank, self.label, self.epochs = board, rank, label, epochs
        self.steps_per_epoch, self.batch_size = steps_per_epoch, batch_size
        self._last = self._epoch_start = time.perf_counter()
        self._first_step, self._asked = 0, None

    def say(self, line: str) -> None:
        """Print ``line`` on the terminal of whoever waits; only rank 0 is heard."""
        if self.rank == 0:
            self.board.write.remote(self.label + line)

    def say_stacks(self, problem: str, stacks: str) -> None:
        """Tell, from any rank, that this process hangs, and where."""
        ray.get(self.board.write.remote(f"{self.label}worker {self.rank}: {problem}; it ends itself. "
                                        f"Its stacks:\n{stacks}"), timeout=10)

    def stopping(self) -> bool:
        """Whether the job is to stop; as of a moment ago, without waiting for an answer."""
        if self._asked is not None and not ray.wait([self._asked], timeout=0)[0]:
            return False
        answer = self._asked is not None and ray.get(self._asked)
        self._asked = self.board.stopping.remote()
        return answer

    def saved(self, line: str) -> None:
        """Answer that the state is in storage."""
        self.say(line)
        self.board.saved.remote()

    def start_epoch(self, first_step: int = 0) -> None:
        self._first_step = first_step
        self._last = self._epoch_start = time.perf_counter()

    def step(self, epoch: int, steps: int, shares: dict[str, float]) -> None:
        """Speed and what bounds it, at most every few seconds."""
        now = time.perf_counter()
        if now - self._last < PRINT_EVERY_S:
            return
        self._last = now
        rate = (steps - self._first_step) * self.batch_size / (now - self._epoch_start)
        stages = ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items())
        self.say(f"  epoch {epoch + 1}/{self.epochs}  step {steps}/{self.steps_per_epoch}  "
                 f"{rate:.0f} images/s  ({stages})")

    def epoch(self, row: dict) -> None:
        """The line that stays: losses, AP, speed, and updates that had to be left out."""
        losses = "  ".join(f"{name.removeprefix('train/')} {row[name]:.4f}" for name in row if name.startswith("train/"))
        scores = "".join(f"  {key.upper()} {row[key]:.3f}" for key in ("ap50", "ap") if row.get(key) is not None)
        skipped = f"  {row['skipped_updates']} updates skipped: not finite" if row["skipped_updates"] else ""
        self.say(f"epoch {row['epoch']}/{self.epochs}  {losses}{scores}  {row['images_per_s']:.0f} images/s{skipped}")
