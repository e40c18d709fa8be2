"""The replica: images are decoded as they come, gathered into batches and run through the model together.

B images · n detections
"""

import asyncio
import time

import cv2
import numpy as np
import torch
from ray import serve
from torch import Tensor

from yolov7.evaluation.postprocess import postprocess
from yolov7.images.draw import draw_detections
from yolov7.images.sample import Letterbox, decode_image, encode_image, letterbox
from yolov7.model.reparameterize import reparameterize

from ..registry.engines import ENGINES
from ..registry.model_source import LoadedModel, ModelSource
from .limits import undecodable
from .served import Detected, Options


class Detector:
    """A folded model on its device: prepared images in, detections in pixels of the images out."""

    def __init__(self, loaded: LoadedModel, image_size_px: int, device: torch.device, engine: str = "torch"):
        model = loaded.model if loaded.model.is_folded else reparameterize(loaded.model)
        self.engine = ENGINES[engine](model, device)
        self.classes = loaded.classes
        self.size_hw = (image_size_px, image_size_px)
        self.device = device

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, Letterbox]:
        """Fit an RGB image (H, W, 3) uint8 into the model's square."""
        return letterbox(image, self.size_hw)

    @torch.inference_mode()
    def detect(self, images: list[np.ndarray], options: list[Options]) -> list[Tensor]:
        """Detections (n, 6) in pixels of the letterboxed images; one forward pass for all of them."""
        predictions = self.engine.predict(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        return [
            postprocess(predictions[i : i + 1], wanted.confidence, wanted.iou, multi_label=False,
                        max_detections=wanted.max_detections)[0].cpu()
            for i, wanted in enumerate(options)
        ]

    def warm_up(self, max_batch_size: int) -> None:
        """Run noise through the model, alone and as a full batch, so that no user waits for the first inference."""
        noise = np.random.default_rng(0).integers(0, 256, (*self.size_hw, 3), np.uint8)
        for size in {1, max_batch_size}:
            self.detect([noise] * size, [Options(confidence=0.001, iou=0.5)] * size)


@serve.deployment
class DetectorReplica:
    """One replica of one model. It is up only after a real inference."""

    def __init__(self, source: ModelSource, image_size_px: int, num_cpus: float, max_batch_size: int,
                 batch_wait_s: float):
        torch.set_num_threads(max(1, int(num_cpus)))
        cv2.setNumThreads(0)  # images are decoded in threads of ours
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.detector = Detector(source.load(), image_size_px, device)
        self.detector.warm_up(max_batch_size)
        self._places = asyncio.Semaphore(2 * max_batch_size)  # while one batch is processed, the next is decoded
        self._in_batch.set_max_batch_size(max_batch_size)
        self._in_batch.set_batch_wait_timeout_s(batch_wait_s)

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool) -> Detected:
        """Detect in one image, encoded or as RGB pixels (H, W, 3) uint8; with others, if others come.

        Boxes are in pixels of the image as its EXIF orientation displays it. RequestError 400 if it cannot
        be decoded.
        """
        async with self._places:  # the others wait here, encoded
            pixels = await asyncio.to_thread(self._decode, image)
            fitted, fit = await asyncio.to_thread(self.detector.prepare, pixels)
            detections, batch_size, inference_ms = await self._in_batch((fitted, options))
            detections[:, :4] = fit.to_original(detections[:, :4])
            png = await asyncio.to_thread(self._draw, pixels, detections) if draw else None
            return Detected(detections, pixels.shape[:2], batch_size, inference_ms, png)

    @serve.batch
    async def _in_batch(self, requests: list[tuple[np.ndarray, Options]]) -> list[tuple[np.ndarray, int, float]]:
        """Letterboxed images with their options -> detections (n, 6) in their pixels, batch size, milliseconds."""
        start = time.perf_counter()
        images, options = zip(*requests)
        found = await asyncio.to_thread(self.detector.detect, list(images), list(options))
        milliseconds = (time.perf_counter() - start) * 1000
        return [(detections.numpy(), len(found), milliseconds) for detections in found]

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
