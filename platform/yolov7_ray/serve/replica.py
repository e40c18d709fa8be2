"""The replica: images are decoded as they come, gathered into batches and run through the model together.

B images · n detections
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from ray import serve

from yolov7.images.draw import draw_detections
from yolov7.images.sample import Letterbox, decode_image, encode_image

from ..detect.detector import Detector
from ..detect.options import Options
from ..engines.names import EngineName, Precision
from ..errors import JobError
from ..registry.model_source import ModelSource, locate
from .limits import undecodable
from .rollout.record import Records
from .served import Detected, ServedInfo


LOOK_EVERY_S = 10.0
"""How often a replica that follows its alias asks where that points."""


Request = tuple[Detector, np.ndarray, Options]
"""A letterboxed image, by whom and how it is to be looked at."""
Answer = tuple[np.ndarray, int, float]
"""Detections (n, 6) in pixels of the letterboxed image, batch size, milliseconds."""


@dataclass(frozen=True)
class Model:
    """A model and what is told of it."""

    info: ServedInfo
    detector: Detector


class Current:
    """The model that a replica serves now.

    `follow` loads what the alias refers to later beside the model that is there, warms it up, and puts it in its place:
    nothing waits, and every answer tells which model it is of.
    """

    def __init__(self, info: ServedInfo, source: ModelSource, max_batch_size: int, **settings: Any) -> None:
        """``settings``: of `Detector`."""
        self._max_batch_size, self._settings, self._failed = max_batch_size, settings, ""
        self.model = self._load(info, source)

    def _load(self, info: ServedInfo, source: ModelSource) -> Model:
        loaded = source.load()
        detector = Detector(loaded, **self._settings)
        detector.warm_up(self._max_batch_size)
        engine = f"{detector.engine.name} {detector.engine.precision}"
        if detector.chosen_by:
            print(f"serve: {info.name} runs in {engine}: {detector.chosen_by}", flush=True)
        return Model(info.of(source.ref, loaded.model.architecture.name, detector.image_size_px, detector.classes, engine),
                     detector)

    def follow(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            time.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Go on with what the alias refers to now. What cannot be loaded is told, once, and left."""
        info = self.model.info
        try:
            source = locate(info.asked, info.registry)
        except JobError:  # the registry does not answer; this model goes on
            return
        if source.ref in (info.ref, self._failed):
            return
        try:
            self.model = self._load(info, source)
            print(f"serve: {info.name} is now {source.ref}", flush=True)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with the new model, the old one works)
            self._failed = source.ref
            print(f"serve: {info.name} stays {info.ref}: {source.ref} cannot be served: {error}", flush=True)

    def become(self, ref: str) -> str:
        """Go on with exactly this version of the registry, loaded beside the one that is there; returns it."""
        info = self.model.info
        if info.ref != ref:
            self.model = self._load(info, locate(ref, info.registry))
            print(f"serve: {info.name} is now {ref}", flush=True)
        return self.model.info.ref


def stable_source(info: ServedInfo, deployed: ModelSource) -> ModelSource:
    """The version that roll-outs have made of the one that was deployed."""
    if info.endpoint is None:
        return deployed
    ref = Records(info.registry, info.endpoint).stable_ref(info.name, deployed.ref)
    return deployed if ref == deployed.ref else locate(ref, info.registry)


@serve.deployment
class DetectorReplica:
    """One replica of one model. It is up only after a real inference."""

    def __init__(self, source: ModelSource, info: ServedInfo, size_px: int | None, num_cpus: float, max_batch_size: int,
                 batch_wait_s: float, engine: EngineName, precision: Precision | Literal["auto"],
                 reduced_decoding: bool = False, follow: bool = False):
        """``size_px``: as the job says; None: as each model was trained."""
        torch.set_num_threads(max(1, int(num_cpus)))
        cv2.setNumThreads(0)  # images are decoded in threads of ours
        self._current = Current(info, stable_source(info, source), max_batch_size, image_size_px=size_px, engine=engine,
                                precision=precision, rectangular=False, reduced_decoding=reduced_decoding)
        self._places = asyncio.Semaphore(2 * max_batch_size)  # while one batch is processed, the next is decoded
        self._in_batch.set_max_batch_size(max_batch_size)
        self._in_batch.set_batch_wait_timeout_s(batch_wait_s)
        if follow:
            threading.Thread(target=self._current.follow, name="follow", daemon=True).start()

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool) -> Detected:
        """Detect in one image, encoded or as RGB pixels (H, W, 3) uint8; with others, if others come.

        Boxes are in pixels of the image as its EXIF orientation displays it. RequestError 400 if it cannot
        be decoded.
        """
        came = time.perf_counter()
        async with self._places:  # the others wait here, encoded
            begun, model = time.perf_counter(), self._current.model
            fitted, fit = await asyncio.to_thread(opened, model.detector, image)
            decoded = time.perf_counter()
            detections, batch_size, inference_ms = await self._in_batch((model.detector, fitted, options))
            wait_ms = 1e3 * (begun - came + time.perf_counter() - decoded) - inference_ms
            detections[:, :4] = fit.to_original(detections[:, :4])
            png = await asyncio.to_thread(self._draw, image, detections, model.info.classes) if draw else None
            return Detected(model.info, detections, fit.original_size_hw, batch_size, inference_ms, max(0.0, wait_ms),
                            1e3 * (decoded - begun), png)

    @serve.batch
    async def _in_batch(self, requests: list[Request]) -> list[Answer]:
        return await asyncio.to_thread(together, requests)

    async def current(self) -> ServedInfo:
        """The model that is served; that this answers at all means that its warm-up is done."""
        return self._current.model.info

    async def become(self, ref: str) -> str:
        """Serve this version of the registry from now on; see `Current.become`."""
        return await asyncio.to_thread(self._current.become, ref)

    def check_health(self) -> None:
        """Ray Serve replaces the replica if this raises: a failed CUDA context never recovers."""
        if self._current.model.detector.device.type == "cuda":
            torch.cuda.synchronize()

    @staticmethod
    def _draw(image: bytes | np.ndarray, detections: np.ndarray, classes: Sequence[str]) -> bytes:
        pixels = image if isinstance(image, np.ndarray) else decode_image(image)
        return encode_image(draw_detections(pixels, detections, classes), ".png")


def opened(detector: Detector, image: bytes | np.ndarray) -> tuple[np.ndarray, Letterbox]:
    """An image, encoded or as pixels, fitted into the model's input; RequestError 400 if it cannot be decoded."""
    if isinstance(image, np.ndarray):
        return detector.fit(image)
    try:
        return detector.open(image)
    except ValueError as error:
        raise undecodable() from error


def together(requests: Sequence[Request]) -> list[Answer]:
    """Run the images of each detector through it together: there are two while one replaces the other."""
    answers: list = [None] * len(requests)
    for detector in dict.fromkeys(detector for detector, _, _ in requests):
        chosen = [number for number, request in enumerate(requests) if request[0] is detector]
        start = time.perf_counter()
        found = detector.run([requests[number][1] for number in chosen], [requests[number][2] for number in chosen])
        milliseconds = (time.perf_counter() - start) * 1000
        for number, detections in zip(chosen, found, strict=True):
            answers[number] = (detections, len(found), milliseconds)
    return answers
