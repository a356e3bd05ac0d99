"""Conversion of requests that LM Studio would refuse, such as those of Claude Code.

They are converted as by `lmdeck.relay`: tools that only a vendor's servers run are removed, custom tools become functions, and
missing fields are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lmdeck.errors import LMStudioError
from lmdeck.relay.endpoint_urls import route_of
from lmdeck.relay.requests import RelayRequest
from lmdeck.server.request_bodies import read_or_refuse, with_body

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_CONVERTED = frozenset({"chat", "completions", "messages", "responses"})


class ToleranceMiddleware:
    """Middleware that converts request bodies.

    Bodies that cannot be converted are passed on, and refused with LM Studio's message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        route = route_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if route is None or route.kind not in _CONVERTED:
            await self._app(scope, receive, send)
            return
        body = await read_or_refuse(scope, receive, send)
        if body is None:
            return
        try:
            converted = msgspec.json.encode(RelayRequest(route.kind, body).body)
        except LMStudioError:
            converted = body
        await self._app(scope, with_body(converted, receive), send)
