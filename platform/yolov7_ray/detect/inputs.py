"""What people give as an image: a path or URI, bytes, a PIL image, or an array."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from yolov7.images.sample import decode_image

from .. import storage
from ..errors import JobError

if TYPE_CHECKING:
    import PIL.Image

ImageLike = Union[str, PathLike, bytes, bytearray, memoryview, np.ndarray, "PIL.Image.Image"]
"""Path or URI of a file; an encoded file; RGB pixels (H, W, 3), or grey ones (H, W), uint8; a PIL image."""
WHAT_WORKS = ("give a path or URI, the bytes of an image file, a PIL image, or an array (H, W, 3) uint8 in RGB order "
              "(OpenCV reads BGR: image[..., ::-1])")


@dataclass(frozen=True)
class Input:
    """An image that was given."""

    source: str
    """Path or URI, or empty."""
    pixels: Callable[[], np.ndarray]
    """Reads and decodes it: (H, W, 3) uint8 RGB as displayed. JobError where it is no image."""
    encoded: Callable[[], bytes] | None = None
    """Reads the file, where it is one."""


def is_many(images: Any) -> bool:
    """Whether several images were given."""
    return isinstance(images, (list, tuple)) or hasattr(images, "__next__") or (
        isinstance(images, np.ndarray) and images.ndim == 4)


def to_input(image: ImageLike) -> Input:
    """JobError if it is nothing that an image can be."""
    if isinstance(image, (str, PathLike)):
        uri = fspath(image)
        return Input(uri, partial(_read, uri), partial(storage.read_bytes, uri))
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return Input("", partial(_decoded, "image", data), lambda: data)
    if isinstance(image, np.ndarray):
        pixels = _checked(image)
        return Input("", lambda: pixels)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return Input(str(getattr(image, "filename", "") or ""), partial(_from_pil, image))
    raise JobError("image", f"{type(image).__name__} is none", WHAT_WORKS)


def _read(uri: str) -> np.ndarray:
    return _decoded(uri, storage.read_bytes(uri))


def _decoded(where: str, data: bytes) -> np.ndarray:
    try:
        return decode_image(data)
    except ValueError as error:
        raise JobError(where, str(error).removeprefix("decode_image: "), "") from error


def _from_pil(image: "PIL.Image.Image") -> np.ndarray:
    import PIL.ImageOps

    return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))


def _checked(array: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3); JobError for another shape or type, such as numbers between 0 and 1."""
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise JobError("image", f"array of shape {array.shape} and type {array.dtype}", WHAT_WORKS)
    if grey:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array)
