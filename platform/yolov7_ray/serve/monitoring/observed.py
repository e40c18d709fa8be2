"""A served model whose answers are seen by those who count or keep them."""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...detect.options import Options
from ..limits import RequestError
from ..served import Detected, ServedInfo, ServedModel


class Observer(Protocol):
    """Told of every image; neither method may wait or raise."""

    def detected(self, image: bytes | np.ndarray, options: Options, found: Detected, seconds: float) -> None: ...

    def failed(self, info: ServedInfo, status: int, seconds: float) -> None: ...


class Observed:
    """A `ServedModel` that tells observers how each request went, and passes it on."""

    def __init__(self, model: ServedModel, observers: Sequence[Observer]):
        self._model, self._observers = model, observers
        self.check_room, self.is_ready, self.newer = model.check_room, model.is_ready, model.newer

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool = False) -> Detected:
        """As the model's."""
        begun = time.perf_counter()
        try:
            found = await self._model.detect(image, options, draw)
        except Exception as error:
            status = error.status if isinstance(error, RequestError) else 500
            for observer in self._observers:
                observer.failed(self.info, status, time.perf_counter() - begun)
            raise
        for observer in self._observers:
            observer.detected(image, options, found, time.perf_counter() - begun)
        return found

    @property
    def info(self) -> ServedInfo:
        """The model that is served now."""
        return self._model.info
