"""Every view speaks of the same pixels: what is found in a reduced or mirrored image lies where it was."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yolov7.architectures.family import architecture
from yolov7.evaluation.augmented_inference import VIEWS, scaled_images, TestTimeAugmentation, View
from yolov7.model.detector import build_model

GOLDEN_SUMS = {0.83: ((224, 288), 95425.11382694216), 0.67: ((192, 224), 63494.12470720103)}
"""Scale -> padded size and sum of what the official detector makes of 256 x 320 px uniform noise (generator 0)."""


class BrightBox(nn.Module):
    """A detector of the one bright rectangle: its box to the pixel, where the grey half-way level is crossed."""

    strides = (8, 16, 32)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        boxes = []
        for image in images:
            columns, rows = ((image[0].amax(dim=axis) > 0.7).nonzero().flatten() for axis in (0, 1))
            edges = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
            boxes.append(torch.cat([(edges[:2] + edges[2:]) / 2, edges[2:] - edges[:2], torch.tensor([0.9, 1.0])]))
        return torch.stack(boxes)[:, None]


def bright(box_xyxy: tuple[int, int, int, int], height: int = 192, width: int = 256) -> torch.Tensor:
    image = torch.full((1, 3, height, width), 0.4)
    x1, y1, x2, y2 = box_xyxy
    image[..., y1:y2, x1:x2] = 1.0
    return image


@pytest.mark.parametrize("box", [(40, 24, 120, 100), (0, 0, 60, 60), (200, 150, 256, 192)])
def test_every_view_finds_the_box_where_it_is(box):
    views = [*VIEWS, View(flip=True), View(0.5), View(0.5, flip=True), View(1.25)]
    found = TestTimeAugmentation(BrightBox(), views)(bright(box))[0]
    x1, y1, x2, y2 = box
    expected = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dtype=torch.float32)
    for view, prediction in zip(views, found, strict=True):
        exact = view.scale == 1 or view.scale == 0.5 and all(side % 2 == 0 for side in box)
        # Elsewhere an edge falls between two pixels of the reduced image, of which BrightBox knows whole ones.
        torch.testing.assert_close(prediction[:4], expected, atol=0 if exact else 1 / view.scale, rtol=0)


def test_predictions_of_the_plain_view_come_first_and_untouched():
    torch.manual_seed(0)
    model = build_model(architecture("yolov7-tiny").scaled(width=0.25), 3).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        plain, mirrored = model(images), model(images.flip(3))
        both = TestTimeAugmentation(model, (View(), View(flip=True)))(images)
        assert torch.equal(both[:, :plain.shape[1]], plain)
        flipped = both[:, plain.shape[1]:]
        assert torch.equal(flipped[..., 0], 96 - mirrored[..., 0]) and torch.equal(flipped[..., 1:], mirrored[..., 1:])
        usual = TestTimeAugmentation(model)(images)
    # 64 x 96 -> 53.1 x 79.7 -> 64 x 96 padded; 42.9 x 64.3 -> 64 x 96
    assert usual.shape == (2, 3 * plain.shape[1], 8)


def test_a_mirror_symmetric_image_gets_symmetric_boxes_from_both_plain_views():
    torch.manual_seed(0)
    model = build_model(architecture("yolov7-tiny").scaled(width=0.25), 2).eval()
    half = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        found = TestTimeAugmentation(model, (View(), View(flip=True)))(torch.cat([half, half.flip(3)], dim=3))
    one, other = found.chunk(2, dim=1)
    torch.testing.assert_close(other[..., 0], 64 - one[..., 0])
    torch.testing.assert_close(other[..., 1:], one[..., 1:])


@pytest.mark.parametrize("scale", GOLDEN_SUMS)
def test_reduced_images_are_the_official_ones(scale):
    images = torch.from_numpy(np.random.default_rng(0).random((1, 3, 256, 320))).float()
    size_hw, total = GOLDEN_SUMS[scale]
    reduced = scaled_images(images, scale, stride_px=32)
    assert reduced.shape[2:] == size_hw
    assert reduced.double().sum().item() == pytest.approx(total, rel=1e-6)


def test_the_image_lies_in_the_upper_left_corner():
    images = torch.rand(1, 3, 64, 64)
    reduced = scaled_images(images, 0.5, stride_px=64)
    assert torch.equal(reduced[..., :32, :32], F.interpolate(images, size=(32, 32), mode="bilinear"))
    assert (reduced[..., 32:] == 0.447).all() and (reduced[..., 32:, :] == 0.447).all()
