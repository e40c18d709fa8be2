"""Lines of progress from the workers to the terminal of whoever waits for the job, and the word to save at once."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

POLL_S = 0.5
PRINT_EVERY_S = 5.0
ASK_EVERY_S = 0.5
"""How often at most a worker asks whether to save: a fast GPU makes many updates in that time."""
GRACE_S = 20.0
"""How long a job that is told to stop, or is about to be resized, waits for its state to be saved."""


@ray.remote(num_cpus=0)
class Board:
    """Keeps the lines that nobody has fetched yet; carries the word that the workers are to save, and the answer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._wanted = self._repeatedly = self._is_training = False
        self._saved = asyncio.Event()

    async def save(self, repeatedly: bool = False) -> None:
        """Ask the workers to save, and wait until they have; nothing to wait for before the first update.

        ``repeatedly``: they go on saving, every time they ask, until they are replaced.
        """
        self._wanted, self._repeatedly = True, repeatedly
        self._saved.clear()
        if self._is_training:
            await self._saved.wait()

    async def started(self) -> None:
        """New workers have come; what was asked of those before them is over."""
        self._wanted = self._repeatedly = self._is_training = False
        self._saved.set()

    async def wanted(self) -> bool:
        self._is_training = True
        return self._wanted

    async def saved(self) -> None:
        self._wanted = self._repeatedly
        self._saved.set()

    async def write(self, line: str) -> None:
        self._lines.append(line)

    async def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


@contextmanager
def following() -> Iterator[ActorHandle]:
    """A board whose lines are printed while the block runs."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = Board.options(scheduling_strategy=here).remote()  # elsewhere it would be lost with that node
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
            ray.get(board.save.remote(repeatedly=True), timeout=GRACE_S)
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
        self._first_step, self._asked, self._asked_at = 0, None, 0.0
        if rank == 0:
            board.started.remote()

    def say(self, line: str) -> None:
        """Print ``line`` on the terminal of whoever waits; only rank 0 is heard."""
        if self.rank == 0:
            self.board.write.remote(self.label + line)

    def say_stacks(self, problem: str, stacks: str) -> None:
        """Tell, from any rank, that this process hangs, and where."""
        ray.get(self.board.write.remote(f"{self.label}worker {self.rank}: {problem}; it ends itself. "
                                        f"Its stacks:\n{stacks}"), timeout=10)

    def asked_to_save(self) -> bool:
        """Whether the state is to be saved at once; as of a moment ago, without waiting for an answer."""
        answer, now = False, time.perf_counter()
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            answer, self._asked = ray.get(self._asked), None
        if self._asked is None and not answer and now - self._asked_at >= ASK_EVERY_S:
            self._asked, self._asked_at = self.board.wanted.remote(), now
        return answer

    def saved(self, line: str) -> None:
        """Answer that the state is in storage."""
        self.say(line)
        self.board.saved.remote()

    def start_epoch(self, first_step: int = 0) -> None:
        self._first_step = first_step
        self._last = self._epoch_start = time.perf_counter()

    def step(self, epoch: int, steps: int, shares: dict[str, float], making: dict[str, float]) -> None:
        """Speed and what bounds it, at most every few seconds: shares of the time, and of that to make the batches."""
        now = time.perf_counter()
        if now - self._last < PRINT_EVERY_S:
            return
        self._last = now
        rate = (steps - self._first_step) * self.batch_size / (now - self._epoch_start)
        stages = ", ".join(
            f"{stage} {share:.0%}" + (f" ({_told(making)})" if stage == "fetch" and share >= 0.05 else "")
            for stage, share in shares.items() if share >= 0.01 or stage == "fetch")
        self.say(f"  epoch {epoch + 1}/{self.epochs}  step {steps}/{self.steps_per_epoch}  "
                 f"{rate:.0f} images/s  ({stages})")

    def epoch(self, row: dict) -> None:
        """The line that stays: losses, AP, speed, and updates that had to be left out."""
        losses = "  ".join(f"{name.removeprefix('train/')} {row[name]:.4f}" for name in row if name.startswith("train/"))
        scores = "".join(f"  {key.upper()} {row[key]:.3f}" for key in ("ap50", "ap") if row.get(key) is not None)
        skipped = f"  {row['skipped_updates']} updates skipped: not finite" if row["skipped_updates"] else ""
        self.say(f"epoch {row['epoch']}/{self.epochs}  {losses}{scores}  {row['images_per_s']:.0f} images/s{skipped}")


def _told(shares: dict[str, float]) -> str:
    return ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items() if share >= 0.01)
