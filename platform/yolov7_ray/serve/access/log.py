"""Every request has an id, and where it is wanted a line in the gateway's log."""

import json
import random
import re
import sys
import time
import uuid
from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..spec import AccessLog

SAMPLED = 100
REQUEST_ID = re.compile(r"[!-~]{1,128}")
"""An id that a client may give: printable, without spaces."""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C trace context: version, trace, span, flags."""

CURRENT_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered, for what has no request at hand."""


def request_id(request: Request) -> str | None:
    """The id of a request."""
    return request.scope.get("request_id")


class Traced:
    """ASGI middleware: takes X-Request-ID from the client, or makes one, and answers it; passes traceparent through.

    A log line is a JSON object; it names the token and never holds it, and has no query and nothing of an image.
    """

    def __init__(self, app: ASGIApp, access_log: AccessLog) -> None:
        self._app, self._access_log = app, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given, trace = headers.get(b"x-request-id", ""), headers.get(b"traceparent", "")
        scope["request_id"] = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        CURRENT_ID.set(scope["request_id"])
        trace = trace if TRACEPARENT.fullmatch(trace) else None
        state = scope.setdefault("state", {})
        begun, status, num_bytes = time.perf_counter(), 500, 0

        async def answered(message: Message) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status, answer = message["status"], MutableHeaders(scope=message)
                answer["X-Request-ID"] = scope["request_id"]
                if trace:
                    answer["traceparent"] = trace
            else:
                num_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, answered)
        finally:
            if self._is_logged(status):
                client = scope.get("client")
                print(json.dumps({
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "request_id": scope["request_id"],
                    "client": client[0] if client else None, "method": scope["method"], "path": scope["path"],
                    "status": status, "ms": round(1e3 * (time.perf_counter() - begun), 1), "bytes": num_bytes}
                    | ({"token": state["token"]} if state.get("token") else {})
                    | ({"traceparent": trace} if trace else {})), file=sys.stdout, flush=True)

    def _is_logged(self, status: int) -> bool:
        if self._access_log in ("off", "all"):
            return self._access_log == "all"
        return status >= 400 or self._access_log == "sampled" and random.randrange(SAMPLED) == 0
