"""A request and a whole response, in ASGI's terms."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from lmdeck._incoming.headers import joined_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

__all__ = ["IncomingRequest", "Response", "text_response"]


class IncomingRequest:
    """A request as it arrives; `params` are the parameters in its path."""

    def __init__(self, scope: Scope, receive: Receive, params: Mapping[str, str]) -> None:
        self.scope = scope
        self.receive = receive
        self.params = params
        self.method: str = scope["method"]
        self.path: str = scope["path"]

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers by their lower-case names; repeated ones are joined."""
        return joined_headers(self.scope["headers"])


class Response:
    """A response as an ASGI application; its `headers` are in lower case."""

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.body = body
        self.status = status
        self.headers = headers or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        headers = [*encoded(self.headers), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def text_response(text: str, status: int) -> Response:
    """Return a response with a plain text."""
    return Response(text.encode(), status, {"content-type": "text/plain; charset=utf-8"})


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers in ASGI's form."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
