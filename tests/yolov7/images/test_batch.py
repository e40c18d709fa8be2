"""Stacking samples into tensors."""

import numpy as np
import pytest
import torch

from yolov7.images.batch import collate, evaluation_sample, normalize
from yolov7.images.sample import Sample


def sample(image_id=1, size_hw=(32, 64), boxes=((8, 4, 24, 12),), iscrowd=None, seed=0) -> Sample:
    n = len(boxes)
    return Sample(
        image=np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(n, dtype=np.int64) + 5,
        iscrowd=np.zeros(n, bool) if iscrowd is None else np.array(iscrowd),
        area=np.full(n, 9.0, np.float32),
        polygons=[[np.array([[8, 4], [24, 4], [24, 12]], np.float32)]] * n,
        image_id=image_id,
        file_name=f"{image_id}.png",
        original_size_hw=size_hw,
    )


def test_collate_stacks_images_and_numbers_targets():
    first = sample(11)
    second = sample(12, boxes=[(0, 0, 64, 32), (1, 2, 3, 4)], seed=1)
    batch = collate([first, sample(13, boxes=[]), second])
    assert batch.images.shape == (3, 3, 32, 64) and batch.images.dtype == torch.uint8
    assert np.array_equal(batch.images[2].permute(1, 2, 0).numpy(), second.image)
    assert batch.image_ids.tolist() == [11, 13, 12]
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == [
        [0, 5, 0.25, 0.25, 0.25, 0.25],
        [2, 5, 0.5, 0.5, 1.0, 1.0],
        [2, 6, 0.03125, 0.09375, 0.03125, 0.0625],
    ]
    assert batch.letterboxes is None


def test_collate_leaves_crowds_out():
    batch = collate([sample(boxes=[(0, 0, 9, 9), (1, 1, 5, 5)], iscrowd=[True, False])])
    assert batch.targets[:, 1].tolist() == [6]


def test_collate_without_any_object():
    batch = collate([sample(boxes=[]), sample(boxes=[])])
    assert batch.targets.shape == (0, 6) and batch.targets.dtype == torch.float32


def test_collate_refuses_mixed_sizes():
    with pytest.raises(ValueError, match="images of one size"):
        collate([sample(), sample(size_hw=(64, 64))])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(dtype, channels_last):
    batch = collate([sample(), sample(seed=1)])
    images = normalize(batch.images, dtype, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.dtype == dtype and images.is_contiguous(memory_format=layout)
    assert torch.allclose(images.float(), batch.images / 255, atol=1e-6 if dtype.itemsize == 4 else 4e-3)
    assert batch.images.dtype == torch.uint8 and images.max() <= 1


def test_to_keeps_everything():
    original = sample()
    letterboxed, fit = evaluation_sample(original, 64)
    batch = collate([letterboxed], [fit])
    moved = batch.to("cpu", non_blocking=True)
    assert torch.equal(moved.images, batch.images) and torch.equal(moved.targets, batch.targets)
    assert moved.letterboxes == (fit,) and moved.image_ids.tolist() == [1]


def test_evaluation_sample_keeps_crowds_and_can_go_back():
    original = sample(boxes=[(8, 4, 24, 12), (0, 0, 64, 32)], iscrowd=[False, True])
    letterboxed, fit = evaluation_sample(original, 128)
    assert letterboxed.image.shape == (128, 128, 3)
    assert letterboxed.boxes_xyxy.tolist() == [[16, 40, 48, 56], [0, 32, 128, 96]]
    assert letterboxed.polygons[0][0].tolist() == [[16, 40], [48, 40], [48, 56]]
    assert letterboxed.iscrowd.tolist() == [False, True]
    assert letterboxed.area.tolist() == [9, 9]
    assert fit.to_original(letterboxed.boxes_xyxy).tolist() == original.boxes_xyxy.tolist()


def test_evaluation_sample_on_a_rectangle():
    original = sample(size_hw=(32, 64))
    square, square_fit = evaluation_sample(original, 128)
    rectangle, fit = evaluation_sample(original, 128, (96, 160))
    assert rectangle.image.shape == (96, 160, 3) and fit.scale == square_fit.scale == 2
    assert (fit.pad_x, fit.pad_y) == (16, 16)
    assert np.array_equal(rectangle.image[16:80, 16:144], square.image[32:96])
    assert fit.to_original(rectangle.boxes_xyxy).tolist() == original.boxes_xyxy.tolist()


def test_evaluation_sample_maps_each_axis_by_its_whole_pixels():
    """77 x 100 px to 32: 24 rows of 24.64, 4 rows of grey above; a box over all rows ends where the picture does."""
    original = sample(size_hw=(77, 100), boxes=[(0, 0, 100, 77), (25, 38.5, 50, 77)])
    fitted, fit = evaluation_sample(original, 32)
    assert np.flatnonzero((fitted.image != 114).any((1, 2))).tolist() == list(range(4, 28))
    assert fitted.boxes_xyxy == pytest.approx(np.array([[0, 4, 32, 28], [8, 16, 16, 28]]), abs=1e-4)
    assert fitted.polygons[0][0].max(0) == pytest.approx([24 * 0.32, 4 + 12 * 24 / 77], abs=1e-4)
    assert fit.scale == 0.32 and fit.to_original(fitted.boxes_xyxy) == pytest.approx(original.boxes_xyxy, abs=1e-4)
