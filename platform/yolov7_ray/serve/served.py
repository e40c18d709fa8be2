"""Types of the gateway: served models, their interface, detection options and settings."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ..detect.options import MAX_DETECTIONS, Options
from ..registry.registry import REF
from .access.tokens import Tokens
from .capture.spec import Capture
from .limits import Limits, RequestError
from .spec import AccessLog

MAX_IMAGES = 64
"""Images of one request ..."""
AT_A_TIME = 32
"""... and those of them that are detected in at a time: a request takes no more of the queue."""


@dataclass(frozen=True, eq=False)
class Detected:
    """What a replica found in one image of n objects."""

    info: "ServedInfo"
    """The model that found them: a replica may follow an alias."""
    detections: np.ndarray
    """(n, 6) float32, best first: x1, y1, x2, y2 in pixels of the image, score, class index."""
    size_hw: tuple[int, int]
    """Height and width of the image."""
    batch_size: int
    """Images processed together."""
    inference_ms: float
    """Inference time of the batch, NMS included."""
    wait_ms: float = 0.0
    """Time in the replica's queue, for a place and for others to share the batch."""
    decode_ms: float = 0.0
    """Time of decoding and fitting."""
    drawn_png: bytes | None = None
    """The image with its detections, if requested."""

    @property
    def stages_ms(self) -> dict[str, float]:
        """Stage -> its time."""
        return {"wait": self.wait_ms, "decode": self.decode_ms, "model": self.inference_ms}


@dataclass(frozen=True)
class ServedInfo:
    """Metadata of a served model."""

    name: str
    ref: str = ""
    """The exact model: NAME:VERSION or a URI."""
    version: str = ""
    architecture: str = ""
    image_size_px: int = 0
    classes: tuple[str, ...] = ()
    engine: str = ""
    """What runs it, and its precision; empty until a replica has answered."""
    confidence: float = 0.25
    """Scores below are left out, unless a request says otherwise."""
    iou: float = 0.45
    """Overlap at which the weaker of two is left out, unless a request says otherwise."""
    asked: str = ""
    """The model as the job names it: NAME@ALIAS may have moved on since it was resolved to `ref`."""
    registry: str | None = None
    endpoint: str | None = None
    """Name of the endpoint in its registry, where roll-outs are kept; None: this model has none."""

    def of(self, ref: str, architecture: str, image_size_px: int, classes: Sequence[str],
           engine: str = "") -> "ServedInfo":
        """The same served model, once it is the exact model `ref`."""
        version = ref.rpartition(":")[2] if REF.fullmatch(ref) else ref.rpartition("/")[2]
        return replace(self, ref=ref, version=version, architecture=architecture, image_size_px=image_size_px,
                       classes=tuple(classes), engine=engine)

    def options(self, confidence: float | None = None, iou: float | None = None,
                max_detections: int = MAX_DETECTIONS) -> Options:
        """Those of a request, with the model's own where it has none."""
        return Options(self.confidence if confidence is None else confidence, self.iou if iou is None else iou,
                       max_detections)


class ServedModel(Protocol):
    """Interface of a model that the routes use."""

    info: ServedInfo

    def check_room(self) -> None: ...

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool = False) -> Detected: ...

    async def is_ready(self) -> bool: ...

    async def newer(self) -> str | None: ...


@dataclass(frozen=True)
class Settings:
    """Settings of the endpoint."""

    limits: Limits
    access_log: AccessLog = "off"
    tokens: Tokens = field(default_factory=Tokens)
    """Digests of the bearer tokens, so that the tokens themselves are not stored; none: no authentication."""
    capture: Capture | None = None


def find_model(models: Mapping[str, ServedModel], name: str | None, version: str | None = None) -> ServedModel:
    """The model of that name, the first if none is named; RequestError 404 lists the available ones.

    Also if a version is asked for, and it is not the one that is served.
    """
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise RequestError(404, "model", f"'{name}' is unknown", f"served are {', '.join(models)}")
    if version and version != models[name].info.version:
        raise RequestError(404, f"model '{name}'", f"version '{version}' is not served",
                           f"served is version {models[name].info.version}")
    return models[name]


async def detect_all(model: ServedModel, images: Sequence[bytes | np.ndarray], options: Options) -> list[Detected]:
    """Detect in each image of a request, in their order; the first error ends all."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def detect(image: bytes | np.ndarray) -> Detected:
        async with places:
            return await model.detect(image, options)

    tasks = [asyncio.create_task(detect(image)) for image in images]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
