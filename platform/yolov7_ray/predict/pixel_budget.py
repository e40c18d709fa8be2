"""A budget of decoded pixels that the threads of one process share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

BUDGET_BYTES = 256e6
"""Three pictures of 24 megapixels at once, in every worker."""


class PixelBudget:
    """Lets threads in as long as what they decode fits; a picture larger than all of it goes alone."""

    def __init__(self, limit_bytes: float = BUDGET_BYTES):
        self.limit_bytes = limit_bytes
        self._used_bytes = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, num_bytes: float | None) -> Iterator[None]:
        """Hold `num_bytes` of the budget, all of it if unknown; waits for others, each of which ends by itself."""
        share = self.limit_bytes if num_bytes is None else min(num_bytes, self.limit_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._used_bytes + share <= self.limit_bytes)
            self._used_bytes += share
        try:
            yield
        finally:
            with self._changed:
                self._used_bytes -= share
                self._changed.notify_all()
