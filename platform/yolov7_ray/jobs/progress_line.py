"""A progress bar, redrawn in place; silent if the output is not a terminal."""

import sys
import time
from typing import TextIO


class ProgressLine:
    """Progress over a known amount of work."""

    def __init__(self, label: str, total: int, unit: str, stream: TextIO | None = None):
        """``stream``: standard error by default."""
        self.label, self.total, self.unit, self.stream = label, total, unit, stream or sys.stderr
        self.done, self.begun = 0, time.monotonic()
        self.shown = self.stream.isatty()

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more as done; `note` is shown at the end of the line."""
        self.done += amount
        if not self.shown:
            return
        elapsed_s = time.monotonic() - self.begun
        part = self.done / max(self.total, 1)
        left_s = elapsed_s * (1 - part) / part if part else 0
        bar = "█" * int(24 * part)
        self.stream.write(f"\r{self.label} {bar:░<24} {self.done:,}/{self.total:,} {self.unit}"
                          f" · {left_s:.0f} s left{' · ' if note else ''}{note}\x1b[K")
        self.stream.flush()

    def close(self) -> None:
        """Erase the line."""
        if self.shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
