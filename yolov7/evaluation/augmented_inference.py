"""Test-time augmentation: predict on several views of an image; suppression chooses among all predictions.

B images · V views · N predictions of a view · C classes · H W pixels
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAD_VALUE = 0.447
"""Grey padding around downscaled images: the letterbox's 114 / 255, rounded as in the official detector."""


@dataclass(frozen=True)
class View:
    """One view: the image resized by ``scale``, mirrored if ``flip``."""

    scale: float = 1.0
    flip: bool = False


VIEWS = (View(), View(0.83, flip=True), View(0.67))
"""The usual three views, at 2.1 times the cost of one."""


class TestTimeAugmentation(nn.Module):
    """A detector that predicts on several views of every image; used like the detector itself, in evaluation mode.

    Images (B, 3, H, W) in [0, 1]; predictions (B, sum of N, 5+C) in pixels of these images, view by view, not
    yet suppressed.
    """

    __test__ = False  # keeps pytest from collecting this class

    def __init__(self, model: nn.Module, views: Sequence[View] = VIEWS) -> None:
        super().__init__()
        self.model = model
        self.views = tuple(views)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._predict_view(view, images) for view in self.views], dim=1)

    def _predict_view(self, view: View, images: Tensor) -> Tensor:
        """Predictions (B, N, 5+C) of one view, mapped back to the images' frame."""
        height, width = images.shape[2:]
        view_images = images.flip(3) if view.flip else images
        if view.scale != 1:
            view_images = scaled_images(view_images, view.scale, max(self.model.strides))
        predictions = self.model(view_images).clone()
        if view.scale != 1:
            scale_back = [width / int(width * view.scale), height / int(height * view.scale)]
            predictions[..., :4] *= predictions.new_tensor(scale_back * 2)
        if view.flip:
            predictions[..., 0] = width - predictions[..., 0]
        return predictions


def scaled_images(images: Tensor, scale: float, stride_px: int) -> Tensor:
    """Images (B, 3, H, W) resized bilinearly to int(scale * H), int(scale * W), at the upper left corner.

    Grey padding on the right and below extends the exact size to the next multiple of ``stride_px``.
    """
    sizes = [size * scale for size in images.shape[2:]]
    height, width = map(int, sizes)
    resized = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    padded_height, padded_width = (math.ceil(size / stride_px) * stride_px for size in sizes)
    return F.pad(resized, (0, padded_width - width, 0, padded_height - height), value=PAD_VALUE)
