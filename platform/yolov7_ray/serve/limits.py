"""Limits of a request: bytes, formats and pixels, all checked before an image is decoded."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from ..errors import JobError

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


class RequestError(JobError):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: int, where: str, problem: str, remedy: str = "", retry_after_s: int | None = None):
        super().__init__(where, problem, remedy)
        self.status, self.retry_after_s = status, retry_after_s
        self.args = (status, where, problem, remedy, retry_after_s)  # so that it pickles between processes


@dataclass(frozen=True)
class Limits:
    """Maximum size of one request."""

    max_bytes: int
    max_pixels: int
    max_slow_uploads: int = 128
    """Uploads that take longer than `uploads.SLOW_S`, in all ..."""
    max_slow_uploads_per_client: int = 32
    """... and from one address."""


def check_header(data: bytes, limits: Limits) -> None:
    """Check format and size by an image's header.

    400 if it is not a JPEG, PNG or WebP image, 413 if it has too many pixels. Nothing is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
        try:
            with Image.open(io.BytesIO(data), formats=tuple(FORMATS.values())) as header:
                check_pixels(header.width, header.height, limits)
        except RequestError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_many_pixels("far too many", limits) from error
        except UnidentifiedImageError as error:
            raise undecodable() from error
        except Exception as error:  # a damaged header: Pillow's plugins raise arbitrary exceptions
            raise undecodable() from error


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """413 if an image of this size is too large."""
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width} x {height}", limits)


def whole_number(text: str, most: int) -> int | None:
    """The number that a header holds, at most `most` + 1; None unless it consists of the digits 0 to 9."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"  # int() refuses thousands of digits
    return int(digits) if len(digits) <= len(str(most)) else most + 1


def undecodable() -> RequestError:
    """The error for bytes that are not an image."""
    return RequestError(400, "image", "cannot be decoded", "send the whole bytes of a JPEG, PNG or WebP image")


def too_many_bytes(arrived: str, limits: Limits) -> RequestError:
    """The error for a body that is too long."""
    return RequestError(413, "body", f"holds {arrived}", f"at most {limits.max_bytes} bytes are accepted")


def _too_many_pixels(arrived: str, limits: Limits) -> RequestError:
    return RequestError(413, "image", f"has {arrived} pixels",
                        f"at most {limits.max_pixels / 1e6:g} megapixels are accepted; send a smaller one")
