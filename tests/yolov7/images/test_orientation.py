"""The picture as displayed: every orientation of every format, its boxes, and headers that are damaged."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from yolov7.images.orientation import displayed_size_hw, read_orientation, upright, upright_boxes, upright_points
from yolov7.images.sample import decode_image, read_sample

ORIENTATIONS = range(1, 9)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
FORMATS = LOSSLESS | {"JPEG": {"quality": 95, "subsampling": 0}, "MPO": {"quality": 95}}


def picture(height: int = 37, width: int = 53) -> np.ndarray:
    """(H, W, 3) RGB: smooth, and different in each corner."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 60 + 0 * x], axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, file_format: str, orientation: int, **options) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, file_format, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("reduce", [1, 2, 4])
def test_decoded_as_displayed(file_format, orientation, reduce):
    data = encoded(picture(), file_format, orientation, **FORMATS[file_format])
    displayed = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode_image(data, reduce)
    assert read_orientation(data) == orientation
    height, width = displayed_size_hw((37, 53), orientation)
    assert decoded.shape == (-(-height // reduce), -(-width // reduce), 3) and displayed.shape == (height, width, 3)
    if reduce == 1 and file_format in LOSSLESS:
        np.testing.assert_array_equal(decoded, displayed)
    small = cv2.resize(displayed, decoded.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - small).mean() < 6


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", None])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_compressed_tiff(orientation, compression):
    data = encoded(picture(), "TIFF", orientation, compression=compression)
    expected = upright(picture(), orientation)
    assert np.abs(decode_image(data).astype(int) - expected).mean() < 6


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_points_and_boxes_stay_on_what_they_marked(orientation):
    boxes = np.array([[3, 5, 10, 9], [20, 0, 53, 30]], float)
    stored = np.zeros((37, 53, 2), np.uint8)
    for layer, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        stored[y1:y2, x1:x2, layer] = 1
    displayed = upright(stored, orientation)
    for layer, (x1, y1, x2, y2) in enumerate(upright_boxes(boxes, (37, 53), orientation).astype(int)):
        inside = displayed[y1:y2, x1:x2, layer]
        assert inside.all() and inside.size == displayed[..., layer].sum()
    corners = upright_points(boxes[:, :2], (37, 53), orientation)
    assert ((corners >= 0) & (corners <= displayed.shape[1::-1])).all()
    assert boxes.tolist() == [[3, 5, 10, 9], [20, 0, 53, 30]], "the caller's array is its own"


def test_a_box_of_negative_width_stays_one():
    """Ingest drops and counts it; turned it must not become a sound one."""
    assert upright_boxes(np.array([[9.0, 2, 4, 6]]), (10, 20), 6).tolist() == [[4, 9, 8, 4]]


def test_no_tag_no_turn():
    for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(picture()).save(buffer, file_format)
        assert read_orientation(buffer.getvalue()) == 1


@pytest.mark.parametrize("value", [0, 9, 274, 65535])
def test_values_that_are_no_orientation(value):
    assert read_orientation(encoded(picture(), "JPEG", value)) == 1


@pytest.mark.parametrize("file_format", FORMATS)
def test_cut_and_flipped_headers_are_upright_at_worst(file_format):
    """Any buffer answers with one of the eight, and quickly."""
    data = encoded(picture(), file_format, 6, **FORMATS[file_format])
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data[:random.integers(0, len(data))])
        for position in random.integers(0, max(1, min(len(broken), 200)), 4):
            if broken:
                broken[position] = random.integers(0, 256)
        assert read_orientation(bytes(broken)) in ORIENTATIONS


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I")])
def test_either_byte_order_and_every_type(order, kind, code):
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(order + code, 8).ljust(4, b"\0")
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    segment = b"Exif\0\0" + tiff
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + b"\xff\xda"
    assert read_orientation(tiff) == read_orientation(jpeg) == read_orientation(memoryview(jpeg)) == 8


def test_a_row_of_the_stored_frame_is_refused_at_every_scale():
    """As version 0.1 wrote them: never boxes of one frame on pixels of the other."""
    row = dict(image=encoded(picture(), "JPEG", 6), height_px=37, width_px=53, boxes_xyxy=[], labels=[], iscrowd=[],
               area=[], image_id=0, file_name="a.jpg")
    for reduce in (1, 2):
        with pytest.raises(ValueError, match=r"a.jpg: .* as displayed \(EXIF orientation 6\).*overwrite: true"):
            read_sample(**row, reduce=reduce)
    assert read_sample(**row | {"height_px": 53, "width_px": 37}).image.shape == (53, 37, 3)
