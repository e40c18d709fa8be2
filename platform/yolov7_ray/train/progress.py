"""Progress from the workers to the terminal of the waiting user, and save requests to the workers."""

import asyncio
import resource
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..storage.activity import Waiting
from .progress_bar import Position, Show, shown_positions

POLL_S = 0.5
SEND_EVERY_S = 0.5
"""How often a worker tells where it is."""
SAVE_POLL_S = 0.5
"""Shortest interval at which a worker polls for save requests: a fast GPU makes many updates in that time."""
GRACE_S = 20.0
"""How long a job that is being stopped or resized waits for its state to be saved."""
SAY_WAITING_AFTER_S = 10.0
"""How long storage is waited for before the user is told."""
SAY_WAITING_EVERY_S = 20.0
WAITING_LEASE_S = 10.0
"""For how long a rank that said it waits for storage is taken at its word."""


class Line(NamedTuple):
    """A line to print."""

    writer: str
    number: int
    text: str


def in_order(lines: list[Line]) -> list[str]:
    """The texts as they came, but each writer's by number: calls of an asyncio actor may overtake each other."""
    of_writer = {writer: iter(sorted(line for line in lines if line.writer == writer))
                 for writer in {line.writer for line in lines} - {""}}
    return [next(of_writer[line.writer]).text if line.writer else line.text for line in lines]


@ray.remote(num_cpus=0)
class ProgressActor:
    """Buffers progress lines until they are fetched; passes save requests to the workers and their replies back.

    It may be lost and started again at any time; what it held then is gone, and training goes on.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._save_wanted = self._repeatedly = False
        self._training: set[str] = set()
        self._answered: set[str] = set()
        self._unsaved: set[str] = set()
        self._saved = asyncio.Event()
        self._newest_checkpoint: dict[str, str] = {}
        self._waiting: dict[str, float] = {}
        self._said_waiting: dict[str, float] = {}
        self._positions: dict[str, Position] = {}

    async def save(self, repeatedly: bool = False) -> None:
        """Request a save of every run and wait until it is done; before its first update a run has nothing to save.

        ``repeatedly``: the workers save at every poll until they are replaced.
        """
        self._save_wanted, self._repeatedly = True, repeatedly
        self._answered.clear()
        self._unsaved = set(self._training)
        self._saved.clear()
        if self._unsaved:
            await self._saved.wait()

    async def replaced(self, label: str) -> None:
        """The workers of the run ``label`` are new, or have ended: drop requests to those before."""
        self._training.discard(label)
        self._positions.pop(label, None)
        self._answer(label)

    async def save_wanted(self, label: str) -> bool:
        self._training.add(label)
        return self._save_wanted and label not in self._answered

    async def saved(self, label: str) -> None:
        if self._repeatedly:
            self._settle(label)
        else:
            self._answer(label)

    def _answer(self, label: str) -> None:
        self._answered.add(label)
        self._settle(label)

    def _settle(self, label: str) -> None:
        self._unsaved.discard(label)
        if not self._unsaved:
            self._saved.set()

    async def write(self, text: str, writer: str = "", number: int = 0) -> None:
        """Print a line; ``number`` counts those of a writer who needs them in order, which Ray does not keep here."""
        self._lines.append(Line(writer, number, text))

    async def checkpoint_written(self, run: str, name: str) -> None:
        self._newest_checkpoint[run] = name

    async def newest_checkpoint(self, run: str) -> str | None:
        """Name of the checkpoint that the run wrote last; None: none since this job started."""
        return self._newest_checkpoint.get(run)

    async def storage_awaited(self, label: str, line: str) -> None:
        """A rank of the run ``label`` waits for storage; ``line`` says so, and is printed every few seconds."""
        now = self._waiting[label] = time.monotonic()
        if line and now - self._said_waiting.get(label, -SAY_WAITING_EVERY_S) >= SAY_WAITING_EVERY_S:
            self._said_waiting[label] = now
            self._lines.append(Line("", 0, label + line))

    async def is_storage_awaited(self, label: str) -> bool:
        return time.monotonic() - self._waiting.get(label, -WAITING_LEASE_S) < WAITING_LEASE_S

    async def at(self, label: str, position: Position) -> None:
        """The run ``label`` is there."""
        self._positions[label] = position

    async def take(self) -> tuple[list[str], dict[str, Position]]:
        """Lines to print, and where runs are that have moved since the last call."""
        lines, self._lines = self._lines, []
        positions, self._positions = self._positions, {}
        return in_order(lines), positions


@contextmanager
def printed_progress(bars: bool = False) -> Iterator[ActorHandle]:
    """Yield a ProgressActor whose lines are printed while the block runs, with ``bars`` on a terminal."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # on this node: elsewhere the actor would be lost with its node
    progress_actor = ProgressActor.options(scheduling_strategy=here, max_restarts=-1).remote()
    done = threading.Event()

    def print_lines(show: Show) -> None:
        with suppress(RayError):  # if the actor or Ray itself ends, the lines that it holds are lost
            lines, positions = ray.get(progress_actor.take.remote(), timeout=10)
            for line in lines:
                print(line, flush=True)
            show(positions)

    def poll() -> None:
        with shown_positions(bars) as show:
            while not done.wait(POLL_S):
                print_lines(show)

    printer = threading.Thread(target=poll, daemon=True)
    printer.start()
    try:
        yield progress_actor
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or SIGTERM of a preempted machine
        with suppress(RayError):
            ray.get(progress_actor.save.remote(repeatedly=True), timeout=GRACE_S)
        raise
    finally:
        done.set()
        printer.join(timeout=15)
        if ray.is_initialized():
            print_lines(lambda positions: None)
            ray.kill(progress_actor)


class Reporter:
    """Output of a rank: from rank 0 where it is, and a line after each epoch; from any rank its hangs."""

    steps_per_epoch = 0
    """Known once the dataset is open."""

    def __init__(self, progress_actor: ActorHandle, rank: int, label: str, epochs: int, batch_size: int) -> None:
        self.progress_actor, self.rank, self.label, self.epochs = progress_actor, rank, label, epochs
        self.batch_size = batch_size
        self._sent_at = self._epoch_start = time.perf_counter()
        self._epoch_seconds: list[float] = []
        self._position: Position | None = None
        self._first_step, self._pending_reply, self._polled_at = 0, None, 0.0
        self._writer, self._num_lines = uuid.uuid4().hex, 0
        if rank == 0:
            progress_actor.replaced.remote(label)

    def log(self, line: str) -> None:
        """Print ``line`` on the terminal of the waiting user; ignored on ranks other than 0."""
        if self.rank == 0:
            self._num_lines += 1
            self.progress_actor.write.remote(self.label + line, self._writer, self._num_lines)

    def log_hang(self, problem: str, stacks: str) -> None:
        """Report, from any rank, that this process hangs, and where."""
        line = f"{self.label}worker {self.rank}: {problem}; it ends itself. Its stacks:\n{stacks}"
        ray.get(self.progress_actor.write.remote(line), timeout=10)

    def waits_for_storage(self, waiting: Waiting, no_step_s: float) -> None:
        """Tell the other ranks, from any rank, that this one waits for storage, and the user if it takes long."""
        line = ""
        if waiting.silent_s >= SAY_WAITING_AFTER_S:
            line = f"waiting for {waiting.place}, {waiting.silent_s:.0f} s"
        elif no_step_s >= SAY_WAITING_EVERY_S:
            line = f"waiting for {waiting.place}, no step for {no_step_s:.0f} s; bytes moved {waiting.idle_s:.0f} s ago"
        self.progress_actor.storage_awaited.remote(self.label, line)

    def another_waits_for_storage(self) -> bool:
        """Whether another rank of this run has said so in the last seconds; RayError if that cannot be found out."""
        return ray.get(self.progress_actor.is_storage_awaited.remote(self.label), timeout=WAITING_LEASE_S)

    def save_requested(self) -> bool:
        """Whether a save is requested, according to the last reply received; never waits for a reply."""
        reply, now = False, time.perf_counter()
        if self._pending_reply is not None and ray.wait([self._pending_reply], timeout=0)[0]:
            with suppress(RayError):  # the actor was lost, and is started again
                reply = ray.get(self._pending_reply)
            self._pending_reply = None
        if self._pending_reply is None and not reply and now - self._polled_at >= SAVE_POLL_S:
            self._pending_reply, self._polled_at = self.progress_actor.save_wanted.remote(self.label), now
        return reply

    def saved(self, line: str) -> None:
        """Confirm that the state is in storage."""
        self.log(line)
        self.progress_actor.saved.remote(self.label)

    def checkpoint_written(self, run: str, name: str) -> None:
        """Count a checkpoint as progress of the run."""
        self.progress_actor.checkpoint_written.remote(run, name)

    def start_epoch(self, first_step: int = 0) -> None:
        self._first_step = first_step
        self._sent_at = self._epoch_start = time.perf_counter()

    def step(self, epoch: int, steps: int, shares: dict[str, float], batch_shares: dict[str, float],
             losses: Callable[[], dict[str, float]]) -> None:
        """Tell speed, bottleneck and mean ``losses``: stage shares of step time and of batch-making time."""
        now = time.perf_counter()
        if self.rank != 0 or now - self._sent_at < SEND_EVERY_S:
            return
        self._sent_at = now
        step_s = (now - self._epoch_start) / max(1, steps - self._first_step)
        epoch_left_s = step_s * (self.steps_per_epoch - steps)
        stages = ", ".join(
            f"{stage} {share:.0%}" + (f" ({_percentages(batch_shares)})" if stage == "fetch" and share >= 0.05 else "")
            for stage, share in shares.items() if share >= 0.01 or stage == "fetch")
        self._send(Position(epoch + 1, self.epochs, steps, self.steps_per_epoch, self.batch_size / step_s, losses(), epoch_left_s,
                            self._job_left_s(epoch, epoch_left_s, step_s), memory_gb(), stages))

    def phase(self, name: str) -> None:
        """Tell what is done instead of training."""
        if self._position is not None:
            self._send(self._position._replace(phase=name, step=self._position.steps, epoch_left_s=None))

    def _send(self, position: Position) -> None:
        self._position = position
        self.progress_actor.at.remote(self.label, position)

    def _job_left_s(self, epoch: int, epoch_left_s: float, step_s: float) -> float:
        """Until the end of the last epoch: as long as whole epochs took so far, else as long as their steps alone."""
        steps_s = step_s * self.steps_per_epoch
        whole_s = sum(self._epoch_seconds) / len(self._epoch_seconds) if self._epoch_seconds else steps_s
        return epoch_left_s + max(0.0, whole_s - steps_s) + (self.epochs - epoch - 1) * whole_s

    def epoch(self, row: dict) -> None:
        """Print the epoch's line: losses, AP, speed, and skipped updates."""
        if not self._first_step:  # else it was not a whole one
            self._epoch_seconds.append(time.perf_counter() - self._epoch_start)
        losses = "  ".join(f"{name.removeprefix('train/')} {row[name]:.4f}"
                           for name in row if name.startswith("train/"))
        scores = "".join(f"  {key.upper()} {row[key]:.3f}" for key in ("ap50", "ap") if row.get(key) is not None)
        skipped = f"  {row['skipped_updates']} updates skipped: not finite" if row["skipped_updates"] else ""
        self.log(f"epoch {row['epoch']}/{self.epochs}  {losses}{scores}  {row['images_per_s']:.0f} images/s{skipped}")


def memory_gb() -> float:
    """Most memory that this process has held, on its GPU if it uses one."""
    import torch  # not above: the actor, which needs none, would take ten times the memory

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def _percentages(shares: dict[str, float]) -> str:
    return ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items() if share >= 0.01)
