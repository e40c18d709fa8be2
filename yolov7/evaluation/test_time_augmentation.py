"""Test-time augmentation: look at an image more than once, and let suppression choose among all that was seen.

B images · V views · N predictions of a view · C classes · H W pixels
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAD = 0.447
"""Grey around reduced images: the letterbox's 114 / 255, rounded as in the official detector."""


@dataclass(frozen=True)
class View:
    """One look: the image at ``scale`` of its size, mirrored where ``flip``."""

    scale: float = 1.0
    flip: bool = False


VIEWS = (View(), View(0.83, flip=True), View(0.67))
"""The usual three, at 2.1 times the cost of one."""


class TestTimeAugmentation(nn.Module):
    """A detector that looks at every image in several views; used like the detector itself, in evaluation mode.

    Images (B, 3, H, W) in [0, 1]; predictions (B, sum of N, 5+C) in pixels of these images, view by view, not
    yet suppressed.
    """

    __test__ = False  # for pytest: the name is no test's

    def __init__(self, model: nn.Module, views: Sequence[View] = VIEWS) -> None:
        super().__init__()
        self.model = model
        self.views = tuple(views)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._seen(view, images) for view in self.views], dim=1)

    def _seen(self, view: View, images: Tensor) -> Tensor:
        """Predictions (B, N, 5+C) of one view, carried back into the images' frame."""
        height, width = images.shape[2:]
        shown = images.flip(3) if view.flip else images
        if view.scale != 1:
            shown = scaled_images(shown, view.scale, max(self.model.strides))
        predictions = self.model(shown).clone()
        if view.scale != 1:
            back = [width / int(width * view.scale), height / int(height * view.scale)]
            predictions[..., :4] *= predictions.new_tensor(back * 2)
        if view.flip:
            predictions[..., 0] = width - predictions[..., 0]
        return predictions


def scaled_images(images: Tensor, scale: float, stride_px: int) -> Tensor:
    """Images (B, 3, H, W) resized bilinearly to int(scale * H), int(scale * W), in their own upper left corner.

    Right and below lies grey, up to the next multiple of ``stride_px`` of the exact size.
    """
    sizes = [size * scale for size in images.shape[2:]]
    height, width = map(int, sizes)
    resized = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    padded_height, padded_width = (math.ceil(size / stride_px) * stride_px for size in sizes)
    return F.pad(resized, (0, padded_width - width, 0, padded_height - height), value=PAD)
