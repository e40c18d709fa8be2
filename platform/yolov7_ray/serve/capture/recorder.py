"""Keeps images in memory until a thread has written them; an answer never waits for it.

Memory is bounded: what comes while the queue is full is left out, and counted.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

import numpy as np

from ... import storage
from ...detect.options import Options
from ..access.log import CURRENT_ID
from ..served import Detected, ServedInfo
from .files import Captured, parquet
from .selection import reason_to_keep
from .spec import Capture

MAX_IMAGES, MAX_BYTES = 512, 64_000_000
"""What waits to be written, at most."""
FILE_IMAGES, FILE_BYTES, FILE_S = 256, 32_000_000, 60.0
"""A file is written when so much waits, or the first has waited so long."""
CLOSE_S = 30.0
"""What an endpoint that ends waits for its last file."""


class Recorder:
    """An observer of served models that keeps what `capture` asks for. ``count(model, outcome, n)`` is told of n images
    that were `written`, `dropped` as the queue was full, or `failed` to be written."""

    def __init__(self, capture: Capture, count: Callable[[str, str, int], None]) -> None:
        self._capture, self._count, self._told = capture, count, ""
        self._queue: deque[Captured] = deque()
        self._num_bytes, self._closing, self._changed = 0, False, threading.Condition()
        self._thread = threading.Thread(target=self._write_for_ever, name="capture", daemon=True)
        self._thread.start()

    def detected(self, image: bytes | np.ndarray, options: Options, found: Detected, seconds: float) -> None:
        """Keep an image, if it is chosen and there is room."""
        request_id = CURRENT_ID.get() or uuid.uuid4().hex
        reason = reason_to_keep(self._capture, request_id, found.detections[:, 4])
        if reason is None:
            return
        own = image.copy() if isinstance(image, np.ndarray) else image  # a view would hold its whole request
        captured = Captured(own, replace(found, drawn_png=None), request_id, reason)
        with self._changed:
            if self._closing or len(self._queue) >= MAX_IMAGES or self._num_bytes + captured.num_bytes > MAX_BYTES:
                self._count(found.info.name, "dropped", 1)
                return
            self._queue.append(captured)
            self._num_bytes += captured.num_bytes
            self._changed.notify()

    def failed(self, info: ServedInfo, status: int, seconds: float) -> None:
        """Nothing is kept of a request without an answer."""

    def close(self) -> None:
        """Write what waits, for `CLOSE_S` at most; later images are left out."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _write_for_ever(self) -> None:
        while (batch := self._next()) is not None:
            for directory, group in groupby(sorted(batch, key=lambda each: each.directory), lambda each: each.directory):
                self._write(directory, list(group))
            with self._changed:
                self._num_bytes -= sum(each.num_bytes for each in batch)  # until here they hold memory

    def _next(self) -> list[Captured] | None:
        """The next images to be written, once they are enough or have waited long; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(lambda: self._closing or self._is_a_file(), FILE_S)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), FILE_IMAGES))]
            return batch or None

    def _is_a_file(self) -> bool:
        return len(self._queue) >= FILE_IMAGES or sum(each.num_bytes for each in self._queue) >= FILE_BYTES

    def _write(self, directory: str, captured: list[Captured]) -> None:
        model, uri = captured[0].found.info.name, storage.join(self._capture.uri, directory)
        try:
            storage.write_bytes(storage.join(uri, f"{captured[0].at:%H%M%S}-{uuid.uuid4().hex[:12]}.parquet"),
                                parquet(captured))
            self._count(model, "written", len(captured))
        except Exception as error:  # noqa: BLE001  (storage or an image: serving goes on)
            self._count(model, "failed", len(captured))
            if str(error) != self._told:
                self._told = str(error)
                print(f"serve: {len(captured)} captured images of {model} could not be written: {error}", flush=True)
