"""A server between an application and LM Studio that passes everything on and keeps it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from lmdeck._transport import Timeouts, WireRequest
from lmdeck._transport.aiohttp import AiohttpTransport
from lmdeck.config import Settings
from lmdeck.errors import TransportError
from lmdeck.server.delivery import ClientGoneError, attended
from lmdeck.testing.recordings.cassette import LEFT, Exchange, Piece, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from lmdeck._transport import AsyncResponse

__all__ = ["Recorder"]

HOP_HEADERS = frozenset({
    "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length", "accept-encoding",
    "proxy-connection",
})  # fmt: skip
MAX_BODY_BYTES = 64 << 20
PATIENCE = Timeouts(connect=10.0, first_token=3600.0, idle=3600.0)
"""The application's own limits are the ones that count."""


class Recorder:
    """An ASGI application that forwards to `upstream` and writes each exchange to a file as soon as it is over."""

    def __init__(self, upstream: str, path: str | Path, tell: Callable[[Exchange], object] | None = None) -> None:
        self._upstream = upstream.rstrip("/").removesuffix("/v1")
        self._path = Path(path)
        self._tell = tell
        self._transport = AiohttpTransport(Settings())
        self.count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = Exchange(
            method=scope["method"],
            path=scope["path"],
            request_headers=without_secrets(given),
            request=_decoded(body),
        )
        try:
            await attended(receive, self._forward(scope, given, body, exchange, send))
        except ClientGoneError:
            exchange.ended = LEFT
        finally:
            self._keep(exchange)

    async def _forward(
        self, scope: Scope, headers: dict[str, str], body: bytes, exchange: Exchange, send: Send
    ) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        request = WireRequest(
            method=scope["method"],
            url=f"{self._upstream}{scope['path']}{f'?{query}' if query else ''}",
            body=body or None,
            headers={name: value for name, value in headers.items() if name not in HOP_HEADERS},
            timeouts=PATIENCE,
        )
        began = time.perf_counter()
        try:
            answer = await self._transport.open(request)
            try:
                await _pass_back(answer, exchange, began, send)
            finally:
                answer.close()
        except TransportError as error:
            exchange.ended = f"{type(error).__name__}: {error.message}"
            if exchange.status:
                raise ConnectionResetError(exchange.ended) from error
            exchange.status = 502
            text = f"lmdeck record cannot reach {self._upstream}: {error.message}"
            await Response(text, 502, media_type="text/plain")(scope, _nothing, send)

    def _keep(self, exchange: Exchange) -> None:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(exchange) + b"\n")
        self.count += 1
        if self._tell is not None:
            self._tell(exchange)


async def _pass_back(answer: AsyncResponse, exchange: Exchange, began: float, send: Send) -> None:
    exchange.status = answer.status
    exchange.headers = without_secrets(answer.headers)
    raw = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.items()
        if name not in HOP_HEADERS
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    while data := await answer.read():
        exchange.pieces.append(Piece.of(data, time.perf_counter() - began))
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return b"".join(parts)[:MAX_BODY_BYTES]


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace")


async def _nothing() -> dict[str, str]:
    return {"type": "http.disconnect"}
