"""What the tests of registry and endpoint share: a model whose detections are known, and a client."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from yolov7.architectures.family import architecture
from yolov7.model.detector import YOLO, build_model
from yolov7.model.reparameterize import reparameterize
from yolov7.images.sample import encode_image
from yolov7.checkpoints.weights import save_model
from yolov7_ray.detect.detections import Detections
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.version import MODEL_FILE, ModelVersion
from yolov7_ray.serve.spec import ServeSpec

CLASSES = ["cat", "dog"]
SIZE_PX = 64
STRIDE_PX = 32


def tiny_model(seed: int = 0) -> YOLO:
    """A small training-form model with statistics as if trained."""
    torch.manual_seed(seed)
    model = build_model(architecture("yolov7-tiny").scaled(width=0.25, depth=0.33), len(CLASSES))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@torch.no_grad()
def blind_model(label: int = 1, seed: int = 0) -> YOLO:
    """A folded model that sees one object of class `label` in every cell of the last level, whatever the image.

    At 64 px these are 2 x 2 boxes: centred in their cells, as large as the level's first anchor, score 0.81.
    """
    model = reparameterize(tiny_model(seed))
    for level, predictor in enumerate(model.head.lead_predictors):
        predictor.weight.zero_()
        bias = predictor.bias.view(model.head.num_anchors, -1)
        bias[:, :4], bias[:, 4:] = 0, -20
        if level == len(model.head.lead_predictors) - 1:
            bias[0, 4] = bias[0, 5 + label] = torch.logit(torch.tensor(0.9))
    model.anchors_px[-1, 0] = torch.tensor([16.0, 8.0])
    return model


@torch.no_grad()
def seeing_model() -> YOLO:
    """A model whose scores depend on the image: its norms are those of noise."""
    model = tiny_model().train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model(torch.rand(8, 3, 96, 96))
    for predictor in model.head.lead_predictors:
        predictor.weight.normal_(0, 0.05)
        predictor.bias.zero_()
    return model.eval()


def expected_boxes(height: int, width: int) -> np.ndarray:
    """(4, 4) x1, y1, x2, y2 of the blind model's objects, in pixels of an image of that size, sorted."""
    scale = min(SIZE_PX / height, SIZE_PX / width)
    pad = np.array([SIZE_PX - round(width * scale), SIZE_PX - round(height * scale)]) / 2
    centres = np.array([[x, y] for x in (16.0, 48.0) for y in (16.0, 48.0)])
    boxes = np.concatenate([centres - [8, 4], centres + [8, 4]], axis=1)
    boxes = (boxes - np.tile(pad, 2)) / scale
    boxes = boxes.clip(0, [width, height, width, height])
    return boxes[np.lexsort(boxes.T)]


def boxes(found: Detections) -> np.ndarray:
    """The boxes, in the order of `expected_boxes`."""
    return found.boxes_xyxy[np.lexsort(found.boxes_xyxy.T)]


def register_blind_model(registry: str, directory: Path, name: str = "shapes", label: int = 1) -> ModelVersion:
    """Register a blind model; its alias `latest` moves to it."""
    model, path = blind_model(label), directory / f"{name}-{label}.safetensors"
    save_model(path, model, CLASSES)
    version = Registry(registry).register(name, {MODEL_FILE: path}, {
        "architecture": model.architecture.to_dict(), "num_classes": len(CLASSES), "classes": CLASSES,
        "image_size_px": SIZE_PX, "metrics": {}, "training_metrics": {}, "dataset_fingerprint": None, "spec": None,
        "parity": {}, "source": "tests"})
    Registry(registry).promote(name, "latest", version.version)
    return version


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def ask(url: str, body: bytes | None = None, *, content_type: str = "image/jpeg", method: str | None = None,
        **headers: str) -> Answer:
    """GET, or POST where there is a body; an error status is an answer too."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and content_type:
        given["Content-Type"] = content_type
    request = urllib.request.Request(url, body, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def picture(height: int = 96, width: int = 128, extension: str = ".jpg") -> bytes:
    """An encoded image with something on it."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 2, y * 2, (x + y) % 50 * 5], axis=-1).clip(0, 255).astype(np.uint8)
    return encode_image(image, extension)


@contextmanager
def deployed(registry: str, **settings) -> Iterator[str]:
    """The URL of a real endpoint on the running Ray with the models `shapes` and `cars`; shut down afterwards."""
    from ray import serve as ray_serve

    from yolov7_ray.serve.app import serve

    try:
        yield serve(endpoint_spec(registry, **settings), "test")["url"]
    finally:
        ray_serve.shutdown()


def endpoint_spec(registry: str, **settings) -> ServeSpec:
    """A serve job on a free port that returns once ready."""
    models = {"shapes": {"model": "shapes@latest"}, "cars": {"model": "cars:1"}}
    return ServeSpec.model_validate({"kind": "serve", "models": models, "registry": registry, "port": 0, "wait": False,
                                     "cpus_per_replica": 0.5, "max_request_mb": 1, "max_image_megapixels": 4} | settings)
