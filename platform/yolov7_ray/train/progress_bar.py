"""How far a training is: bars on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from ..jobs.page.figures import duration

LINE_EVERY_S = 30.0
REDRAWS_PER_S = 4


class Position(NamedTuple):
    """Where a run is."""

    epoch: int
    """The one that it is in, from 1."""
    epochs: int
    step: int
    steps: int
    """Of the epoch."""
    images_per_s: float = 0.0
    losses: Mapping[str, float] = {}
    """Means of the epoch so far."""
    epoch_left_s: float | None = None
    job_left_s: float | None = None
    """About how long it takes to its last epoch, evaluations included; None: not known yet."""
    memory_gb: float = 0.0
    """Most that its first worker has held, on its GPU if it has one."""
    stages: str = ""
    """Where the time goes."""
    phase: str = ""
    """What it does instead of training: evaluating."""

    @property
    def figures(self) -> str:
        """Speed, losses and memory."""
        losses = "  ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        parts = [self.phase, f"{self.images_per_s:.0f} images/s", losses, f"{self.memory_gb:.1f} GB" * bool(self.memory_gb)]
        return "  ".join(filter(None, parts))

    @property
    def line(self) -> str:
        """All of it in one line."""
        left = [f"{what} {duration(seconds)}" for what, seconds in (("epoch", self.epoch_left_s), ("job", self.job_left_s))
                if seconds is not None]
        ahead = f"  left: {', '.join(left)}" if left else ""
        stages = f"  ({self.stages})" if self.stages else ""
        return f"  epoch {self.epoch}/{self.epochs}  step {self.step}/{self.steps}  {self.figures}{ahead}{stages}"


Show = Callable[[Mapping[str, Position]], None]
"""Gets where runs are, by label."""


@contextmanager
def shown_positions(bars: bool, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Yield what shows positions: ``bars`` redrawn in place if ``stream`` (default: standard output) is a terminal,
    else a line for each run every `LINE_EVERY_S`. Lines that are printed meanwhile appear above the bars."""
    stream = stream or sys.stdout
    if bars and stream.isatty():
        with _bars(stream) as show:
            yield show
        return
    printed: dict[str, float] = {}
    began = clock()

    def show_lines(positions: Mapping[str, Position]) -> None:
        for label, position in positions.items():
            if clock() - printed.get(label, began) >= LINE_EVERY_S:
                printed[label] = clock()
                print(label + position.line, file=stream, flush=True)

    yield show_lines


@contextmanager
def _bars(stream: TextIO) -> Iterator[Show]:
    """A bar for the epoch and one for the job; they vanish at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"),
               TextColumn("{task.fields[left]}", style="cyan"),
               TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))]
    with Progress(*columns, console=Console(file=stream, highlight=False), transient=True, expand=True,
                  refresh_per_second=REDRAWS_PER_S) as progress:
        tasks: dict[tuple[str, str], int] = {}

        def update(key: tuple[str, str], text: str, done: int, total: int, left_s: float | None, figures: str) -> None:
            if key not in tasks:
                tasks[key] = progress.add_task("", total=1, left="", figures="")
            left = "" if left_s is None else f"{duration(left_s)} left"
            progress.update(tasks[key], description=text, completed=done, total=total, left=left, figures=figures)

        def show(positions: Mapping[str, Position]) -> None:
            for label, at in positions.items():
                update((label, "epoch"), f"{label}epoch {at.epoch}/{at.epochs}", at.step, at.steps, at.epoch_left_s, at.figures)
                update((label, "job"), f"{label}job", (at.epoch - 1) * at.steps + at.step, at.epochs * at.steps, at.job_left_s,
                       at.stages)

        yield show
