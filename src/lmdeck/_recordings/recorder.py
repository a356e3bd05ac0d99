"""A proxy between an application and LM Studio that records all exchanges."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lmdeck._incoming.disconnect import BodyRefusedError, ClientGoneError, read_body, run_until_disconnect
from lmdeck._incoming.headers import HOP_BY_HOP, joined_headers
from lmdeck._incoming.messages import Response, text_response
from lmdeck._incoming.trust import LOOPBACK, PAGE_ORIGIN, AllowedHosts, RefusedRequest, refuse_request
from lmdeck._recordings.cassette import LEFT, RecordedExchange, RecordedPiece, append
from lmdeck._recordings.redaction import redact
from lmdeck._transport import Timeouts, WireRequest
from lmdeck._transport.aiohttp import AiohttpTransport
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError, FileWriteError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from lmdeck._transport import AsyncResponse

OF_ONE_CONNECTION = HOP_BY_HOP | {"accept-encoding", "content-length", "host"}
NOT_FORWARDED = OF_ONE_CONNECTION | PAGE_ORIGIN
MAX_BODY_BYTES = 64 << 20
PATIENCE = Timeouts(connect=10.0, first_token=3600.0, idle=3600.0)
"""Long, since the application has its own time limits."""


_log = logging.getLogger("lmdeck.testing")


def _log_lost(error: FileWriteError) -> None:
    _log.error("%s", error)


class Recorder:
    """An ASGI application that forwards requests to `upstream` and records finished exchanges."""

    def __init__(
        self,
        upstream: str,
        path: str | Path,
        on_recorded: Callable[[RecordedExchange], object] | None = None,
        *,
        on_lost: Callable[[FileWriteError], object] = _log_lost,
        hosts: AllowedHosts = LOOPBACK,
    ) -> None:
        """Create a recorder that answers to the host names in `hosts`.

        `on_recorded` is called with each recorded exchange, `on_lost` with the reason why one was not recorded.

        Raises:
            ConfigurationError: `upstream` is not an `http://` or `https://` address.
        """
        if not upstream.startswith(("http://", "https://")):
            raise ConfigurationError(f"The upstream {upstream!r} is not an address.", hint="Write http://host:port.")
        self._upstream = upstream.rstrip("/").removesuffix("/v1")
        self._path = Path(path)
        self._on_recorded = on_recorded
        self._on_lost = on_lost
        self._hosts = hosts
        self._transport = AiohttpTransport(Settings())
        self.count = 0
        self.lost = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request."""
        if scope["type"] != "http":
            return
        headers = joined_headers(scope["headers"])
        refusal = _refusal(scope, headers, self._hosts)
        try:
            body = b"" if refusal else await read_body(scope, receive, MAX_BODY_BYTES)
        except ClientGoneError:
            return
        except BodyRefusedError as refused:
            refusal = text_response(f"{refused} {refused.hint}", refused.status)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        exchange = RecordedExchange(method=scope["method"], path=scope["path"], request_headers=headers)
        try:
            await run_until_disconnect(receive, self._forward(scope, headers, body, exchange, send))
        except ClientGoneError:
            exchange.ended = LEFT
        finally:
            self._store(exchange, body)

    async def _forward(
        self, scope: Scope, headers: dict[str, str], body: bytes, exchange: RecordedExchange, send: Send
    ) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        request = WireRequest(
            method=scope["method"],
            url=f"{self._upstream}{_raw_path(scope)}{f'?{query}' if query else ''}",
            body=body or None,
            headers={name: value for name, value in headers.items() if name not in NOT_FORWARDED},
            timeouts=PATIENCE,
        )
        began = time.perf_counter()
        try:
            answer = await self._transport.open(request)
            try:
                await _forward_response(answer, exchange, began, send)
            finally:
                answer.close()
        except TransportError as error:
            exchange.ended = f"{type(error).__name__}: {error.message}"
            if exchange.status:
                raise ConnectionResetError(exchange.ended) from error
            exchange.status = 502
            text = f"lmdeck record cannot reach {self._upstream}: {error.message}"
            await text_response(text, 502)(scope, _nothing, send)

    def _store(self, exchange: RecordedExchange, body: bytes) -> None:
        redact(exchange, body)
        try:
            append(exchange, self._path)
        except FileWriteError as error:  # the application has received its answer all the same
            self.lost += 1
            self._on_lost(error)
            return
        self.count += 1
        if self._on_recorded is not None:
            self._on_recorded(exchange)


async def _forward_response(answer: AsyncResponse, exchange: RecordedExchange, began: float, send: Send) -> None:
    exchange.status = answer.status
    exchange.headers = dict(answer.headers)
    raw = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.items()
        if name not in OF_ONE_CONNECTION
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    while data := await answer.read():
        exchange.pieces.append(RecordedPiece.of(data, time.perf_counter() - began))
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _refusal(scope: Scope, headers: dict[str, str], hosts: AllowedHosts) -> Response | None:
    """Return the refusal of a request from a page of another site, or with an invalid path.

    None if it is allowed.
    """
    refusal = refuse_request(scope["method"], headers, hosts)
    if refusal is None and not _raw_path(scope).startswith("/"):
        refusal = RefusedRequest(
            400, "lmdeck record forwards paths only, not full URLs.", "Send a path such as /v1/models."
        )
    return None if refusal is None else text_response(f"{refusal.message} {refusal.hint}", refusal.status)


def _raw_path(scope: Scope) -> str:
    """Return the path as it was sent, escapes included."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("latin-1")


async def _nothing() -> dict[str, str]:
    return {"type": "http.disconnect"}
