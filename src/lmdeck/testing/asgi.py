"""What stands before the server: keeps each request, and puts the fault of its answer between it and the socket."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import Headers

from lmdeck.server.backend import BackendError
from lmdeck.server.delivery import json_response
from lmdeck.server.errors import failure_body
from lmdeck.testing.answers import Answer
from lmdeck.testing.backend import CURRENT, Exchange
from lmdeck.testing.connection import Outgoing, OverError, Wire
from lmdeck.testing.faults import find_fault
from lmdeck.testing.raw import RawAnswer
from lmdeck.testing.received_requests import SentRequest
from lmdeck.web.trust import LOOPBACK, AllowedHosts, refuse_request

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from lmdeck.testing.connection import Parts
    from lmdeck.testing.scripting import Script

MAX_BODY_BYTES = 65 << 20
_NO_MODEL = "No model answers {request}: script a `body(…)`, an `error(…)` or a fault for it, but no words."
_SECRETS = ("authorization", "x-api-key", "cookie", "proxy-authorization")


class Front:
    """The ASGI application of a fake."""

    def __init__(
        self,
        app: ASGIApp,
        script: Script,
        *,
        seed: int,
        cuts: bool,
        transport_of: Callable[[Scope], asyncio.Transport | None],
        tell: Callable[[SentRequest], object],
        answered: Callable[[], None],
        hosts: AllowedHosts = LOOPBACK,
    ) -> None:
        self._app = app
        self._script = script
        self._tell = tell
        self._count = 0
        self._seed = seed
        self._cuts = cuts
        self._transport_of = transport_of
        self._answered = answered
        self._hosts = hosts
        self._connections: dict[str, int] = {}
        self._open = 0
        self.most_at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        refused = refuse_request(scope["method"], Headers(scope=scope), self._hosts, needs_json=False)
        if refused is not None:
            text = f"{refused.message} {refused.hint}"
            await json_response({"error": text}, refused.status)(scope, receive, send)
            return
        body = await _body(receive)
        request = _sent(scope, body, self._connection(scope))
        rng = random.Random(f"{self._seed}:{self._count}")  # where to cut
        self._count += 1
        self._tell(request)
        exchange = Exchange(request, self._script.rule_for(request), rng)
        CURRENT.set(exchange)
        wire = Wire(request.path, receive, send, rng, self._transport_of(scope), cuts=self._cuts)
        outgoing = Outgoing(wire, lambda: _fault(exchange))
        self._count_open(request, 1)
        try:
            if await self._says_itself(exchange, wire):
                return
            await self._app(scope, _replayed(body, receive), outgoing.send)
            await outgoing.finish()
        except OverError:
            """The fault has said all there is to say."""
        finally:
            outgoing.stop()
            self._count_open(request, -1)
            self._answered()

    async def _says_itself(self, exchange: Exchange, wire: Wire) -> bool:
        """Send what is scripted past the server; tell whether that was the answer."""
        request = exchange.request
        exchange.answer = answer = self._script.past_the_server(request, exchange.rule)
        if isinstance(answer, Answer) and answer.fault is None:
            failure = answer.refusal or BackendError(_NO_MODEL.format(request=request), status=501)
            answer = RawAnswer.json(failure_body(request.path, failure), failure.status)
        if not isinstance(answer, RawAnswer):
            return False
        await answer.play(wire)
        return True

    def _connection(self, scope: Scope) -> int:
        """Number a connection by the address that it comes from."""
        return self._connections.setdefault(str(scope.get("client")), len(self._connections))

    def _count_open(self, request: SentRequest, change: int) -> None:
        if request.wants_answer:
            self._open += change
            self.most_at_once = max(self.most_at_once, self._open)


def _fault(exchange: Exchange) -> Callable[[Wire, Parts], Awaitable[None]] | None:
    answer = exchange.answer
    if isinstance(answer, RawAnswer):
        return answer.play
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


def _sent(scope: Scope, body: bytes, connection: int) -> SentRequest:
    try:
        decoded = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = {}
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return SentRequest(
        method=scope["method"],
        path=scope["path"],
        headers={name: "…" if name in _SECRETS else value for name, value in headers.items()},
        body=decoded if isinstance(decoded, dict) else {},
        connection=connection,
    )
