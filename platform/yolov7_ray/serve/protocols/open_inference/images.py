"""The tensor `image` as images: encoded ones as BYTES, or pixels.

n images · H, W height and width
"""

import base64
import math
import struct

import numpy as np

from ...limits import Limits, RequestError, check_header, check_pixels
from ...served import MAX_IMAGES

DTYPES = {"UINT8": np.dtype("<u1"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4")}
PIXEL_FORMAT = {"datatypes": [*DTYPES, "BYTES"], "layout": "HWC or CHW", "color": "RGB",
                "range": {"UINT8": [0, 255], "FP16": [0, 1], "FP32": [0, 1]}}
"""What an input may be, for clients that read the metadata; an element of BYTES is one encoded image."""

SHAPES = "[H, W, 3], [3, H, W], or either with the number of images before it"
ROUNDING = 1e-3
"""How far pixels as fractions may lie outside [0, 1]."""


def images_of(shape: list[int], datatype: str, data: bytes | list | None, limits: Limits,
              layout: str | None = None) -> list[bytes] | list[np.ndarray]:
    """Encoded images, or pixels (H, W, 3) uint8; RequestError 400 or 413 if tensor and data do not fit.

    ``data``: raw, little-endian, or JSON values. ``layout``: HWC or CHW, where the shape may be either.
    """
    if datatype != "BYTES":
        return list(_pixels(shape, datatype, data, limits, layout))
    images = _elements(data) if isinstance(data, bytes) else _of_base64(data)
    if len(images) != math.prod(shape):
        raise RequestError(400, "image", f"shape {shape} does not fit {len(images)} elements",
                           "let the shape be the number of images")
    _check_number(len(images))
    for image in images:
        check_header(image, limits)
    return images


def _check_number(count: int) -> None:
    if not 1 <= count <= MAX_IMAGES:
        raise RequestError(400, "image", f"holds {count} images", f"send 1 to {MAX_IMAGES} images in a request")


def _elements(data: bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor, each after 4 bytes of length."""
    found, start = [], 0
    while start < len(data) and len(found) <= MAX_IMAGES:
        end = start + 4 + struct.unpack("<I", data[start : start + 4].ljust(4, b"\xff"))[0]
        if end > len(data):
            raise RequestError(400, "image", "is no whole BYTES tensor", "send 4 bytes of length before each image")
        found.append(data[start + 4 : end])
        start = end
    return found


def _of_base64(data: list | None) -> list[bytes]:
    """The elements of a BYTES tensor in JSON."""
    texts = np.ravel(np.array(data, object)).tolist() if isinstance(data, list) and len(data) <= MAX_IMAGES else [None]
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(400, "image", "data is no list of strings", f"send 1 to {MAX_IMAGES} images as base64")
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except ValueError as error:  # binascii.Error is one
        raise RequestError(400, "image", f"is no base64 ({error})", "send each image as base64") from error


def _pixels(shape: list[int], datatype: str, data: bytes | list | None, limits: Limits,
            layout: str | None) -> np.ndarray:
    """A pixel tensor as (n, H, W, 3) uint8."""
    if datatype not in DTYPES:
        raise RequestError(400, "image", f"datatype '{datatype}' is not supported",
                           f"send {', '.join(PIXEL_FORMAT['datatypes'])}")
    whole = shape if len(shape) == 4 else [1, *shape]
    channels_last = len(whole) == 4 and (whole[3] == 3 if layout is None else layout == "HWC")
    if len(whole) != 4 or min(whole) < 1 or whole[3 if channels_last else 1] != 3:
        raise RequestError(400, "image", f"shape {shape} does not fit", f"send {SHAPES}")
    _check_number(whole[0])
    height, width = whole[1:3] if channels_last else whole[2:]
    check_pixels(width, height, limits)
    try:
        dtype = DTYPES[datatype]
        values = (np.frombuffer(data, dtype) if isinstance(data, bytes) else _of_json(data, dtype)).reshape(whole)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(400, "image", f"data does not fit {datatype} {shape} ({error})",
                           "send as many values as the shape has") from error
    pixels = values if datatype == "UINT8" else _of_fractions(values, datatype)
    return pixels if channels_last else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _of_fractions(values: np.ndarray, datatype: str) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    if not np.isfinite(values).all():
        raise RequestError(400, "image", "holds values that are not finite", f"send {datatype} in [0, 1]")
    if values.min() < -ROUNDING or values.max() > 1 + ROUNDING:
        raise RequestError(400, "image", f"{datatype} values reach from {values.min():g} to {values.max():g}",
                           f"divide pixels of 0 to 255 by 255: {datatype} is RGB in [0, 1]; or send them as UINT8")
    return (values.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)


def _of_json(data: list | None, dtype: np.dtype) -> np.ndarray:
    """JSON numbers as an array; ValueError where UINT8 is not whole or not in [0, 255], which NumPy would cut off."""
    values = np.asarray(data, np.float64)
    if dtype.kind == "u" and not ((values >= 0) & (values <= 255) & (values == values.round())).all():
        raise ValueError("values are not all whole numbers from 0 to 255")
    return values.astype(dtype)
