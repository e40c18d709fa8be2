"""What is drawn where, and that the input stays as it is."""

import numpy as np
import pytest
import torch

from yolov7.images.draw import PALETTE_RGB, class_color, draw_detections, draw_grid, draw_truth

NAMES = ["circle", "square", "triangle"]


def grey(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_a_box_is_drawn_in_its_class_color_where_it_is():
    image = grey()
    drawn = draw_detections(image, np.array([[40, 50, 90, 100, 0.9, 1]]), NAMES)
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    assert tuple(drawn[75, 40]) == tuple(drawn[75, 90]) == tuple(drawn[100, 60]) == class_color(1)
    assert (drawn[60:95, 45:85] == 128).all() and (drawn[105:] == 128).all()
    assert (drawn[35:49, 40:60] != 128).any()  # the label
    assert (image == 128).all()


def test_the_best_detection_lies_on_top():
    box = [40, 50, 90, 100]
    drawn = draw_detections(grey(), np.array([[*box, 0.9, 0], [*box, 0.3, 1]]), NAMES)
    assert tuple(drawn[75, 40]) == class_color(0)


def test_only_the_best_are_drawn():
    detections = np.array([[5, 60, 20, 100, 0.3, 0], [100, 60, 130, 100, 0.8, 1]])
    drawn = draw_detections(grey(), detections, NAMES, max_detections=1)
    assert (drawn[70:, :60] == 128).all() and tuple(drawn[80, 100]) == class_color(1)


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 500, 500],
        [0, 0, 159, 119],
        [150, 0, 159, 3],
        [300, 300, 400, 400],
        [10, 10, 10, 10],
        [1e9, -1e9, 1e12, 1e9],
        [np.nan, 0, 10, 10],
        [0, 0, np.inf, 10],
    ],
)
def test_any_box_in_any_image(box):
    for image in (grey(), grey(1, 1), grey(7, 300)):
        assert draw_detections(image, np.array([[*box, 0.5, 2]]), NAMES).shape == image.shape


def test_tensors_empty_input_views_and_unknown_classes():
    image = grey()
    assert np.array_equal(draw_detections(image, torch.zeros(0, 6), NAMES), image)
    row = [40, 50, 90, 100, 0.9, 1]
    drawn = draw_detections(image, torch.tensor([row], dtype=torch.bfloat16), NAMES)
    assert np.array_equal(drawn, draw_detections(image, [row], NAMES))
    assert draw_detections(image[:, ::-1], [[*row[:5], 17]], NAMES).shape == image.shape


def test_truth_is_drawn_without_score():
    drawn = draw_truth(grey(), np.array([[40, 50, 90, 100]]), np.array([2]), NAMES)
    assert tuple(drawn[75, 40]) == class_color(2)
    assert np.array_equal(draw_truth(grey(), np.zeros((0, 4)), np.zeros(0), NAMES), grey())


def test_colors_differ():
    assert len(set(PALETTE_RGB)) == len(PALETTE_RGB) and class_color(len(PALETTE_RGB)) == class_color(0)


def test_grid_holds_every_image_in_reading_order():
    images = [np.full((20 + i, 30, 3), 10 * (i + 1), np.uint8) for i in range(5)]
    grid = draw_grid(images)
    assert grid.shape == (2 * 24, 3 * 30, 3)
    for i in range(5):
        top, left = i // 3 * 24, i % 3 * 30
        assert (grid[top : top + 20 + i, left : left + 30] == 10 * (i + 1)).all()
    assert (grid[24:, 60:] == 114).all()


def test_grid_shrinks_large_images_alone():
    assert draw_grid([grey(1000, 500), grey(50, 40)], max_cell_px=100).shape == (100, 2 * 50, 3)
    with pytest.raises(ValueError, match="images: none given"):
        draw_grid([])


def test_a_small_image_is_enlarged_with_its_boxes():
    image = np.zeros((100, 80, 3), np.uint8)
    drawn = draw_detections(image, [[10, 60, 60, 90, 0.9, 0]], ["cat"], min_side_px=320)
    assert drawn.shape == (400, 320, 3)
    assert tuple(drawn[360, 150]) == class_color(0) and not drawn[300, 150].any(), "the frame lies four times as far out"
    assert draw_detections(image, [], ["cat"], min_side_px=100).shape == image.shape


def covered(image: np.ndarray, drawn: np.ndarray, box: list[int]) -> int:
    """Pixels within a box, its frame left out, that are not those of the image."""
    x1, y1, x2, y2 = box
    return int((image != drawn)[y1 + 4:y2 - 3, x1 + 4:x2 - 3].any(axis=2).sum())


@pytest.mark.parametrize("box", [
    [40, 50, 90, 100], [40, 0, 90, 60], [40, 60, 90, 119], [100, 40, 159, 119], [40, 0, 90, 119]], ids=[
    "room above", "room below alone", "room above alone", "right edge", "room beside alone"])
def test_a_text_does_not_cover_its_object_where_there_is_room(box):
    image = grey()
    drawn = draw_detections(image, [[*box, .9, 0]], NAMES)
    assert covered(image, drawn, box) == 0 and (drawn != image).any()


def test_a_text_covers_no_other_object_where_there_is_room():
    image = grey(200, 200)
    upper, lower = [50, 40, 150, 100], [50, 102, 150, 160]
    drawn = draw_detections(image, [[*upper, .9, 0], [*lower, .8, 1]], NAMES)
    assert covered(image, drawn, upper) == covered(image, drawn, lower) == 0


def test_texts_do_not_lie_on_each_other():
    image = grey(200, 300)
    boxes = [[50, 60, 120, 110], [52, 62, 122, 112], [54, 64, 124, 114]]
    drawn = draw_detections(image, [[*box, .9 - .1 * i, i] for i, box in enumerate(boxes)], NAMES)
    grounds = [(drawn == class_color(i)).all(axis=2).sum() for i in range(3)]
    alone = [(draw_detections(image, [[*box, .9, i]], NAMES) == class_color(i)).all(axis=2).sum() for i, box in enumerate(boxes)]
    assert all(found > 0.7 * whole for found, whole in zip(grounds, alone)), "nearly all of each text's ground is seen"


@pytest.mark.parametrize(("side_px", "min_side_px", "least", "most"), [(128, 480, 8, 20), (640, 0, 8, 20), (4000, 0, 40, 90)])
def test_texts_grow_with_the_image(side_px, min_side_px, least, most):
    """Height of a text's ground: legible at 128 px, where the picture is enlarged, and at 4000 px, seen as a whole."""
    image = grey(side_px, side_px)
    drawn = draw_detections(image, [[side_px * .3, side_px * .5, side_px * .6, side_px * .8, .9, 1]], NAMES, min_side_px=min_side_px)
    scale = len(drawn) / side_px
    column = drawn[:int(side_px * .5 * scale) - 2, int(side_px * .32 * scale)]
    assert least <= (column != 128).any(axis=1).sum() <= most
