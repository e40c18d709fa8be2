"""The generated dataset: deterministic, exact and of the promised difficulty."""

import hashlib

import cv2
import numpy as np
import pytest
from yolov7_ray.data.sources.shapes import SHAPE_CLASSES, generate_shape_image

from yolov7.images.sample import read_sample

SIZE_PX = 128


def test_row_is_a_function_of_seed_and_index():
    first, again = generate_shape_image(3, 41, SIZE_PX), generate_shape_image(3, 41, SIZE_PX)
    assert first == again
    assert first["image"] != generate_shape_image(3, 42, SIZE_PX)["image"]
    assert first["image"] != generate_shape_image(4, 41, SIZE_PX)["image"]


def test_pixels_and_labels_are_pinned():
    row = generate_shape_image(0, 0)
    labels = repr((row["boxes_xyxy"], row["labels"], row["area"], row["polygons"]))
    assert hashlib.sha256(labels.encode()).hexdigest()[:16] == "c9b31246c0ad4f3c"
    assert hashlib.sha256(row["image"]).hexdigest()[:16] == "6a43b9e8e0c39cb1"


@pytest.mark.parametrize("size_px", [64, 128, 160, 320])
def test_rows_are_consistent(size_px):
    for index in range(20):
        row = generate_shape_image(1, index, size_px=size_px)
        sample = read_sample(**row)
        assert sample.image.shape == (size_px, size_px, 3)
        n = len(row["labels"])
        assert 1 <= n <= 6 and set(row["labels"]) <= set(range(len(SHAPE_CLASSES)))
        assert row["image_id"] == index and not any(row["iscrowd"])
        boxes = sample.boxes_xyxy
        assert (boxes >= 0).all() and (boxes <= size_px).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides > 0.1 * size_px).all() and (sides < 0.46 * size_px).all()
        for box, area, (ring,) in zip(boxes, sample.area, sample.polygons, strict=True):
            assert np.allclose(box, [*ring.min(0), *ring.max(0)])
            assert area == pytest.approx(cv2.contourArea(ring), rel=1e-4)


def test_every_class_appears_and_colour_is_independent_of_it():
    rows = [generate_shape_image(0, index, SIZE_PX) for index in range(150)]
    counts = np.bincount(sum((row["labels"] for row in rows), []), minlength=4)
    assert counts.min() > 80
    mean_colour = np.zeros((4, 3))
    for row in rows:
        image = read_sample(**row).image
        for label, (ring,) in zip(row["labels"], row["polygons"], strict=True):
            x, y = np.mean(np.reshape(ring, (-1, 2)), axis=0).astype(int)
            mean_colour[label] += image[y, x] / counts[label]
    assert np.ptp(mean_colour, axis=0).max() < 50


def test_boxes_fit_what_is_drawn():
    checked = 0
    for index in range(60):
        row = generate_shape_image(5, index, SIZE_PX)
        if len(row["labels"]) > 1:
            continue
        image = read_sample(**row).image.astype(int)
        box = np.array(row["boxes_xyxy"][0])
        saturation = image.max(2) - image.min(2)
        ys, xs = np.nonzero(saturation > 130)  # the ground stays below 105
        drawn = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        is_pointed = SHAPE_CLASSES[row["labels"][0]] in ("star", "triangle")
        assert np.abs(drawn - box).max() <= (4 if is_pointed else 2)  # the dark rim fills the tips
        checked += 1
    assert checked >= 5


def test_enough_of_each_shape_stays_visible():
    for index in range(60):
        row = generate_shape_image(7, index, SIZE_PX)
        owner = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        for number, (ring,) in enumerate(row["polygons"], start=1):
            corners = np.rint(np.reshape(ring, (-1, 2)) - 0.5).astype(np.int32)
            cv2.fillPoly(owner, [corners], number)
        for number, area in enumerate(row["area"], start=1):
            assert (owner == number).sum() > 0.35 * area


def test_too_small_to_draw():
    with pytest.raises(ValueError, match="size_px=16 is too small"):
        generate_shape_image(0, 0, 16)
