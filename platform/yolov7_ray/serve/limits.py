"""Limits of a request: bytes, formats and pixels, all checked before an image is decoded."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.requests import Request

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


async def read_body(request: Request, limits: Limits) -> bytes:
    """The request's body; 413 as soon as it is found to be too long, 400 if it is empty."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_bytes:
        raise _too_many_bytes(f"{int(declared)} bytes", limits)
    chunks, num_bytes = [], 0
    async for chunk in request.stream():  # the header may be missing or wrong
        num_bytes += len(chunk)
        if num_bytes > limits.max_bytes:
            raise _too_many_bytes(f"more than {limits.max_bytes} bytes", limits)
        chunks.append(chunk)
    if not num_bytes:
        raise RequestError(400, "body", "is empty", "send the bytes of a JPEG, PNG or WebP image")
    return b"".join(chunks)


async def read_image(request: Request, limits: Limits) -> bytes:
    """The encoded image of a request: its body, or the first file of a multipart form.

    415 for another content type, 413 for too many bytes, 400 for an empty body or a form without a file.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "multipart/form-data" and content_type not in FORMATS:
        raise RequestError(415, "content-type", f"'{content_type}' is not supported" if content_type else "is missing",
                           f"send {', '.join(FORMATS)} or multipart/form-data with one file")
    body = await read_body(request, limits)
    return body if content_type in FORMATS else await _file_of_form(request, body)


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = await Request(request.scope, receive).form(max_files=1, max_fields=16)
    except Exception as error:  # starlette's and python-multipart's errors for a malformed form
        raise RequestError(400, "body", f"is no readable multipart form ({getattr(error, 'detail', error)})",
                           "send one file, as `curl -F file=@image.jpg` does") from error
    try:
        for value in form.values():
            if isinstance(value, UploadFile):
                if data := await value.read():
                    return data
                raise RequestError(400, "file", "is empty", "send the bytes of a JPEG, PNG or WebP image")
    finally:
        await form.close()
    raise RequestError(400, "body", "the form holds no file", "send one file, as `curl -F file=@image.jpg` does")


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


def undecodable() -> RequestError:
    """The error for bytes that are not an image."""
    return RequestError(400, "image", "cannot be decoded", "send the whole bytes of a JPEG, PNG or WebP image")


def _too_many_bytes(arrived: str, limits: Limits) -> RequestError:
    return RequestError(413, "body", f"holds {arrived}", f"at most {limits.max_bytes} bytes are accepted")


def _too_many_pixels(arrived: str, limits: Limits) -> RequestError:
    return RequestError(413, "image", f"has {arrived} pixels",
                        f"at most {limits.max_pixels / 1e6:g} megapixels are accepted; send a smaller one")
