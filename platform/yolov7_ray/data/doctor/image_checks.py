"""Checks of one encoded image: its header, completeness, decoding, and its perceptual hash."""

import io
import os
import sys
import tempfile
import warnings

import cv2
import numpy as np
from PIL import Image

from yolov7.images.orientation import UPRIGHT, displayed_size_hw, is_tiff, read_orientation
from yolov7.images.sample import decode_image

Problem = tuple[str, str]
"""Kind of finding, detail."""

MIN_SIDE_PX = 32
"""Images are decoded at 1/8, or larger where their shorter side would fall below this."""
HASH_SIZE_WH = (9, 8)
TINT_SIZE_WH = (4, 4)


def examine_image(data, recorded_hw: tuple[int, int], pixels_too: bool) -> tuple[np.ndarray | None, list[Problem]]:
    """The image at about 1/8 of its size, None if it was not or could not be decoded; and all its problems.

    Without `pixels_too` it is decoded only if its header cannot be parsed.
    """
    problems = examine_header(data, recorded_hw)
    if problems is not None and not pixels_too:
        return None, problems
    pixels, more = examine_pixels(data, recorded_hw)
    known = dict(problems or ())
    if "truncated image" in known:  # the cause of the decoder's messages
        more = []
    return pixels, [*known.items(), *more]


def examine_header(data, recorded_hw: tuple[int, int]) -> list[Problem] | None:
    """Problems found without decoding `data`, any buffer; None if the header cannot be parsed."""
    data = bytes(data)
    try:
        with warnings.catch_warnings():  # about very large images: the decoder decides
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            num_frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # MPO: a JPEG and its preview
            stored_hw = (image.tag_v2[257], image.tag_v2[256]) if is_tiff(data) else (image.height, image.width)
    except (OSError, SyntaxError, ValueError, KeyError, EOFError, Image.DecompressionBombError):
        return None
    problems = []
    orientation = read_orientation(data)
    size_hw = displayed_size_hw(stored_hw, orientation)
    if size_hw != recorded_hw:
        problems.append(("size differs from the record", f"{_size(size_hw)} px, its row says {_size(recorded_hw)} px"))
    if image.format in ("JPEG", "MPO") and not _has_end_marker(data):
        problems.append(("truncated image", f"{len(data):,} bytes without the end marker of a JPEG"))
    if orientation != UPRIGHT:
        problems.append(("turned by EXIF", f"orientation {orientation}"))
    if image.mode == "CMYK":
        problems.append(("CMYK image", image.format))
    if ";16" in str(image.tile):  # the raw mode of the stored data
        problems.append(("16-bit image", image.format))
    if num_frames > 1:
        problems.append(("animated image", f"{image.format} of {num_frames} frames"))
    return problems


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def _has_end_marker(data: bytes) -> bool:
    """Whether a JPEG's last end marker follows the start of its last scan; an embedded thumbnail has markers too."""
    end = data.rfind(b"\xff\xd9")
    return end >= 0 and data.find(b"\xff\xda", end) < 0


def decode(data, reduce: int = 1) -> tuple[np.ndarray, list[str]]:
    """(h, w, 3) uint8 RGB at 1/reduce, and the decoder's messages. ValueError if it cannot be decoded.

    libjpeg continues past faulty data, fills missing data with grey, and reports only to standard error.
    """
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        error = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            pixels = decode_image(data, reduce)
        finally:
            os.dup2(error, 2)
            os.close(error)
        file.seek(0)
        return pixels, file.read().decode(errors="replace").splitlines()


def examine_pixels(data, recorded_hw: tuple[int, int]) -> tuple[np.ndarray | None, list[Problem]]:
    """The image at about 1/8 of its size, None if it cannot be decoded, and its problems.

    All of a JPEG's data are read, so a fault anywhere in them is found.
    """
    reduce = next((factor for factor in (8, 4, 2) if min(recorded_hw) >= factor * MIN_SIDE_PX), 1)
    try:
        pixels, messages = decode(data, reduce)
    except ValueError:
        return None, [("undecodable image", f"{len(data):,} bytes")]
    cut = [message for message in messages if "premature end" in message.lower()]
    if cut:
        return pixels, [("truncated image", cut[0])]
    return pixels, [("damaged image", messages[0])] if messages else []


def perceptual_hash(pixels: np.ndarray) -> tuple[int, bytes]:
    """A hash that survives resizing and compression: 64 bits (is a cell brighter than its left one?), and the tint.

    The tint is the mean colour of 4 x 4 cells, 48 bytes.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, HASH_SIZE_WH, interpolation=cv2.INTER_AREA)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    tint = cv2.resize(pixels, TINT_SIZE_WH, interpolation=cv2.INTER_AREA)
    return int.from_bytes(bits.tobytes(), "big"), tint.tobytes()
