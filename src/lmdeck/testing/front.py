"""What stands before the server: keeps each request, and puts the fault of its answer between it and the socket."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from lmdeck.testing.backend import CURRENT, Exchange
from lmdeck.testing.faults import find_fault
from lmdeck.testing.sent import SentRequest
from lmdeck.testing.wire import Outgoing, OverError, Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from lmdeck.testing.wire import Parts

__all__ = ["Front"]

MAX_BODY_BYTES = 65 << 20
_SECRETS = ("authorization", "x-api-key", "cookie", "proxy-authorization")


class Front:
    """The ASGI application of a fake."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        seed: int,
        cuts: bool,
        transport_of: Callable[[Scope], asyncio.Transport | None],
        tell: Callable[[SentRequest], object],
        answered: Callable[[], None],
    ) -> None:
        self._app = app
        self._tell = tell
        self._count = 0
        self._seed = seed
        self._cuts = cuts
        self._transport_of = transport_of
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        request = _sent(scope, body)
        rng = random.Random(f"{self._seed}:{self._count}")  # where to cut
        self._count += 1
        self._tell(request)
        exchange = Exchange(request, rng)
        CURRENT.set(exchange)
        wire = Wire(request.path, receive, send, rng, self._transport_of(scope), cuts=self._cuts)
        outgoing = Outgoing(wire, lambda: _fault(exchange))
        try:
            await self._app(scope, _replayed(body, receive), outgoing.send)
            await outgoing.finish()
        except OverError:
            """The fault has said all there is to say."""
        finally:
            outgoing.stop()
            self._answered()


def _fault(exchange: Exchange) -> Callable[[Wire, Parts], Awaitable[None]] | None:
    answer = exchange.answer
    return None if answer is None or answer.fault is None else find_fault(answer.fault).bound(answer.fault_options)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body to the application, and after it what comes."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _sent(scope: Scope, body: bytes) -> SentRequest:
    try:
        decoded = msgspec.json.decode(body) if body else {}
    except msgspec.DecodeError:
        decoded = {}
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return SentRequest(
        method=scope["method"],
        path=scope["path"],
        headers={name: "…" if name in _SECRETS else value for name, value in headers.items()},
        body=decoded if isinstance(decoded, dict) else {},
    )
