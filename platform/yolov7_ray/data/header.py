"""The size of an encoded image, and whether it can be decoded at all, at a small part of decoding's cost."""

import struct

from yolov7.sample import decode_image

_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_START_OF_FRAME = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive, Huffman coded: what every decoder reads."""
_QUANTIZATION, _HUFFMAN, _START_OF_SCAN = 0xDB, 0xC4, 0xDA
_MAX_PIXELS = 1 << 28


def image_size_hw(data: bytes) -> tuple[int, int]:
    """Height and width of an image that `decode_image` can decode; ValueError where it cannot.

    A JPEG whose structure is whole is not decoded, since decoders then always deliver a picture: this is what
    lets ingest run at the speed of the disk. Everything else, a truncated JPEG too, is decoded to find out.
    """
    return whole_jpeg_size_hw(data) or decode_image(data).shape[:2]


def whole_jpeg_size_hw(data: bytes) -> tuple[int, int] | None:
    """Height and width of a common JPEG with all its segments up to the end marker, else None."""
    if data[:2] != b"\xff\xd8":
        return None
    position, seen, size_hw = 2, set(), None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker in _START_OF_FRAME and length >= 11 and position + 10 <= len(data):
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            if bits == 8 and components in (1, 3) and 0 < height * width < _MAX_PIXELS:
                size_hw = height, width
        seen.add(marker)
        position += 2 + length
        if marker == _START_OF_SCAN:
            break
    ended = data.find(b"\xff\xd9", max(position, len(data) - 4096)) >= 0  # cameras may append a little
    return size_hw if ended and {_QUANTIZATION, _HUFFMAN, _START_OF_SCAN} <= seen else None
