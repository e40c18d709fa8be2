"""Reading a request's body: bounded in bytes, in time, and in how many may be slow at once."""

import asyncio
import zlib
from collections import Counter

from starlette.datastructures import UploadFile
from starlette.requests import Request

from .limits import FORMATS, Limits, RequestError, too_many_bytes, whole_number

GRACE_S = 10.0
"""What a body may take, and a second more for each `MIN_BYTES_PER_S` that have arrived."""

MIN_BYTES_PER_S = 50_000

UNNAMED = "application/octet-stream"
"""Content type of an image whose first bytes tell what it is."""

SLOW_S = 5.0
"""A body that is not whole by then is slow, and needs one of the few places for such."""

RETRY_AFTER_S = 1

ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content-Encoding -> format, for zlib."""


class Uploads:
    """Reads the bodies of one endpoint's requests."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._slow: Counter[str] = Counter()

    async def body(self, request: Request, may_be_empty: bool = False) -> bytes:
        """The request's body, decompressed.

        RequestError 413 as soon as it is found to be too long, also decompressed, 408 if it comes too slowly, 503 or
        429 if it is slow while too many others are, in all or from the same address, 400 if it is empty or no
        compressed data, 415 for another compression.
        """
        limits, encoding = self.limits, request.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity" and encoding not in ENCODINGS:
            raise RequestError(415, "content-encoding", f"'{encoding[:20]}' is not supported",
                               "send gzip, deflate, or the body as it is")
        declared = whole_number(request.headers.get("content-length", ""), limits.max_bytes)
        if declared is not None and declared > limits.max_bytes:
            raise too_many_bytes(f"{request.headers['content-length'][:20]} bytes", limits)
        chunks, num_bytes = [], 0
        slow = _SlowUpload(self, request.client.host if request.client else "")
        async with slow:
            async for chunk in request.stream():  # the header may be missing or wrong
                num_bytes += len(chunk)
                if num_bytes > limits.max_bytes:
                    raise too_many_bytes(f"more than {limits.max_bytes} bytes", limits)
                chunks.append(chunk)
                slow.received(num_bytes)
        if not num_bytes and not may_be_empty:
            raise RequestError(400, "body", "is empty", "send the bytes of a JPEG, PNG or WebP image")
        body = b"".join(chunks)
        return await asyncio.to_thread(decompressed, body, encoding, limits) if encoding in ENCODINGS and body else body

    async def image(self, request: Request) -> bytes:
        """The encoded image of a request: its body, or the first file of a multipart form.

        As `body`; 415 for another content type, 400 for a form without a file.
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in ("multipart/form-data", UNNAMED) and content_type not in FORMATS:
            problem = f"'{content_type}' is not supported" if content_type else "is missing"
            raise RequestError(415, "content-type", problem,
                               f"send {', '.join(FORMATS)}, {UNNAMED} or multipart/form-data with one file")
        body = await self.body(request)
        if content_type != "multipart/form-data":
            return body
        return await asyncio.to_thread(lambda: asyncio.run(_file_of_form(request, body)))  # forms are parsed in Python

    def take_place(self, client: str) -> None:
        """Count a slow upload of `client`; RequestError 503 or 429 if there are too many."""
        if self._slow.total() >= self.limits.max_slow_uploads:
            raise RequestError(503, "body", "is slow, as too many others are", f"try again in {RETRY_AFTER_S} s",
                               retry_after_s=RETRY_AFTER_S)
        if self._slow[client] >= self.limits.max_slow_uploads_per_client:
            raise RequestError(429, "body", f"is slow, as {self._slow[client]} others from this address are",
                               "send fewer at a time", retry_after_s=RETRY_AFTER_S)
        self._slow[client] += 1

    def free_place(self, client: str) -> None:
        """The end of a slow upload."""
        self._slow[client] -= 1
        if not self._slow[client]:
            del self._slow[client]


def decompressed(data: bytes, encoding: str, limits: Limits) -> bytes:
    """A compressed body; RequestError 413 as soon as it is found to be too long, 400 if it is damaged."""
    decoder = zlib.decompressobj(ENCODINGS[encoding])
    try:
        body = decoder.decompress(data, limits.max_bytes + 1)
    except zlib.error as error:
        raise RequestError(400, "body", f"is no {encoding} ({error})", "send it as its header says") from error
    if len(body) > limits.max_bytes:
        raise too_many_bytes(f"more than {limits.max_bytes} bytes", limits)
    if not decoder.eof or decoder.unused_data:
        raise RequestError(400, "body", f"is no whole {encoding} stream", "send it as its header says")
    return body


class _SlowUpload:
    """The deadline of one upload, and its place among the slow ones once it is one."""

    def __init__(self, uploads: Uploads, client: str):
        self._uploads, self._client = uploads, client
        self._num_bytes, self._has_place = 0, False
        self._refusal: RequestError | None = None

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._start = loop.time()
        self._timer = loop.call_later(SLOW_S, self._become_slow)
        self._deadline = asyncio.timeout_at(self._start + GRACE_S)
        await self._deadline.__aenter__()

    async def __aexit__(self, *error) -> None:
        self._timer.cancel()
        if self._has_place:
            self._uploads.free_place(self._client)
        try:
            await self._deadline.__aexit__(*error)
        except TimeoutError as late:
            seconds = asyncio.get_running_loop().time() - self._start
            raise self._refusal or RequestError(
                408, "body", f"only {self._num_bytes} bytes arrived in {seconds:.0f} s",
                f"send at least {MIN_BYTES_PER_S / 1e3:g} kB a second") from late

    def received(self, num_bytes: int) -> None:
        """Move the deadline: so many bytes have arrived in all."""
        self._num_bytes = num_bytes
        if self._refusal is None and not self._deadline.expired():
            self._deadline.reschedule(self._start + GRACE_S + num_bytes / MIN_BYTES_PER_S)

    def _become_slow(self) -> None:
        try:
            self._uploads.take_place(self._client)
            self._has_place = True
        except RequestError as refusal:
            self._refusal = refusal
            self._deadline.reschedule(asyncio.get_running_loop().time())


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
