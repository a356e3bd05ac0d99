"""The ASGI application of the fake: records requests, and applies the faults of answers."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from lmdeck._incoming.headers import joined_headers
from lmdeck._incoming.trust import LOOPBACK, AllowedHosts, refuse_request
from lmdeck.server.backend import BackendError
from lmdeck.server.errors import failure_body
from lmdeck.server.http_responses import json_response
from lmdeck.server.request_bodies import read_or_refuse, with_body
from lmdeck.testing.fake_connection import ResponseFinished, ResponseSender, Wire
from lmdeck.testing.faults import find_fault
from lmdeck.testing.raw import RawAnswer
from lmdeck.testing.received_requests import SentRequest
from lmdeck.testing.scripted_answers import Answer
from lmdeck.testing.scripted_backend import CURRENT, FakeExchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from lmdeck.server.joined_writes import JoinedWrites
    from lmdeck.testing.fake_connection import PlannedResponse
    from lmdeck.testing.scripting import Script

_NO_MODEL = (
    "{request} is not answered by a model: script a `body(…)`, an `error(…)` or a fault for it instead of a reply."
)
_SECRETS = ("authorization", "x-api-key", "cookie", "proxy-authorization")


class FakeASGIApp:
    """The ASGI application of a fake, in front of the server.

    `on_request` is called with each request, `on_response` after each response.
    """

    def __init__(
        self,
        app: ASGIApp,
        script: Script,
        *,
        seed: int,
        cuts: bool,
        transport_of: Callable[[Scope], JoinedWrites | None],
        on_request: Callable[[SentRequest], object],
        on_response: Callable[[], None],
        hosts: AllowedHosts = LOOPBACK,
    ) -> None:
        self._app = app
        self._script = script
        self._on_request = on_request
        self._count = 0
        self._seed = seed
        self._cuts = cuts
        self._transport_of = transport_of
        self._on_response = on_response
        self._hosts = hosts
        self._connections: dict[str, int] = {}
        self._open = 0
        self.most_at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        refused = refuse_request(scope["method"], joined_headers(scope["headers"]), self._hosts, needs_json=False)
        if refused is not None:
            text = f"{refused.message} {refused.hint}"
            await json_response({"error": text}, refused.status)(scope, receive, send)
            return
        body = await read_or_refuse(scope, receive, send)
        if body is None:
            return
        request = _request(scope, body, self._connection(scope))
        rng = random.Random(f"{self._seed}:{self._count}")  # where to split
        self._count += 1
        self._on_request(request)
        exchange = FakeExchange(request, self._script.rule_for(request), rng)
        CURRENT.set(exchange)
        wire = Wire(request.path, receive, send, rng, partial(self._transport_of, scope), cuts=self._cuts)
        sender = ResponseSender(wire, lambda: _fault(exchange))
        self._count_open(request, 1)
        try:
            if await self._send_scripted_response(exchange, wire):
                return
            await self._app(scope, with_body(body, receive), sender.send)
            await sender.finish()
        except ResponseFinished:
            pass  # the fault has sent the whole response
        finally:
            sender.stop()
            self._count_open(request, -1)
            self._on_response()

    async def _send_scripted_response(self, exchange: FakeExchange, wire: Wire) -> bool:
        """Send an answer that bypasses the server; return whether there was one."""
        request = exchange.request
        exchange.answer = answer = self._script.bypass_server(request, exchange.rule)
        if isinstance(answer, Answer) and answer.fault is None:
            failure = answer.refusal or BackendError(_NO_MODEL.format(request=request), status=501)
            answer = RawAnswer.json(failure_body(request.path, failure), failure.status)
        if not isinstance(answer, RawAnswer):
            return False
        await answer.send(wire)
        return True

    def _connection(self, scope: Scope) -> int:
        """Return the number of a connection, by its client address."""
        return self._connections.setdefault(str(scope.get("client")), len(self._connections))

    def _count_open(self, request: SentRequest, change: int) -> None:
        if request.wants_answer:
            self._open += change
            self.most_at_once = max(self.most_at_once, self._open)


def _fault(exchange: FakeExchange) -> Callable[[Wire, PlannedResponse], Awaitable[None]] | None:
    answer = exchange.answer
    if isinstance(answer, RawAnswer):
        return answer.send
    return None if answer is None or answer.fault is None else find_fault(answer.fault).bound(answer.fault_options)


def _request(scope: Scope, body: bytes, connection: int) -> SentRequest:
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
