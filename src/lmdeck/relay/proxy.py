"""The repairing proxy as an ASGI application.

Its public name is `lmdeck.contrib.asgi.RepairProxy`.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Unpack
from urllib.parse import quote

from lmdeck._incoming.disconnect import BodyRefusedError, ClientGoneError, read_body, run_until_disconnect
from lmdeck._incoming.headers import joined_headers
from lmdeck._incoming.trust import LOOPBACK, PAGE_ORIGIN, AllowedHosts, refuse_request
from lmdeck._requests.base_url import BaseURL
from lmdeck.config import Settings
from lmdeck.errors import InvalidRequestError, LMStudioError
from lmdeck.relay import ErrorAnswer, error_answer, route_of
from lmdeck.relay.upstream import AsyncUpstream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from lmdeck.config import ClientSettings
    from lmdeck.relay.upstream import AsyncRelayedResponse

MAX_BODY_BYTES = 64 << 20
CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "cookie"})


class RepairProxy:
    """A proxy that relays requests to LM Studio and repairs the answers in their wire format.

    The keywords are those of `LMStudio`; its settings select the server. Requests of foreign web pages, and requests to host
    names that `hosts` does not allow, are refused. If a project's file names a server elsewhere, the keys and cookies of
    requests are not forwarded to it.
    """

    def __init__(self, hosts: AllowedHosts = LOOPBACK, **settings: Unpack[ClientSettings]) -> None:
        resolved = Settings.resolve(settings)
        self.upstream_url = BaseURL.from_settings(resolved).root
        self._upstream = AsyncUpstream(resolved)
        self._not_forwarded = PAGE_ORIGIN if resolved.is_address_trusted else PAGE_ORIGIN | CREDENTIALS
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request, and cancel it when the client disconnects."""
        if scope["type"] == "lifespan":
            await _run_lifespan(receive, send, self._upstream)
        if scope["type"] != "http":
            return
        headers = joined_headers(scope["headers"])
        url = _url(scope)
        refusal = refuse_request(scope["method"], headers, self._hosts)
        try:
            if refusal is not None:
                raise InvalidRequestError(refusal.message, hint=refusal.hint, status=refusal.status)
            body = await _body(scope, receive)
        except ClientGoneError:
            return
        except LMStudioError as error:
            await _send_error(error_answer(route_of(scope["method"], url).kind, error), send)
            return
        forwarded = {name: value for name, value in headers.items() if name not in self._not_forwarded}
        try:
            await run_until_disconnect(receive, self._relay(scope["method"], url, forwarded, body, send))
        except ClientGoneError:
            return

    async def _relay(self, method: str, url: str, headers: dict[str, str], body: bytes, send: Send) -> None:
        relayed = await self._upstream.send(method, url, headers, body)
        try:
            await _send(relayed, send)
        finally:
            relayed.close()


async def _send(relayed: AsyncRelayedResponse, send: Send) -> None:
    await send({"type": "http.response.start", "status": relayed.status, "headers": _raw(relayed.headers)})
    async with aclosing(relayed.chunks) as chunks:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_error(answer: ErrorAnswer, send: Send) -> None:
    headers = _raw(answer.headers)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def _run_lifespan(receive: Receive, send: Send, upstream: AsyncUpstream) -> None:
    """Handle the lifespan protocol: prepare the upstream at startup, and close it at shutdown."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            upstream.prepare()
        if message["type"] == "lifespan.shutdown":
            await upstream.aclose()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _url(scope: Scope) -> str:
    """Return a URL with the path as it was sent, including escapes, and a placeholder host."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.partition(b"?")[0].decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    return f"http://proxy{path if path.startswith('/') else f'/{path}'}{f'?{query}' if query else ''}"


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Read a body.

    Raises:
        InvalidRequestError: It is larger than `MAX_BODY_BYTES`, or does not arrive.
    """
    try:
        return await read_body(scope, receive, MAX_BODY_BYTES)
    except BodyRefusedError as refused:
        raise InvalidRequestError(str(refused), status=refused.status, hint=refused.hint) from None
