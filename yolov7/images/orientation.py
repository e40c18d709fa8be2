"""The orientation of an encoded image, by its EXIF tag, and its pixels, points and boxes as displayed.

The frame of everything here is the picture as displayed: OpenCV, browsers and annotation tools agree on it. An
orientation is one of EXIF's 1 to 8: the stored pixels are transposed for 5 to 8, then flipped.

H W pixels · k points · n boxes
"""

import struct

import numpy as np

ORIENTATION_TAG = 0x0112
UPRIGHT = 1
_TRANSPOSED, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_PREFIX = b"Exif\0\0"
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}
"""TIFF's types in which writers store the tag: BYTE, SHORT, LONG."""


def read_orientation(data) -> int:
    """EXIF orientation, 1 to 8, from the header of a JPEG, PNG, WebP or TIFF in `data`, any buffer; nothing is decoded.

    1 where there is no tag, where its value is none of these, where the header is damaged, and for other formats.
    """
    data = memoryview(data)
    try:
        exif = _exif(data)
        orientation = UPRIGHT if exif is None else _tag(exif)
    except (struct.error, IndexError):
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def is_tiff(data) -> bool:
    """Whether `data` is a TIFF: decoders display it by its own tag, whatever they are told about EXIF."""
    return bytes(memoryview(data)[:4]) in _TIFF_SIGNATURES


def displayed_size_hw(stored_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width as displayed of stored pixels of this size."""
    height, width = stored_hw
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The stored pixels (H, W, C) as displayed; the same array if they are upright."""
    if orientation == UPRIGHT:
        return image
    if orientation in _TRANSPOSED:
        image = image.transpose(1, 0, 2)
    if orientation in _UPSIDE_DOWN:
        image = image[::-1]
    if orientation in _MIRRORED:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def upright_points(xy: np.ndarray, stored_hw: tuple[int, int], orientation: int) -> np.ndarray:
    """Points (k, 2) of an image stored with this size, moved to where they are displayed."""
    height, width = displayed_size_hw(stored_hw, orientation)
    xy = xy[:, ::-1].copy() if orientation in _TRANSPOSED else xy.copy()
    if orientation in _UPSIDE_DOWN:
        xy[:, 1] = height - xy[:, 1]
    if orientation in _MIRRORED:
        xy[:, 0] = width - xy[:, 0]
    return xy


def upright_boxes(boxes_xyxy: np.ndarray, stored_hw: tuple[int, int], orientation: int) -> np.ndarray:
    """Boxes (n, 4) of an image stored with this size, moved to where they are displayed; a negative side stays one."""
    boxes = upright_points(boxes_xyxy.reshape(-1, 2), stored_hw, orientation).reshape(-1, 2, 2)
    if orientation in _MIRRORED:
        boxes[:, :, 0] = boxes[:, ::-1, 0].copy()
    if orientation in _UPSIDE_DOWN:
        boxes[:, :, 1] = boxes[:, ::-1, 1].copy()
    return boxes.reshape(-1, 4)


# --- headers --------------------------------------------------------------------------------------------


def _exif(data: memoryview) -> memoryview | None:
    """The EXIF block of an encoded image, itself a small TIFF, if it has one. struct.error if it is cut."""
    start = bytes(data[:12])
    if start[:2] == b"\xff\xd8":
        return _jpeg_exif(data)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return _chunk(data, 8, b"eXIf", ">I4s", 4, 1)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        block = _chunk(data, 12, b"EXIF", "<4sI", 0, 2)
        prefixed = block is not None and bytes(block[:6]) == _EXIF_PREFIX
        return block[6:] if prefixed else block
    return data if is_tiff(data) else None


def _jpeg_exif(data: memoryview) -> memoryview | None:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # padding, or a marker without length
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):  # the end, or the start of the pixels
            break
        length, = struct.unpack_from(">H", data, position + 2)
        segment = data[position + 4:position + 2 + length]
        if marker == 0xE1 and bytes(segment[:6]) == _EXIF_PREFIX:
            return segment[6:]
        position += 2 + length
    return None


def _chunk(data: memoryview, position: int, kind: bytes, header: str, trailer: int, even: int) -> memoryview | None:
    """The first chunk of a kind in PNG's or RIFF's chain; `header` holds its length and kind in either order."""
    while position + 8 <= len(data):
        first, second = struct.unpack_from(header, data, position)
        found, length = (first, second) if isinstance(first, bytes) else (second, first)
        if found == kind:
            return data[position + 8:position + 8 + length]
        position += 8 + length + length % even + trailer
    return None


def _tag(exif: memoryview) -> int:
    """The orientation in the first directory of a TIFF structure; struct.error if it is cut."""
    order = "<" if bytes(exif[:2]) == b"II" else ">"
    if bytes(exif[:4]) not in _TIFF_SIGNATURES:
        return UPRIGHT
    big = 43 in (exif[2], exif[3])  # BigTIFF: 64-bit offsets
    offset, = struct.unpack_from(f"{order}{'Q' if big else 'I'}", exif, 8 if big else 4)
    num_entries, = struct.unpack_from(f"{order}{'Q' if big else 'H'}", exif, offset)
    first, size, value = (offset + 8, 20, 12) if big else (offset + 2, 12, 8)
    for entry in range(first, first + size * min(num_entries, 1 << 16), size):
        tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
        if tag == ORIENTATION_TAG and kind in _VALUE_FORMATS:
            return struct.unpack_from(order + _VALUE_FORMATS[kind], exif, entry + value)[0]
    return UPRIGHT
