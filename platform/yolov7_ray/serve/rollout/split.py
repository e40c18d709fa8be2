"""Which requests a candidate answers: decided by the request's id or a header of it, alike on all gateways."""

import hashlib
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

Headers = tuple[tuple[bytes, bytes], ...]
_request: ContextVar[tuple[str, Headers]] = ContextVar("request", default=("", ()))


@dataclass(frozen=True)
class Split:
    """The share of the requests that a candidate answers, or of which it gets a copy, in one step of a roll-out."""

    roll_out: str
    """Its id: each roll-out draws anew."""
    step: int
    weight: float
    shadow: bool
    sticky: str | None
    application: str
    """Ray Serve's application that holds the candidate."""
    candidate: str
    """Its exact version."""

    def takes(self, key: str) -> bool:
        """Whether the request with this key is the candidate's; those of a smaller share stay in a larger one."""
        digest = hashlib.sha256(f"{self.roll_out}/{key}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.weight * 2.0**64

    def takes_current(self) -> bool:
        """The same for the request that is being answered."""
        request_id, headers = _request.get()
        request_id = request_id or secrets.token_hex(8)  # over gRPC there is none
        wanted = self.sticky.lower().encode() if self.sticky else None
        return self.takes(next((value.decode("latin-1") for name, value in headers if name == wanted), request_id))


class Remembered:
    """ASGI middleware: what decides who answers is at hand wherever the request is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _request.set((scope["request_id"], tuple(scope["headers"])))
        await self._app(scope, receive, send)
