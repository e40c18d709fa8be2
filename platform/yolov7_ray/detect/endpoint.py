"""An endpoint that is called as a `Detector` is, over HTTP."""

import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np

from yolov7.images.sample import encode_image

from .. import storage
from ..errors import JobError
from .detections import Detections
from .inputs import ImageLike, Input, is_many, to_input

BUSY = (429, 503)
"""Answers that name a time to wait; detection changes nothing, so that it can be asked again."""


class Endpoint:
    """Detects in images by an endpoint of `submit.py`: `Endpoint("http://127.0.0.1:8000")("photo.jpg")`."""

    def __init__(self, url: str, token: str | None = None, *, model: str | None = None, timeout_s: float = 60.0,
                 parallel: int = 4) -> None:
        """token: the bearer token, where one is required. model: name of the served model; None: the first.

        A busy endpoint is asked again as it says until `timeout_s` are over; `parallel` images are on their way at
        a time where several are given. JobError if the URL is none.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JobError("url", f"'{url}' is no address of an endpoint", "give one such as http://127.0.0.1:8000")
        self.url, self.model, self.timeout_s, self.parallel = url.rstrip("/"), model, timeout_s, parallel
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._parts, self._local = parts, threading.local()
        self._classes: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the model, asked for once."""
        if self._classes is None:
            models = self._ask("GET", "/v1/models")["models"]
            wanted = [entry for entry in models if entry["name"] == self.model or self.model is None and entry["default"]]
            if not wanted:
                raise JobError("model", f"'{self.model}' is unknown",
                               f"served are {', '.join(entry['name'] for entry in models)}")
            self._classes = tuple(wanted[0]["classes"])
        return self._classes

    @overload
    def __call__(self, images: ImageLike, **options: float) -> Detections: ...
    @overload
    def __call__(self, images: Iterable[ImageLike], **options: float) -> list[Detections]: ...

    def __call__(self, images, **options):
        """The objects in an image, or a list of them for several. options: confidence, iou, max_detections; default:
        the endpoint's. JobError with the endpoint's own words if it refuses."""
        query = {"model": self.model} if self.model is not None else {}
        query = urllib.parse.urlencode(query | options)
        if not is_many(images):
            return self._detected(images, query)
        with ThreadPoolExecutor(max(1, self.parallel)) as pool:
            return list(pool.map(lambda image: self._detected(image, query), images))

    def _detected(self, image: ImageLike, query: str) -> Detections:
        given, body = encoded(image)
        answer = self._ask("POST", f"/v1/detect?{query}", body)
        found = answer["detections"]
        return Detections(
            np.array([entry["box_xyxy"] for entry in found], np.float32).reshape(-1, 4),
            np.array([entry["score"] for entry in found], np.float32),
            np.array([entry["label"] for entry in found], np.int64), self.classes,
            (answer["height_px"], answer["width_px"]), given.source, given.pixels)

    # --- HTTP -------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The answer's JSON. A refusal is a JobError; a busy endpoint is asked again."""
        deadline, headers = time.monotonic() + self.timeout_s, dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/octet-stream" if (kind := media_type(body)) is None else kind
        while True:
            status, retry_after_s, content = self._exchange(method, self._parts.path.rstrip("/") + path, body, headers)
            if status not in BUSY or time.monotonic() + retry_after_s > deadline:
                break
            time.sleep(retry_after_s)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"error": content.decode(errors="backslashreplace")[:200]}
        if status == 200:
            return answer
        error = answer.get("error", answer)
        if isinstance(error, dict) and {"where", "problem", "remedy"} <= error.keys():
            raise JobError(f"{self.url}: {error['where']}", error["problem"], error["remedy"])
        raise JobError(self.url, f"answered {status}: {error}", "see its log")

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict) -> tuple[int, float, bytes]:
        """Status, seconds to wait before asking again, content; over a connection that is kept, renewed once."""
        kept = getattr(self._local, "connection", None)
        for connection in [kept, None] if kept is not None else [None]:
            try:
                if connection is None:
                    connection = self._local.connection = self._connect()
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                return answer.status, retry_after_s(answer.getheader("Retry-After")), content
            except (OSError, http.client.HTTPException) as error:
                self._local.connection = None
                connection.close()
                if connection is not kept:
                    raise JobError(self.url, f"cannot be reached: {error or type(error).__name__}",
                                   "is the endpoint up? `curl URL/healthz` tells") from error
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname, self._parts.port, timeout=self.timeout_s)


def encoded(image: ImageLike) -> tuple[Input, bytes]:
    """What was given, and the bytes to send: files as they are, pixels as PNG, which loses nothing."""
    given = to_input(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return given, bytes(image)
    if given.source and not hasattr(image, "convert"):
        data = storage.read_bytes(given.source)
        if media_type(data) is not None:
            return given, data
    return given, encode_image(given.pixels(), ".png")


def media_type(data: bytes) -> str | None:
    """Of the formats that endpoints take, by the first bytes."""
    if data[:2] == b"\xff\xd8":
        return "image/jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def retry_after_s(header: str | None) -> float:
    """Seconds by the header, 1 without a number."""
    return float(header) if header is not None and header.strip().isascii() and header.strip().isdigit() else 1.0
