"""Decoding, dataset rows and letterboxing."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolov7.images.sample import area_resize, decode_image, letterbox, read_sample, reduction, shrunk, Letterbox

LETTERBOX_GOLDENS = json.loads(
    (Path(__file__).parents[2] / "goldens" / "letterbox.json").read_text()
)


def gradient(height: int, width: int) -> np.ndarray:
    """A smooth colour image, which survives JPEG nearly unchanged."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], 2).astype(
        np.uint8
    )


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def row(**changes) -> dict:
    """A dataset row of a 40x30 image with two objects."""
    values = dict(
        image=encoded(Image.fromarray(gradient(30, 40)), "PNG"),
        height_px=30,
        width_px=40,
        boxes_xyxy=[[1, 2, 11, 22], [0, 0, 40, 30]],
        labels=[3, 1],
        iscrowd=[False, True],
        area=[150.0, 1200.0],
        polygons=[[[1, 2, 11, 2, 11, 22]], None],
        image_id=7,
        file_name="a.png",
    )
    return values | changes


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats_decode_to_rgb(format):
    image = gradient(48, 64)
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    decoded = decode_image(encoded(Image.fromarray(image), format, **options))
    assert decoded.shape == (48, 64, 3) and decoded.dtype == np.uint8
    tolerance = {"JPEG": 12, "WEBP": 12, "GIF": 40}.get(format, 0)
    assert np.abs(decoded.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1"])
def test_modes_decode_to_rgb(mode):
    image = Image.fromarray(gradient(48, 64)).convert(mode)
    expected = np.asarray(Image.fromarray(gradient(48, 64)).convert(mode).convert("RGB"))
    assert np.abs(decode_image(encoded(image, "PNG")).astype(int) - expected).max() <= 1


def test_cmyk_decodes_to_rgb():
    image = Image.fromarray(gradient(48, 64)).convert("CMYK")
    decoded = decode_image(encoded(image, "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - gradient(48, 64)).mean() < 6


def test_sixteen_bits_decode_to_eight():
    image = gradient(48, 64)
    data = cv2.imencode(".png", image[:, :, ::-1].astype(np.uint16) * 257)[1]
    assert np.array_equal(decode_image(data), image)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_reduced_decoding_shows_the_same_picture(format, reduce):
    data = encoded(Image.fromarray(gradient(64, 96)), format)
    decoded = decode_image(data, reduce)
    assert decoded.shape == (64 // reduce, 96 // reduce, 3)
    expected = cv2.resize(gradient(64, 96), decoded.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image(data):
    with pytest.raises(ValueError, match="no image that can be decoded"):
        decode_image(data)


def test_impossible_reduction():
    with pytest.raises(ValueError, match="reduce=3 is not possible; choose 1, 2, 4 or 8"):
        decode_image(b"", 3)


def test_row_becomes_sample():
    sample = read_sample(**row())
    assert np.array_equal(sample.image, gradient(30, 40))
    assert sample.boxes_xyxy.dtype == np.float32 and sample.boxes_xyxy.shape == (2, 4)
    assert sample.labels.tolist() == [3, 1] and sample.labels.dtype == np.int64
    assert sample.iscrowd.tolist() == [False, True] and sample.area.tolist() == [150, 1200]
    assert sample.polygons[0][0].tolist() == [[1, 2], [11, 2], [11, 22]]
    assert sample.polygons[1] == []
    assert (sample.image_id, sample.file_name) == (7, "a.png")
    assert sample.original_size_hw == (30, 40)


def test_row_without_objects():
    empty = dict(boxes_xyxy=[], labels=[], iscrowd=[], area=[], polygons=None)
    assert read_sample(**row(**empty)).boxes_xyxy.shape == (0, 4)


def test_reduced_row_keeps_boxes_in_full_pixels():
    sample = read_sample(**row(reduce=2))
    assert sample.image.shape == (15, 20, 3)
    assert sample.original_size_hw == (30, 40)
    assert sample.boxes_xyxy[1].tolist() == [0, 0, 40, 30]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(image=b"junk"), "a.png: .*no image"),
        (dict(width_px=41), "a.png: the image is 40x30 px as displayed, by its row 41x30 px"),
        (dict(labels=[1]), r"a.png: .* lengths \[1, 2\]"),
    ],
)
def test_bad_rows_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_sample(**row(**changes))


def test_select_keeps_columns_aligned():
    kept = read_sample(**row()).select(np.array([False, True]))
    assert kept.labels.tolist() == [1] and kept.area.tolist() == [1200]
    assert kept.iscrowd.tolist() == [True] and kept.polygons == [[]]
    assert kept.boxes_xyxy.tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize("golden", LETTERBOX_GOLDENS)
def test_letterbox_equals_golden(golden):
    image = np.random.default_rng(3).integers(0, 256, (*golden["shape_hw"], 3), np.uint8)
    size_hw = tuple(golden["out_shape"][:2])
    boxed, fit = letterbox(image, size_hw, scale_up=golden["scaleup"])
    assert boxed.shape == tuple(golden["out_shape"])
    assert fit.scale == pytest.approx(golden["ratio_wh"][0])
    assert [fit.pad_x, fit.pad_y] == golden["pad_wh"]
    x0, y0, x1, y1 = golden["content_box_xyxy"]
    outside = boxed.copy()
    outside[y0:y1, x0:x1] = 114
    assert (outside == 114).all() and (boxed[y0:y1, x0:x1] != 114).any(2).mean() > 0.99
    assert int(boxed.sum()) == pytest.approx(golden["pixel_sum"], rel=2e-5)
    boxes = np.array(golden["scale_coords_in"])
    assert fit.to_original(boxes) == pytest.approx(
        np.array(golden["scale_coords_ratio_pad"]), abs=1e-3
    )


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(16, 128), st.integers(16, 128),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_letterbox_boxes_round_trip(height, width, out_height, out_width, corners):
    _, fit = letterbox(np.zeros((height, width, 3), np.uint8), (out_height, out_width))
    x, y = sorted(corners[:2]), sorted(corners[2:])
    box = np.array([[x[0] * width, y[0] * height, x[1] * width, y[1] * height]], np.float32)
    there = fit.to_letterboxed(box)
    assert (there >= -1).all() and (there <= [out_width + 1, out_height + 1] * 2).all()
    assert fit.to_original(there) == pytest.approx(box, abs=1e-3 * max(height, width))


def test_to_original_clips():
    fit = Letterbox(0.5, 10.0, 0.0, (20, 30))
    assert fit.to_original(np.array([[0, -5, 100, 100]])).tolist() == [[0, 0, 30, 20]]


@pytest.mark.parametrize("size_hw", [(64, 48), (61, 47)])
def test_shrinking_is_like_reduced_decoding(size_hw):
    data = encoded(Image.fromarray(gradient(*size_hw)), "JPEG", quality=95)
    for factor in (2, 4, 8):
        small, expected = shrunk(decode_image(data), factor), decode_image(data, factor)
        assert small.shape == expected.shape
        assert np.abs(small.astype(int) - expected).max() <= 12


def test_reduction_leaves_a_pixel_for_every_pixel():
    assert [reduction(scale) for scale in (3, 1, 0.6, 0.5, 0.26, 0.25, 0.125, 0.01)] == [1, 1, 1, 2, 2, 4, 8, 8]


def test_letterbox_on_a_larger_ground():
    image = gradient(30, 40)
    small, _ = letterbox(image, (64, 64))
    large, fit = letterbox(image, (64, 64), canvas_hw=(64, 96))
    assert large.shape == (64, 96, 3) and (fit.pad_x, fit.pad_y) == (16, 8)
    assert np.array_equal(large[:, 16:80], small) and (large[:, :16] == 114).all()


def test_area_resize_averages_every_pixel_where_bilinear_skips_some():
    """8 px to 2: the means of four, derived by hand; two points between the middle pixels would say 0."""
    row = np.array([40, 0, 0, 80, 255, 0, 0, 1], np.uint8)  # means 30 and 64
    image = np.broadcast_to(row[None, :, None], (8, 8, 3)).copy()
    assert area_resize(image, 2)[:, :, 0].tolist() == [[30, 64], [30, 64]]
    assert letterbox(image, (2, 2))[0][:, :, 0].tolist() == [[0, 0], [0, 0]]


def test_area_resize_weighs_pixels_by_their_part():
    """3 px to 2: a new pixel is 1.5 old ones, (60 + 30 / 2) / 1.5 = 50 and (30 / 2 + 90) / 1.5 = 70."""
    image = np.broadcast_to(np.array([60, 30, 90], np.uint8)[None, :, None], (3, 3, 3)).copy()
    assert area_resize(image, 2)[:, :, 0].tolist() == [[50, 70], [50, 70]]


def test_area_resize_enlarges_bilinearly():
    """2 px to 4: new centres at -1/4, 1/4, 3/4 and 5/4, so 0, a quarter of 100, three quarters, 100."""
    image = np.broadcast_to(np.array([0, 100], np.uint8)[None, :, None], (2, 2, 3)).copy()
    assert area_resize(image, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    assert area_resize(image, 2) is image


@pytest.mark.parametrize("size_hw, longer_px, expected_hw", [
    ((77, 100), 32, (24, 32)),  # 24.64
    ((427, 640), 320, (213, 320)),  # 213.5, which rounds to 214
    ((375, 500), 640, (480, 640)),
    ((333, 500), 640, (426, 640)),  # 426.24
    ((1, 500), 100, (1, 100)),  # 0.2
])
def test_area_resize_truncates_sizes(size_hw, longer_px, expected_hw):
    assert area_resize(np.zeros((*size_hw, 3), np.uint8), longer_px).shape[:2] == expected_hw
