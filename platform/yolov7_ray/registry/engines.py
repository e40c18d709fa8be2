"""What runs a folded model. A new engine is one class here, and one line in `ENGINES`.

B images · N predictions of an image · C classes · H W side of the images, multiples of the largest stride
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from yolov7.images.batch import normalize
from yolov7.model.detector import YOLO
from yolov7.training.engine import autocast


class Engine(Protocol):
    """A folded model, ready to run on its device."""

    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB on the CPU -> (B, N, 5 + C): cx, cy, w, h in pixels, objectness, class scores."""


class TorchEngine:
    """PyTorch, channels last; bf16 on a GPU."""

    def __init__(self, model: YOLO, device: torch.device) -> None:
        self.model = model.eval().to(device, memory_format=torch.channels_last)
        self.device = device
        self.precision = "bf16" if device.type == "cuda" else "fp32"

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return self.model(normalize(images.to(self.device)))


ENGINES: dict[str, Callable[[YOLO, torch.device], Engine]] = {"torch": TorchEngine}
"""Name -> what makes the engine of a folded model on a device."""
