"""The size of an encoded image, and whether it can be decoded, at a fraction of the cost of decoding."""

import struct
import zlib

from yolov7.images.orientation import displayed_size_hw, read_orientation

_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_START_OF_FRAME = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive, Huffman coded: supported by every decoder."""
_QUANTIZATION, _HUFFMAN, _START_OF_SCAN = 0xDB, 0xC4, 0xDA
_MAX_PIXELS = 1 << 28

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Of each colour type; 3 is a palette."""


def image_size_hw(data: bytes) -> tuple[int, int]:
    """Height and width as displayed of an image that `decode_image` can decode; ValueError if it cannot.

    A JPEG or PNG with a complete structure is not decoded, since decoders then always return an image: this lets
    ingest run at the speed of the disk. Everything else, including truncated files, is decoded.
    """
    stored_hw = whole_jpeg_size_hw(data) or whole_png_size_hw(data)
    return displayed_size_hw(stored_hw, read_orientation(data)) if stored_hw else _decoded_size_hw(data)


def _decoded_size_hw(data: bytes) -> tuple[int, int]:
    from yolov7.images.sample import decode_image  # rarely needed, and it imports PyTorch, which takes seconds

    return decode_image(data).shape[:2]


def whole_jpeg_size_hw(data: bytes) -> tuple[int, int] | None:
    """Stored height and width of a common JPEG with all its segments up to the end marker, else None."""
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


def whole_png_size_hw(data: bytes) -> tuple[int, int] | None:
    """Stored height and width of a still PNG of common chunks, complete and with correct checksums, else None."""
    if data[:8] != _PNG_SIGNATURE:
        return None
    view, position, seen, size_hw, needed = memoryview(data), 8, set(), None, {b"IDAT"}
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data) or zlib.crc32(view[position + 4:end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return None
        if kind == b"IHDR" and length == 13 and not seen:
            width, height, bits, colours, *methods, interlace = struct.unpack_from(">IIBBBBB", data, position + 8)
            if bits in _PNG_BIT_DEPTHS.get(colours, ()) and methods == [0, 0] and interlace < 2 \
                    and 0 < height * width < _MAX_PIXELS:
                size_hw = height, width
            needed |= {b"PLTE"} if colours == 3 else set()
        elif kind == b"IEND":
            return size_hw if needed <= seen else None
        elif kind == b"acTL" or kind[0] < ord("a") and kind not in (b"IDAT", b"PLTE"):
            return None  # an animation, or an unknown critical chunk
        seen.add(kind)
        position = end
    return None
