"""HTTP for the gateway: requests with bounded bodies, responses, and its own endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import parse_qsl, quote

import msgspec
from msgspec import Struct

from lmdeck._incoming.disconnect import ClientGoneError
from lmdeck._incoming.messages import IncomingRequest
from lmdeck.errors import APIError, InvalidRequestError, LMStudioError
from lmdeck.gateway.admission import Principal
from lmdeck.gateway.config import LimitsConfig
from lmdeck.relay import Kind, error_answer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Access", "Endpoint", "HTTPAnswer", "HTTPRequest", "error_response", "json_answer"]

Access: TypeAlias = Literal["open", "key", "operator"]
JSON_TYPE = "application/json"


class HTTPAnswer(Struct, kw_only=True):
    """A response; its body is bytes, or pieces that are sent as they arrive."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes | AsyncIterator[bytes] = b""


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPAnswer:
    """Return a response with a JSON body."""
    body = msgspec.json.encode(value)
    return HTTPAnswer(status=status, headers={"content-type": JSON_TYPE, **(headers or {})}, body=body)


def error_response(kind: Kind, error: LMStudioError, headers: Mapping[str, str] | None = None) -> HTTPAnswer:
    """Return an error as a response; with `retry_after`, it asks the client to retry."""
    answer = error_answer(kind, error)
    repeat = {"x-should-retry": "true"} if isinstance(error, APIError) and error.retry_after is not None else {}
    return HTTPAnswer(status=answer.status, headers={**answer.headers, **repeat, **(headers or {})}, body=answer.body)


class HTTPRequest(IncomingRequest):
    """A request to the gateway, with its sender and a bounded body.

    `params` are the path parameters of one of the gateway's own endpoints.
    """

    def __init__(self, scope: Scope, receive: Receive, limits: LimitsConfig) -> None:
        super().__init__(scope, receive, {})
        self.principal = Principal()
        self._limits = limits

    def forget_headers(self) -> None:
        """Release the headers when nothing reads them any more."""
        self.__dict__.pop("headers", None)
        self.scope["headers"] = []

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of repeated ones, the last."""
        return dict(parse_qsl(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))

    @property
    def url(self) -> str:
        """The URL with the path as it was sent, including escapes, and a placeholder host."""
        raw: bytes = self.scope.get("raw_path") or quote(self.path).encode()
        path = raw.partition(b"?")[0].decode("latin-1")
        query = self.scope.get("query_string", b"").decode("latin-1")
        return f"http://gateway{path if path.startswith('/') else f'/{path}'}{f'?{query}' if query else ''}"

    @property
    def peer(self) -> str:
        """The address of the client, or of the proxy that forwards its requests."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    async def stream(
        self, limit: int | None = None, too_large: InvalidRequestError | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives.

        `limit` is its largest size in bytes; None is the limit of the configuration. A larger limit allows proportionally more
        time. `too_large` is the error for a larger body.

        Raises:
            InvalidRequestError: It is larger, or arrives more slowly, than the configuration allows, or is compressed.
            ClientGoneError: The client has left.
        """
        default, seconds = self._limits.body_bytes, self._limits.body_seconds
        size, limit = 0, default if limit is None else limit
        seconds *= max(1.0, limit / default)
        too_large = _too_large(limit) if too_large is None else too_large
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            reason = f"The request's body has the content coding {coding[:40]!r}, which the gateway does not decode."
            raise InvalidRequestError(reason, status=415, hint="Send it without `Content-Encoding`.")
        transfer = self.headers.get("transfer-encoding", "chunked").strip().lower()
        if transfer != "chunked":
            reason = f"The request has the transfer coding {transfer[:40]!r}, which the gateway does not read."
            raise InvalidRequestError(reason, status=501, hint="Send it with `Content-Length`, or only chunked.")
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    size += len(message.get("body", b""))
                    if size > limit:
                        raise too_large
                    if message.get("body"):
                        yield message["body"]
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise InvalidRequestError(
                f"The request body did not arrive within {seconds:g} s. The limit is the setting limits.body_seconds.",
                status=408,
                hint="Send a smaller body, or use a faster connection.",
            ) from None

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            InvalidRequestError: As for `stream`.
        """
        async with aclosing(self.stream()) as pieces:
            return b"".join([piece async for piece in pieces])


def _too_large(limit: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"The request body is larger than {limit} bytes. The limit is the setting limits.body_bytes.",
        status=413,
        hint="Send a shorter history or smaller images.",
    )


def json_object(body: bytes) -> dict[str, Any]:
    """Decode a body that has to be a JSON object.

    Raises:
        InvalidRequestError: It is something else.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"The request's body is not JSON: {error}.", status=400) from error
    if not isinstance(value, dict):
        raise InvalidRequestError("The request's body is not a JSON object.", status=400)
    return value


def object_or_empty(body: bytes) -> dict[str, Any]:
    """Decode a body that may be anything; `{}` if it is not a JSON object."""
    if body[:1] == b"{":
        with suppress(InvalidRequestError):
            return json_object(body)
    return {}


Endpoint: TypeAlias = Callable[[HTTPRequest], Awaitable[HTTPAnswer]]


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers in ASGI's form; characters beyond Latin-1 are escaped."""
    return [(name.encode("latin-1"), value.encode("latin-1", "backslashreplace")) for name, value in headers.items()]


async def send_answer(send: Send, answer: HTTPAnswer) -> None:
    """Send a response of one of the gateway's own endpoints."""
    headers: dict[str, Any] = dict(answer.headers)
    if isinstance(answer.body, bytes):
        headers["content-length"] = str(len(answer.body))
        await send({"type": "http.response.start", "status": answer.status, "headers": raw_headers(headers)})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": raw_headers(headers)})
    async for piece in answer.body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
