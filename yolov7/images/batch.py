"""Batches: samples stacked into the tensors that the model and the criterion take.

B images · N targets · H W pixels
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .sample import Letterbox, Sample, area_resize, centred


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B images of one size with their N targets, on any device."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB in channels-last memory, as decoders write it."""
    targets: Tensor
    """(N, 6) float32: image index in the batch, class, and cx, cy, w, h normalised by the image size."""
    image_ids: Tensor
    """(B,) int64."""
    letterboxes: tuple[Letterbox, ...] | None = None
    """Letterbox of each image, for mapping detections back; None for augmented images."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on `device`; with pinned memory and `non_blocking` the copy is asynchronous."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            image_ids=self.image_ids.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; torch's DataLoader calls this by name."""
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            image_ids=self.image_ids.pin_memory(),
        )


def collate(samples: Sequence[Sample], letterboxes: Sequence[Letterbox] | None = None) -> Batch:
    """Stack samples whose images have one size; crowd regions do not become targets.

    ValueError where the sizes differ.
    """
    shapes = {sample.image.shape for sample in samples}
    if len(shapes) != 1:
        raise ValueError(
            f"collate: a batch holds images of one size, got {len(samples)} images of shapes "
            f"{sorted(shapes)}; letterbox or augment every sample to the same size first"
        )
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    targets = np.concatenate([_targets(i, sample) for i, sample in enumerate(samples)])
    return Batch(
        images=images,
        targets=torch.from_numpy(targets),
        image_ids=torch.tensor([sample.image_id for sample in samples], dtype=torch.int64),
        letterboxes=None if letterboxes is None else tuple(letterboxes),
    )


def _targets(index: int, sample: Sample) -> np.ndarray:
    """Target rows, (n, 6) float32, of the sample at position `index` of its batch."""
    height, width = sample.image.shape[:2]
    boxes = sample.boxes_xyxy[~sample.iscrowd]
    rows = np.empty((len(boxes), 6), np.float32)
    rows[:, 0] = index
    rows[:, 1] = sample.labels[~sample.iscrowd]
    rows[:, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / (2 * width, 2 * height)
    rows[:, 4:6] = (boxes[:, 2:] - boxes[:, :2]) / (width, height)
    return rows


def normalize(
    images: Tensor, dtype: torch.dtype = torch.float32, channels_last: bool = True
) -> Tensor:
    """(B, 3, H, W) uint8 to [0, 1] in `dtype`, on the images' device, in the requested memory format."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype=dtype, memory_format=memory_format).mul_(1 / 255)


def evaluation_sample(
    sample: Sample, size_px: int, canvas_hw: tuple[int, int] | None = None
) -> tuple[Sample, Letterbox]:
    """Fit a sample for evaluation: its longer side becomes `size_px`, on a square or `canvas_hw`.

    By `area_resize`, as the reference evaluates, so that the same weights have the same AP. Training does
    not see this interpolation: there images are magnified at random and drawn bilinearly from a
    decoding at most twice too large, in the reference as here.
    All objects stay, crowds too; boxes and polygons are converted to the letterboxed frame, along each
    axis by its own ratio of whole pixels.
    """
    height, width = sample.image.shape[:2]
    resized = area_resize(sample.image, size_px)
    image, pad_x, pad_y = centred(resized, canvas_hw or (size_px, size_px))
    scale = size_px / max(height, width)
    stretch_xy = (resized.shape[1] / (width * scale), resized.shape[0] / (height * scale))
    fit = Letterbox(scale, pad_x, pad_y, (height, width), stretch_xy)
    polygons = sample.polygons
    if polygons is not None:
        polygons = [[fit.to_letterboxed(ring) for ring in rings] for rings in polygons]
    boxes = fit.to_letterboxed(sample.boxes_xyxy)
    return replace(sample, image=image, boxes_xyxy=boxes, polygons=polygons), fit
