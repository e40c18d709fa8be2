"""The detector: backbone, neck and head, and the decoding of raw outputs into boxes.

B images · L levels · A anchors · N = sum over levels of A*H*W · C classes · H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..architectures.family import architecture
from ..architectures.language import Architecture
from .backbone import Backbone
from .head import DetectionHead
from .neck import PyramidNeck
from .reparameterize import reparameterize


class YOLO(nn.Module):
    """A YOLOv7 detector.

    Images are (B, 3, H, W) float in [0, 1]; H and W multiples of the largest stride, else ValueError.
    In training mode it returns the raw outputs [(B, A, H, W, 5+C)], lead levels first, then auxiliary;
    in evaluation mode predictions (B, N, 5+C), see `decode`.
    """

    anchors_px: Tensor

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} leaves nothing to detect; give at least 1")
        self.architecture = architecture
        self.num_classes = num_classes
        self.strides = architecture.strides
        self.is_folded = False
        self.register_buffer("anchors_px", torch.tensor(architecture.anchors_px, dtype=torch.float32))
        self.backbone = Backbone(architecture)
        self.neck = PyramidNeck(architecture, self.backbone.out_channels)
        self.head = DetectionHead(architecture, num_classes)

    def forward(self, images: Tensor) -> list[Tensor] | Tensor:
        if not self.training:
            return self.decode(self.raw_outputs(images))
        lead, auxiliary = self._features(images)
        return self.head(lead, auxiliary)

    def raw_outputs(self, images: Tensor) -> list[Tensor]:
        """Return the lead head's raw outputs [(B, A, H, W, 5+C)], whatever the mode."""
        lead, _ = self._features(images)
        return self.head.lead(lead)

    def decode(self, outputs: list[Tensor]) -> Tensor:
        """Turn raw lead outputs into predictions, in float32.

        Returns (B, N, 5+C): centre x, centre y, width, height in pixels, objectness, class
        probabilities; ordered by level, anchor, y, x. A centre reaches half a cell beyond its own
        cell, a size from 0 to 4 times its anchor.
        """
        cells, scales, anchors = [], [], []
        for output, stride, anchor in zip(outputs, self.strides, self.anchors_px, strict=True):
            num_anchors, height, width = output.shape[1:4]
            y, x = torch.meshgrid(
                torch.arange(height, device=output.device), torch.arange(width, device=output.device), indexing="ij"
            )
            cells.append(torch.stack((x, y), dim=-1).view(1, -1, 2).expand(num_anchors, -1, 2).reshape(-1, 2))
            scales.append(torch.full((num_anchors * height * width, 1), float(stride), device=output.device))
            anchors.append(anchor[:, None].expand(-1, height * width, 2).reshape(-1, 2))
        scores = torch.cat([output.flatten(1, 3) for output in outputs], dim=1).float().sigmoid()
        centres = (scores[..., 0:2] * 2 - 0.5 + torch.cat(cells)) * torch.cat(scales)
        sizes = (scores[..., 2:4] * 2) ** 2 * torch.cat(anchors)
        return torch.cat((centres, sizes, scores[..., 4:]), dim=-1)

    def _features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        stride = self.strides[-1]
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % stride or images.shape[3] % stride:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit {self.architecture.name}; give (B, 3, H, W) "
                f"with H and W multiples of {stride}"
            )
        return self.neck(self.backbone(images))


def build_model(
    name_or_architecture: str | Architecture, num_classes: int = 80, *, folded: bool = False
) -> YOLO:
    """Build a detector with fresh weights in training form, or in folded form for loading weights."""
    if isinstance(name_or_architecture, str):
        name_or_architecture = architecture(name_or_architecture)
    model = YOLO(name_or_architecture, num_classes)
    return reparameterize(model) if folded else model
