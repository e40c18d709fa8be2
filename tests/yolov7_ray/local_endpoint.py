"""The endpoint's routes behind a real server in this process, with a real model and without Ray."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import uvicorn
from serving import CLASSES, SIZE_PX, blind_model

from yolov7.images.sample import decode_image
from yolov7_ray.detect.detector import Detector
from yolov7_ray.detect.options import Options
from yolov7_ray.registry.model_source import LoadedModel
from yolov7_ray.serve.access.tokens import Tokens
from yolov7_ray.serve.limits import Limits, RequestError
from yolov7_ray.serve.routes import build_api
from yolov7_ray.serve.served import Detected, ServedInfo, Settings

LIMITS = Limits(max_bytes=20_000_000, max_pixels=4_000_000)


class LocalModel:
    """A real detector in this process."""

    info = ServedInfo("shapes", "shapes:1", "1", "yolov7-tiny", SIZE_PX, tuple(CLASSES))

    def __init__(self, label: int = 1) -> None:
        loaded = LoadedModel(blind_model(label), CLASSES, SIZE_PX, "here", {})
        self._detector = Detector(loaded, rectangular=False)

    full = False

    def check_room(self) -> None:
        if self.full:
            raise RequestError(503, "model 'shapes'", "has too many requests waiting", retry_after_s=1)

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool = False) -> Detected:
        pixels = image if isinstance(image, np.ndarray) else decode_image(image)
        fitted, fit = self._detector.fit(pixels)
        found = self._detector.run([fitted], [options])[0]
        found[:, :4] = fit.to_original(found[:, :4])
        return Detected(self.info, found, pixels.shape[:2], 1, 1.0)

    async def is_ready(self) -> bool:
        return True

    async def newer(self) -> str | None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """A running server."""

    port: int
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def loop_cpu_s(self) -> float:
        """CPU seconds of the thread that runs the event loop."""
        return time.clock_gettime(time.pthread_getcpuclockid(self.thread.ident))


@contextlib.contextmanager
def served(limits: Limits = LIMITS, tokens: Tokens = Tokens(), access_log: str = "off",
           models: dict[str, LocalModel] | None = None, **settings) -> Iterator[Endpoint]:
    """The endpoint's routes behind a real server; models by name, default: `shapes`."""
    settings = Settings(limits, access_log, tokens, **settings)
    server = uvicorn.Server(uvicorn.Config(build_api(models or {"shapes": LocalModel()}, settings),
                                           log_level="error", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        try:
            yield Endpoint(listener.getsockname()[1], thread)
        finally:
            server.should_exit = True
            thread.join(60)
