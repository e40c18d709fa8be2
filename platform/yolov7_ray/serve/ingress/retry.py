"""A request whose gateway dies is passed to another one: Ray Serve's proxy would answer 500.

Ray Serve calls `middlewares` in each of its proxies that has `ENVIRONMENT`. HAProxy repeats requests by itself, where
it is told to (cluster/Dockerfile).
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares"}

KEPT_BYTES = 32_000_000
"""Of a request's body that are kept until its answer begins; a request with more is not repeated."""

REPEATABLE = ("/v1/", "/v2/", "/invocations")
"""Starts of paths of which POST has no side effects, so that it may be repeated; GET and HEAD may be always."""


def middlewares() -> list[Middleware]:
    """What Ray Serve puts before its proxy."""
    return [Middleware(Repeated)]


class Repeated:
    """ASGI middleware: a request that nobody answered is passed on once more.

    Ray Serve's proxy sends nothing at all where the replica that it had chosen is gone.
    """

    def __init__(self, app: ASGIApp, kept_bytes: int = KEPT_BYTES) -> None:
        self._app, self._kept_bytes = app, kept_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_repeatable(scope):
            return await self._app(scope, receive, send)
        body = _Body(receive, self._kept_bytes)

        async def sent(message: Message) -> None:
            body.release()
            await send(message)

        await self._app(dict(scope), body.receive, sent)
        if body.is_whole:
            await self._app(dict(scope), body.again(), send)


class _Body:
    """What has come of a request, kept until it is answered."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._room = receive, max_bytes
        self._messages: list[Message] = []
        self.is_whole = True
        """Whether all that has come is kept, and the client is still there."""

    async def receive(self) -> Message:
        """The next message, kept."""
        message = await self._receive()
        if self.is_whole:
            self._room -= len(message.get("body", b""))
            self._messages.append(message)
            if self._room < 0 or message["type"] == "http.disconnect":
                self.release()
        return message

    def release(self) -> None:
        """Keep nothing any more."""
        self.is_whole = False
        self._messages.clear()

    def again(self) -> Receive:
        """All messages from the first on."""
        waiting, self._messages = self._messages[::-1], []

        async def receive() -> Message:
            return waiting.pop() if waiting else await self._receive()

        return receive


def _is_repeatable(scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    return scope["method"] in ("GET", "HEAD") or scope["method"] == "POST" and scope["path"].startswith(REPEATABLE)
