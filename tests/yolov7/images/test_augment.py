"""Augmentation: boxes follow the pixels, and the generator decides everything."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yolov7.images import augment, mosaic, paste, warp
from yolov7.images.config import AugmentConfig
from yolov7.images.augment import augmented_sample, jitter_hsv, mixup
from yolov7.images.outlines import Outlines
from yolov7.images.sample import letterbox, Sample
from yolov7.images.tile import warp_objects

SIZE_PX = 96
STILL = AugmentConfig(
    mosaic=0, mixup=0, hsv_hue=0, hsv_saturation=0, hsv_value=0, translate=0, scale=0,
    flip_horizontal=0,
)


def painted(height: int, width: int, box_xyxy, label: int = 0, index: int = 0) -> Sample:
    """A grey image with one white rectangle, whose box is exact, and its outline."""
    image = np.full((height, width, 3), 114, np.uint8)
    x0, y0, x1, y1 = box_xyxy
    image[y0:y1, x0:x1] = 255
    ring = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
    return Sample(
        image=image,
        boxes_xyxy=np.array([box_xyxy], np.float32),
        labels=np.array([label]),
        iscrowd=np.array([False]),
        area=np.array([(x1 - x0) * (y1 - y0)], np.float32),
        polygons=[[ring]],
        image_id=index,
        file_name="",
        original_size_hw=(height, width),
    )


def reader(samples):
    """Random access to ready samples, with the reduced decoding of a real reader."""

    def read(index: int, reduce: int = 1) -> Sample:
        sample = samples[index]
        height, width = sample.image.shape[:2]
        blocks = sample.image[: height // reduce * reduce, : width // reduce * reduce]
        blocks = blocks.reshape(height // reduce, reduce, width // reduce, reduce, 3)
        return replace(sample, image=blocks.mean((1, 3)).astype(np.uint8))

    return read


def bounding_box(rings) -> np.ndarray:
    points = np.concatenate(rings)
    return np.concatenate([points.min(0), points.max(0)])


def extent_of_bright(image: np.ndarray) -> np.ndarray:
    """Box around everything brighter than the ground, sharp corners' tips included."""
    ys, xs = np.nonzero(image[:, :, 0] >= 125)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


GEOMETRIES = {
    "scale": dict(scale=0.5),
    "translate": dict(translate=0.3),
    "flips": dict(flip_horizontal=0.5, flip_vertical=0.5),
    "rotate": dict(rotate_degrees=180.0),
    "shear": dict(shear_degrees=20.0),
    "perspective": dict(perspective=0.002),
    "all": dict(scale=0.5, translate=0.2, flip_horizontal=0.5, flip_vertical=0.5,
                rotate_degrees=45.0, shear_degrees=10.0, perspective=0.001),
}


@pytest.mark.parametrize("tiles", [1, 4, 9])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(24, 72), st.integers(24, 72), st.booleans())
@example(1094, 24, 47, False)  # with perspective: cut by the upper edge to a wedge 5 px high
def test_box_follows_the_painted_rectangle(geometry, tiles, seed, height, width, sizes_known):
    height, width = height * 8, width * 8  # the reduced decoding of this test needs whole blocks
    box = (width // 4, height // 4, width * 3 // 4, height // 2)
    target = painted(height, width, box)
    blank = replace(target.select(np.array([False])), image=np.full_like(target.image, 114))
    config = replace(STILL, mosaic=tiles > 1, mosaic_nine=tiles == 9, **GEOMETRIES[geometry])
    sample = augmented_sample(
        reader([blank if tiles > 1 else target, target] + [blank] * 7), range(1, tiles), 0, 2 * SIZE_PX, config,
        np.random.default_rng(seed), size_hw=(lambda i: (height, width)) if sizes_known else None,
    )
    for label_box in sample.boxes_xyxy:
        x0, y0, x1, y1 = np.rint(label_box).astype(int)
        inside = sample.image[max(y0, 0) : y1, max(x0, 0) : x1]
        sides = label_box[2:] - label_box[:2]
        is_cut = label_box.min() <= 0 or label_box.max() >= 2 * SIZE_PX  # then its tip may be thinner than a pixel
        tip = 0.5 * sides.max() / sides.min() if is_cut else 0
        assert np.abs(extent_of_bright(inside) + [x0, y0, x0, y0] - label_box).max() <= 2 + tip
    if len(sample.labels) == 1 and tiles == 1:
        assert np.abs(extent_of_bright(sample.image) - sample.boxes_xyxy[0]).max() <= 2


CONFIGS = st.builds(
    AugmentConfig,
    mosaic=st.sampled_from([0, 0.5, 1]),
    mosaic_nine=st.sampled_from([0, 1]),
    mixup=st.sampled_from([0, 1]),
    rotate_degrees=st.floats(0, 180),
    translate=st.floats(0, 1),
    scale=st.floats(0, 0.95),
    shear_degrees=st.floats(0, 30),
    perspective=st.floats(0, 0.003),
    flip_vertical=st.sampled_from([0, 0.5]),
    paste_in=st.sampled_from([0, 1]),
    copy_paste=st.sampled_from([0, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(CONFIGS, st.integers(0, 2**32), st.booleans(), st.booleans())
def test_boxes_inside_columns_aligned_and_same_generator_same_result(
    config, seed, outlined, sizes_known
):
    random = np.random.default_rng(seed)
    samples = []
    for label in range(5):
        height, width = random.integers(3, 20, 2) * 8
        corner = random.integers(0, (width - 8, height - 8))
        size = random.integers(4, (width, height) - corner)
        one = painted(height, width, (*corner, *(corner + size)), label, label)
        samples.append(one if outlined else replace(one, polygons=None))
    size_hw = (lambda i: samples[i].original_size_hw) if sizes_known else None

    def draw():
        generator = np.random.default_rng(seed)
        return augmented_sample(reader(samples), range(5), 2, SIZE_PX, config, generator, size_hw)

    sample, again = draw(), draw()
    boxes, n = sample.boxes_xyxy, len(sample.labels)
    assert sample.image.shape == (SIZE_PX, SIZE_PX, 3) and sample.image.dtype == np.uint8
    assert boxes.shape == (n, 4) and boxes.dtype == np.float32 and np.isfinite(boxes).all()
    assert len(sample.area) == len(sample.iscrowd) == n
    assert (boxes >= 0).all() and (boxes <= SIZE_PX).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides > 2).all() and (sides.max(1, initial=0) < 20.001 * sides.min(1, initial=99)).all()
    if outlined and n:
        assert len(sample.polygons) == n
    assert np.array_equal(sample.image, again.image)
    assert np.array_equal(boxes, again.boxes_xyxy)
    assert np.array_equal(sample.labels, again.labels)


@pytest.mark.parametrize("size_hw", [(72, 96), (96, 72), (50, 75), (200, 311), (107, 160)])
def test_identity_is_letterboxing(size_hw):
    noise = np.random.default_rng(3).integers(0, 256, (*size_hw, 3), np.uint8)
    original = replace(painted(*size_hw, (8, 8, 40, 32)), image=noise)
    sample = augmented_sample(
        lambda index: original, [], 0, SIZE_PX, STILL, np.random.default_rng(0)
    )
    expected, fit = letterbox(noise, (SIZE_PX, SIZE_PX))
    assert np.array_equal(sample.image, expected)
    assert sample.boxes_xyxy == pytest.approx(fit.to_letterboxed(original.boxes_xyxy), abs=0.5)
    assert sample.labels.tolist() == [0]


class Centred:
    """A generator that draws partners in their order, 0 where it draws a part, and the middle of ranges."""

    def choice(self, available, count, replace):
        return np.arange(count)

    def random(self):
        return 0.0

    def uniform(self, low, high, size=None):
        return np.full(size, (low + high) / 2) if size else (low + high) / 2


def coloured(sizes_hw) -> list[Sample]:
    """Samples of one grey each, 20 * i + 20, with a box 8 px from every border."""
    return [
        replace(painted(h, w, (8, 8, w - 8, h - 8), i, i), image=np.full((h, w, 3), 20 * i + 20, np.uint8))
        for i, (h, w) in enumerate(sizes_hw)
    ]


def test_mosaic_shows_four_tiles_meeting_in_one_point():
    samples = coloured([(64, 64)] * 4)
    config = replace(STILL, mosaic=1, scale=0.0)
    sample = augmented_sample(lambda i: samples[i], range(1, 4), 0, 64, config, Centred())
    quadrants = [sample.image[:32, :32], sample.image[:32, 32:], sample.image[32:, :32]]
    quadrants.append(sample.image[32:, 32:])
    for i, quadrant in enumerate(quadrants):
        assert (quadrant == 20 * i + 20).all()
    assert sample.labels.tolist() == [0, 1, 2, 3]
    assert sample.boxes_xyxy.tolist() == [
        [0, 0, 24, 24], [40, 0, 64, 24], [0, 40, 24, 64], [40, 40, 64, 64],
    ]


def test_mosaic_of_nine_surrounds_the_first():
    samples = coloured([(32, 32)] + [(64, 64)] * 8)
    config = replace(STILL, mosaic=1, mosaic_nine=1)
    sample = augmented_sample(lambda i: samples[i], range(1, 9), 0, 64, config, Centred())
    assert sample.labels.tolist() == [0]  # the first fills the view, its neighbours are cut off
    assert (sample.image == 20).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 64), st.integers(8, 64)), min_size=9, max_size=9))
def test_no_tile_of_nine_covers_another(sizes_hw):
    places = mosaic.places_of_nine(sizes_hw, np.array([100.0, 80.0]))
    boxes = np.array([[*place, *(place + size[::-1])] for place, size in zip(places, sizes_hw)])
    assert boxes[0, :2].tolist() == [100, 80]
    for i, box in enumerate(boxes):
        others = np.delete(boxes, i, 0)
        assert warp.areas(warp.clip_boxes(others, box)).max() == 0
        touching = np.maximum(others[:, :2], box[:2]) <= np.minimum(others[:, 2:], box[2:])
        assert touching.all(1).any()  # no tile stands alone


def test_share_of_mosaics_of_nine():
    drawn = []
    config = replace(STILL, mosaic=1, mosaic_nine=0.2, scale=0.9)

    def size_hw(index):
        drawn.append(index)
        return 64, 64

    tile = painted(64, 64, (8, 8, 40, 40))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        augmented_sample(lambda i, reduce: tile, range(1, 99), 0, 32, config, rng, size_hw)
    counts = np.diff([*np.flatnonzero(np.array(drawn) == 0), len(drawn)])
    assert set(counts) == {4, 9} and 25 <= (counts == 9).sum() <= 55


def test_partners_of_a_mosaic_differ_where_there_are_enough():
    reads = []

    def read(index):
        reads.append(index)
        return painted(64, 64, (8, 8, 40, 40))

    for partners, expected in ((range(1, 4), {4}), ([7], {2}), ([], {1})):
        for seed in range(10):
            reads.clear()
            augmented_sample(read, partners, 0, 32, replace(STILL, mosaic=1), np.random.default_rng(seed))
            assert reads[0] == 0 and len(reads) == 4 and {len(set(reads))} == expected


def test_tiles_out_of_view_are_not_read():
    reads = []

    def read(index, reduce=1):
        reads.append(reduce)
        return painted(480, 640, (100, 100, 300, 300))

    config = replace(STILL, mosaic=1, scale=0.9, translate=0.2)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        augmented_sample(read, range(9), seed % 9, SIZE_PX, config, rng, lambda i: (480, 640))
    assert len(reads) < 150  # of 160
    assert {4, 8} <= set(reads) and 1 not in reads  # 640 px shown within 96 x 1.9


def test_crowds_are_no_targets():
    crowd = replace(painted(64, 64, (8, 8, 40, 40)), iscrowd=np.array([True]))
    sample = augmented_sample(lambda i: crowd, [], 0, 64, STILL, np.random.default_rng(0))
    assert len(sample.labels) == 0


@pytest.mark.parametrize(
    "box, kept",
    [
        ((10, 10, 13, 13), True),
        ((10, 10, 12, 40), False),  # two pixels wide
        ((5, 10, 64, 13), True),  # aspect ratio 19.7
        ((1, 10, 64, 13), False),  # aspect ratio 21
        ((-17, 10, 3, 30), True),  # 15 % inside
        ((-37, 10, 3, 30), False),  # 7.5 % inside
        ((70, 10, 90, 30), False),
    ],
)
def test_filter_after_warp(box, kept):
    sample = replace(painted(64, 64, (0, 0, 9, 9)), boxes_xyxy=np.array([box], np.float32))
    sample = replace(sample, polygons=None)
    warped = warp_objects(sample, np.eye(3), np.array([-99, -99, 99, 99]), (64, 64))
    assert (len(warped.labels) == 1) is kept


def cut_at_the_left(parts, outlined, magnify: float = 1.0) -> list[bool]:
    """Which of these parts of an object 200 x 30 px, left in view at the left border, keep it."""
    kept = []
    for part in parts:
        x1 = 200 * part
        box = np.array([[x1 - 200, 10, x1, 40]], np.float32)
        ring = box[0][[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
        sample = replace(painted(64, 64, (0, 0, 9, 9)), boxes_xyxy=box, polygons=[[ring]] if outlined else None)
        view = warp.scaling(magnify, magnify)
        kept.append(len(warp_objects(sample, view, np.array([-999, -999, 999, 999]), (256, 256)).labels) == 1)
    return kept


@pytest.mark.parametrize("magnify", [1.0, 2.5])
def test_an_outlined_object_stays_while_a_hundredth_is_visible_any_other_while_a_tenth_is(magnify):
    assert cut_at_the_left((0.012, 0.05, 0.09, 0.11), outlined=True, magnify=magnify) == [True] * 4
    assert cut_at_the_left((0.012, 0.05, 0.09, 0.11), outlined=False, magnify=magnify) == [False] * 3 + [True]


def test_one_object_without_outline_asks_a_tenth_of_all():
    cut = replace(painted(64, 64, (0, 0, 9, 9)), boxes_xyxy=np.array([[-95, 10, 5, 40]], np.float32))
    cut = replace(cut, polygons=[[np.array([[-95, 10], [5, 10], [5, 40], [-95, 40]], np.float32)]])
    both = replace(cut, boxes_xyxy=np.repeat(cut.boxes_xyxy, 2, 0), labels=np.zeros(2, int), area=np.ones(2),
                   iscrowd=np.zeros(2, bool), polygons=[*cut.polygons, []])
    crop = np.array([-99, -99, 99, 99])
    assert len(warp_objects(cut, np.eye(3), crop, (64, 64)).labels) == 1  # 5 % of it
    assert len(warp_objects(both, np.eye(3), crop, (64, 64)).labels) == 0
    crowded = replace(both, iscrowd=np.array([False, True]))
    assert len(warp_objects(crowded, np.eye(3), crop, (64, 64)).labels) == 1  # crowds do not count


def test_what_is_left_is_compared_with_the_part_that_the_mosaic_shows():
    sample = replace(painted(64, 64, (0, 0, 9, 9)), boxes_xyxy=np.array([[0, 10, 100, 40]], np.float32), polygons=None)
    warped = warp_objects(sample, np.eye(3), np.array([0, 0, 8, 64]), (64, 64))
    assert warped.boxes_xyxy.tolist() == [[0, 10, 8, 40]]  # 8 % of the object, but all of its part in the mosaic


def test_outline_gives_a_tighter_box_than_the_turned_box():
    diamond = np.array([[32, 12], [52, 32], [32, 52], [12, 32]], np.float32)
    sample = replace(painted(64, 64, (12, 12, 52, 52)), polygons=[[diamond]])
    turn = warp.translation(32, 32) @ warp.rotation(45) @ warp.translation(-32, -32)
    crop = np.array([0, 0, 64, 64])
    tight = warp_objects(sample, turn, crop, (64, 64)).boxes_xyxy[0]
    loose = warp_objects(replace(sample, polygons=None), turn, crop, (64, 64)).boxes_xyxy[0]
    assert tight == pytest.approx(32 + np.array([-1, -1, 1, 1]) * 20 / 2**0.5, abs=1e-3)
    assert loose == pytest.approx(32 + np.array([-1, -1, 1, 1]) * 20 * 2**0.5, abs=1e-3)


def test_outlines_clip_each_ring_by_itself():
    triangle = np.array([[-10.0, 0.0], [10.0, 0.0], [0.0, 20.0]], np.float32)
    square = np.array([[50, 2], [60, 2], [60, 8], [50, 8]], np.float32)
    polygons = [[triangle, square], [], [triangle + 900], [square]]
    outlines = Outlines.of(polygons).clipped((0, 0, 99, 10))
    none = np.full((4, 4), -1.0)
    assert outlines.boxes_xyxy(none).tolist() == [[0, 0, 60, 10], [-1] * 4, [-1] * 4, [50, 2, 60, 8]]
    rings = outlines.polygons(4)
    assert [len(of_object) for of_object in rings] == [2, 0, 0, 1]
    assert np.array_equal(rings[3][0], square) and rings[0][0].dtype == np.float32
    assert sorted(rings[0][0].tolist()) == [[0, 0], [0, 10], [5, 10], [10, 0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(3, 9))
def test_outlines_of_convex_rings_cut_like_boxes(seed, num_rings, num_corners):
    """A ring of a box's corners and points on its sides is cut exactly as the box is."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(-50, 150, (num_rings, 2, 2)), 1).reshape(-1, 4)
    frame = np.array([0.0, 0.0, 100.0, 80.0])
    rings = []
    for x0, y0, x1, y1 in corners:
        cuts = np.sort(rng.uniform(x0, x1, num_corners))
        rings.append(np.array([[x0, y0], *[[x, y0] for x in cuts], [x1, y0], [x1, y1], [x0, y1]]))
    outlines = Outlines.of([[ring] for ring in rings]).clipped(frame)
    inside = warp.clip_boxes(corners, frame)
    boxes = outlines.boxes_xyxy(inside)
    seen = warp.areas(inside) > 1e-6
    assert boxes[seen] == pytest.approx(inside[seen])


def test_mixup_blends_and_keeps_both_objects():
    first, second = painted(64, 64, (0, 0, 32, 32), 3), painted(64, 64, (32, 32, 64, 64), 4)
    mixed = mixup(first, second, 0.25)
    assert mixed.labels.tolist() == [3, 4] and len(mixed.polygons) == 2
    assert np.abs(mixed.image[0, 0].astype(int) - (0.25 * 255 + 0.75 * 114)).max() <= 1
    assert np.abs(mixed.image[-1, -1].astype(int) - (0.75 * 255 + 0.25 * 114)).max() <= 1


def test_hsv_changes_colour_but_not_grey_hue():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    rng = np.random.default_rng(0)
    dimmed = jitter_hsv(ramp, AugmentConfig(hsv_hue=0.4, hsv_value=0, hsv_saturation=0.5), rng)
    assert np.array_equal(dimmed, ramp)  # grey has neither hue nor saturation
    colours = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    jittered = jitter_hsv(colours, AugmentConfig(), rng)
    assert not np.array_equal(jittered, colours)
    value = colours.max(2).astype(float)
    gain = jittered.max(2)[value > 60] / value[value > 60]
    unclipped = gain[jittered.max(2)[value > 60] < 255]
    assert unclipped.std() < 0.02 and 0.6 <= unclipped.mean() <= 1.4


def test_hue_wraps_around_the_circle():
    violet = np.full((4, 4, 3), (255, 0, 10), np.uint8)  # hue 358 degrees
    config = AugmentConfig(hsv_hue=0.4, hsv_saturation=0, hsv_value=0)
    for seed in range(20):
        gain = 1 + np.random.default_rng(seed).uniform(-1, 1, 3)[0] * 0.4
        turned = jitter_hsv(violet, config, np.random.default_rng(seed))[0, 0].astype(float)
        expected = np.array(colorsys.hsv_to_rgb(357.6 * gain / 360 % 1, 1, 1)) * 255
        assert np.abs(turned - expected).max() <= 6


def ground(size_px: int) -> Sample:
    """A grey image without objects."""
    empty = painted(size_px, size_px, (0, 0, 9, 9)).select(np.array([False]))
    return replace(empty, image=np.full((size_px, size_px, 3), 114, np.uint8))


def test_paste_in_shows_the_object_at_its_box():
    donor = replace(painted(64, 64, (8, 8, 40, 24), label=5), polygons=None)
    for seed in range(10):
        bare = replace(ground(96), polygons=None)
        pasted = paste.paste_in(bare, [paste.Donated(donor, 0)], np.random.default_rng(seed))
        assert (pasted.labels == 5).all() and len(pasted.area) == len(pasted.labels) == len(pasted.boxes_xyxy)
        sides = pasted.boxes_xyxy[:, 2:] - pasted.boxes_xyxy[:, :2]
        assert (sides > 10).all() and np.abs(sides[:, 0] - 2 * sides[:, 1]).max(initial=0) <= 2  # aspect kept
        bright = np.zeros((96, 96), bool)
        for x0, y0, x1, y1 in pasted.boxes_xyxy.astype(int):
            bright[y0:y1, x0:x1] = True
        assert np.array_equal(pasted.image[:, :, 0] == 255, bright)


def test_paste_in_cuts_along_the_longest_ring():
    donor, box = painted(64, 64, (8, 8, 40, 40)), [[36, 36], [40, 36], [36, 40]]
    triangle = np.array([[8, 8], [24, 8], [40, 8], [8, 40]], np.float32)
    outlined = replace(donor, polygons=[[np.array(box, np.float32), triangle]])
    pasted = paste.paste_in(ground(96), [paste.Donated(outlined, 0)], np.random.default_rng(1))
    areas = warp.areas(pasted.boxes_xyxy)
    assert len(areas) > 0 and (pasted.image[:, :, 0] == 255).sum() == pytest.approx(areas.sum() / 2, rel=0.15)
    for rings, box in zip(pasted.polygons, pasted.boxes_xyxy):
        assert len(rings) == 1 and bounding_box(rings) == pytest.approx(box, abs=1)


def test_paste_in_hides_nothing():
    nearly = replace(painted(64, 64, (0, 0, 64, 64), label=1), boxes_xyxy=np.array([[16, 16, 48, 48]], np.float32))
    large = paste.Donated(painted(64, 64, (2, 2, 62, 62), label=2), 0)
    for seed in range(20):
        boxes = paste.paste_in(nearly, [large], np.random.default_rng(seed)).boxes_xyxy
        for i, box in enumerate(boxes[1:], 1):
            assert not paste.hides_too_much(boxes[:i], box)


def test_slots_of_paste_in_are_those_of_the_reference():
    """20 slots at 640 px, each with probability 0.8; sides uniform from 1 to 480, 320, 160, 80 and 40 px."""
    rng = np.random.default_rng(0)
    drawn = [paste._slots_xyxy(640, 640, rng) for _ in range(4000)]
    counts = np.array([len(slots) for slots in drawn])
    assert counts.mean() == pytest.approx(16, abs=0.15) and counts.var() == pytest.approx(20 * 0.8 * 0.2, rel=0.1)
    slots = np.concatenate(drawn)
    inside = (slots[:, 0] > 0) & (slots[:, 2] < 640)  # not clipped
    assert (slots[:, 2] - slots[:, 0])[inside].max() <= 480 and slots.min() == 0 and slots.max() == 640
    sides = (slots[:, 2:] - slots[:, :2]).min(1)
    larger = [(1 - 20 / most) ** 2 for most in (480, 320, 160, 80, 40)]  # both sides above 20 px
    expected = 0.8 * np.dot((2, 4, 4, 4, 6), larger)  # 9.73
    assert (sides > 20).sum() / len(drawn) == pytest.approx(expected, abs=0.15)


def test_paste_in_chooses_among_half_of_the_objects_of_several_images():
    reads = []

    def read(index):
        reads.append(index)
        sample = painted(64, 64, (8, 8, 40, 40), label=index)
        return replace(sample, **{key: np.repeat(getattr(sample, key), 5, 0)
                                  for key in ("boxes_xyxy", "labels", "iscrowd", "area")}, polygons=None)

    source = augment._SampleSource(read, range(1, 99), None)
    donated = augment._donated_objects(source, 0, 64, np.random.default_rng(0))
    # four images of 5 objects give 10 at a time
    assert len(donated) == 30 and len(reads) == len(set(reads)) == 12 and 0 not in reads
    alone = augment._SampleSource(read, [], None)
    assert len(augment._donated_objects(alone, 7, 64, np.random.default_rng(0))) == 3


def magnifications(spread: float, count: int = 20_000) -> np.ndarray:
    config, rng = replace(STILL, scale=spread), np.random.default_rng(0)
    return np.array([augment.random_view(128, 64, config, rng)[0, 0] for _ in range(count)])


@pytest.mark.parametrize("spread", [0.5, 0.9])
def test_magnification_is_uniform_from_1_less_to_1_1_more(spread):
    drawn, width = magnifications(spread), 0.1 + 2 * spread
    assert 1 - spread <= drawn.min() <= 1.001 - spread and 1.099 + spread <= drawn.max() <= 1.1 + spread
    assert drawn.mean() == pytest.approx(1.05, abs=4 * width / 12**0.5 / len(drawn) ** 0.5)
    assert drawn.var() == pytest.approx(width**2 / 12, rel=0.03)


def test_without_scale_nothing_is_magnified():
    assert (magnifications(0.0, 10) == 1).all() and AugmentConfig(scale=0.0).magnification_range == (1, 1)


def test_copy_paste_mirrors():
    sample = painted(64, 64, (4, 8, 20, 24), label=6)
    doubled = paste.copy_paste(sample, 1.0, np.random.default_rng(0))
    assert doubled.labels.tolist() == [6, 6]
    assert doubled.boxes_xyxy.tolist() == [[4, 8, 20, 24], [44, 8, 60, 24]]
    assert (doubled.image[8:24, 44:60] == 255).all() and (sample.image[8:24, 44:60] == 114).all()
    assert bounding_box(doubled.polygons[1]).tolist() == [44, 8, 60, 24]


@pytest.mark.parametrize(
    "name, value", [("mosaic", 1.5), ("scale", 1.0), ("flip_horizontal", -0.1), ("hsv_value", 2), ("hsv_hue", 0.5),
     ("mosaic_nine", 2), ("partner_window", 3)]
)
def test_bad_config_is_named(name, value):
    with pytest.raises(ValueError, match=f"augment.{name}: {value}"):
        AugmentConfig(**{name: value})
