"""A proxy in front of a real S3 server that breaks what a test asks it to break, on the wire.

It forwards requests unchanged, signatures included, so that everything but the fault is real.
"""

import http.client
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SILENCE_S = 60.0
"""Longest silence; it ends with the proxy."""
DRIP_S = 0.02
"""Between two bytes of a dripping body."""
SLOW_PIECE_BYTES = 16 << 10
RECEIVE_BUFFER_BYTES = 256 << 10
ON_REQUESTS = {"busy", "gone", "reset", "lost", "silent"}
ON_SENT_BODIES = {"cut", "garbled"}
ON_RECEIVED_BODIES = {"broken", "short", "flipped", "stalled", "dripping"}


@dataclass
class Fault:
    """What happens to which requests.

    busy: 503. gone: 404 of an upload. reset: the connection, before the request arrives. lost: the request
    arrives, its reply does not. silent: never an answer. cut, garbled: half of the sent body arrives, or all of it
    with a flipped bit. broken: half of the received body, then a reset. short: the same under a header that agrees.
    flipped: a bit. stalled: half of it, then nothing. dripping: byte by byte.
    """

    kind: str
    methods: tuple[str, ...] = ()
    """Empty: all."""
    part: str = ""
    """Of the path and query."""
    count: float = float("inf")
    """How many requests are met."""
    share: float = 1.0
    """Of the requests that match, drawn with a fixed seed."""
    seconds: float = float("inf")
    begun: float = field(default_factory=time.monotonic)


class FaultyS3(ThreadingHTTPServer):
    """The proxy; `requests` lists what came: method, path, range."""

    request_queue_size = 128

    def __init__(self, upstream: str):
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)  # a slow body fills it
        self.server_bind()
        self.server_activate()
        self.upstream = upstream.removeprefix("http://")
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str, str]] = []
        self.faults: list[Fault] = []
        self.delay_s = 0.0
        self.upload_bytes_per_s = float("inf")
        """Of each connection."""
        self.stopping = threading.Event()
        self._lock, self._random = threading.Lock(), random.Random(0)

    def inject(self, kind: str, *methods: str, **settings) -> Fault:
        """Break matching requests from now on."""
        assert kind in ON_REQUESTS | ON_SENT_BODIES | ON_RECEIVED_BODIES
        self.faults.append(Fault(kind, methods, **settings))
        return self.faults[-1]

    def heal(self) -> None:
        """Break nothing any more."""
        self.faults.clear()

    def fault_for(self, method: str, path: str, has_body: bool) -> str | None:
        """The kind of fault that this request meets."""
        with self._lock:
            for fault in self.faults:
                fits = ((not fault.methods or method in fault.methods) and fault.part in path
                        and (has_body or fault.kind not in ON_SENT_BODIES)
                        and (method != "HEAD" or fault.kind not in ON_RECEIVED_BODIES)
                        and fault.count > 0 and time.monotonic() < fault.begun + fault.seconds)
                if fits and self._random.random() < fault.share:
                    fault.count -= 1
                    return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self._read_body(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, self.headers.get("Range", "")))
        time.sleep(self.server.delay_s)
        kind = self.server.fault_for(self.command, self.path, bool(body))
        if kind == "busy":
            return self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
        if kind == "gone":
            return self._answer(404, [], b"<Error><Code>NoSuchUpload</Code></Error>")
        if kind == "silent":
            self.server.stopping.wait(SILENCE_S)
        if kind in ("silent", "reset"):
            return self._reset()
        if kind == "cut":
            body = body[:len(body) // 2]
        elif kind == "garbled":
            body = _flipped(body)
        reply = self._forward(body)
        return self._reset() if kind == "lost" else self._answer(*reply, kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _read_body(self, num_bytes: int) -> bytes:
        pieces = []
        while num_bytes > 0:
            pieces.append(self.rfile.read(min(num_bytes, SLOW_PIECE_BYTES)))
            num_bytes -= SLOW_PIECE_BYTES
            time.sleep(len(pieces[-1]) / self.server.upload_bytes_per_s)
        return b"".join(pieces)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=300)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection", "content-length"):
                upstream.putheader(name, value)
        if body or "Content-Length" in self.headers:
            upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body)
        reply = upstream.getresponse()
        data = reply.read()
        upstream.close()
        return reply.status, reply.getheaders(), data

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, kind: str | None = None) -> None:
        half, length = len(data) // 2, len(data)
        if kind == "short":
            data = data[:half]
            length = half
        elif kind == "flipped":
            data = _flipped(data)
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection") and \
                    (name.lower() != "content-length" or self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(data, half, kind)

    def _send_body(self, data: bytes, half: int, kind: str | None) -> None:
        if kind == "dripping":
            for byte in data:
                self.wfile.write(bytes([byte]))
                if self.server.stopping.wait(DRIP_S):
                    return self._reset()
        self.wfile.write(data[:half] if kind in ("broken", "stalled") else data)
        if kind == "stalled":
            self.server.stopping.wait(SILENCE_S)
        if kind in ("broken", "stalled"):
            self._reset()
        return None

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client has given up
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:] if data else data


@contextmanager
def running(upstream: str) -> Iterator[FaultyS3]:
    """A proxy in front of `upstream`, ended afterwards."""
    proxy = FaultyS3(upstream)
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        proxy.shutdown()
        proxy.server_close()
