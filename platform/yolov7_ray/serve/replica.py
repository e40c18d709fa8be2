"""The replica: images are decoded as they come, gathered into batches and run through the model together.

B images · n detections
"""

import asyncio
import time
from typing import Literal

import cv2
import numpy as np
import torch
from ray import serve

from yolov7.images.draw import draw_detections
from yolov7.images.sample import decode_image, encode_image

from ..detect.detector import Detector
from ..detect.options import EngineName, Options, Precision
from ..registry.model_source import ModelSource
from .limits import undecodable
from .served import Detected


@serve.deployment
class DetectorReplica:
    """One replica of one model. It is up only after a real inference."""

    def __init__(self, source: ModelSource, image_size_px: int, num_cpus: float, max_batch_size: int,
                 batch_wait_s: float, engine: EngineName, precision: Precision | Literal["auto"]):
        torch.set_num_threads(max(1, int(num_cpus)))
        cv2.setNumThreads(0)  # images are decoded in threads of ours
        self.detector = Detector(source.load(), engine=engine, precision=precision, image_size_px=image_size_px,
                                 rectangular=False)
        self.detector.warm_up(max_batch_size)
        self._places = asyncio.Semaphore(2 * max_batch_size)  # while one batch is processed, the next is decoded
        self._in_batch.set_max_batch_size(max_batch_size)
        self._in_batch.set_batch_wait_timeout_s(batch_wait_s)

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool) -> Detected:
        """Detect in one image, encoded or as RGB pixels (H, W, 3) uint8; with others, if others come.

        Boxes are in pixels of the image as its EXIF orientation displays it. RequestError 400 if it cannot
        be decoded.
        """
        came = time.perf_counter()
        async with self._places:  # the others wait here, encoded
            begun = time.perf_counter()
            pixels = await asyncio.to_thread(self._decode, image)
            fitted, fit = await asyncio.to_thread(self.detector.fit, pixels)
            decoded = time.perf_counter()
            detections, batch_size, inference_ms = await self._in_batch((fitted, options))
            wait_ms = 1e3 * (begun - came + time.perf_counter() - decoded) - inference_ms
            detections[:, :4] = fit.to_original(detections[:, :4])
            png = await asyncio.to_thread(self._draw, pixels, detections) if draw else None
            return Detected(detections, pixels.shape[:2], batch_size, inference_ms, max(0.0, wait_ms),
                            1e3 * (decoded - begun), png)

    @serve.batch
    async def _in_batch(self, requests: list[tuple[np.ndarray, Options]]) -> list[tuple[np.ndarray, int, float]]:
        """Letterboxed images with their options -> detections (n, 6) in their pixels, batch size, milliseconds."""
        start = time.perf_counter()
        images, options = zip(*requests)
        found = await asyncio.to_thread(self.detector.run, list(images), list(options))
        milliseconds = (time.perf_counter() - start) * 1000
        return [(detections, len(found), milliseconds) for detections in found]

    async def is_ready(self) -> bool:
        """True: that this answers at all means that the warm-up is done."""
        return True

    def check_health(self) -> None:
        """Ray Serve replaces the replica if this raises: a failed CUDA context never recovers."""
        if self.detector.device.type == "cuda":
            torch.cuda.synchronize()

    @staticmethod
    def _decode(image: bytes | np.ndarray) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image
        try:
            return decode_image(image)
        except ValueError as error:
            raise undecodable() from error

    def _draw(self, pixels: np.ndarray, detections: np.ndarray) -> bytes:
        return encode_image(draw_detections(pixels, detections, self.detector.classes), ".png")
