"""HTTP/1.1 of this package's servers: uvicorn's protocol on httptools, with limits.

uvicorn does not limit a head on httptools: a client could send headers without end, or never finish them. What two servers
could read differently is refused (RFC 9112, sections 3.2, 6.1 and 11.2). Clients of HTTP/1.0 are answered without chunks.
Thousands of connections may be idle, so objects that few of them need are created on demand.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import httptools
import msgspec
from msgspec import Struct
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lmdeck.server.joined_writes import JoinedWrites
from lmdeck.server.scope_keys import ABORT, ON_LOST, WRITE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn._types import HTTPScope
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["RequestLimits", "protocol_with"]


DRAIN_SECONDS = 2.0
"""How long the rest of a request is awaited after its refusal: most clients read only when they have sent all."""

MAX_PIPELINED = 64
"""The largest number of requests that a client may send before the first one is answered."""

SLICE_BYTES = 16 << 10
"""The size of the pieces that are parsed: the limit of a head counts the whole pieces of which it has a part."""

_ABSOLUTE_TARGET = re.compile(rb"(?i)https?://([^/?#@]+)(/.*|\?.*|)")
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_VERSIONS = frozenset({"1.0", "1.1"})


class RequestLimits(Struct, frozen=True):
    """The limits of connections and of the heads of requests: sizes in bytes, times in seconds.

    `section` is the place of these settings, which refusals name; it is empty if there are no such settings.
    """

    header_bytes: int = 64 << 10
    header_seconds: float = 60.0
    connections: int = 10_000
    section: str = ""


class _Refused(Exception):  # control flow, not an error
    """A request is refused; `limit` is the name of the exceeded one."""

    def __init__(self, status: int, message: str, hint: str = "Send valid HTTP/1.1.", limit: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint
        self.limit = limit

    def response(self, section: str) -> bytes:
        """Return the whole response: an error in OpenAI's form, which names the setting."""
        setting = f"{section}.{self.limit}" if section and self.limit else None
        hint = f"{self.hint} The limit is the setting {setting}." if setting else self.hint
        error = {"message": f"{self} {hint}", "type": "invalid_request_error", "param": None, "code": setting}
        body = msgspec.json.encode({"error": error})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        return STATUS_LINE[self.status] + head + body


class _FlowControl(FlowControl):
    """uvicorn's flow control, which creates its event when a client first reads too slowly."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False

    @cached_property
    def _is_writable_event(self) -> asyncio.Event:  # type: ignore[override]  # an attribute there
        return asyncio.Event()


class _MessageEvent(asyncio.Event):
    """An event that takes 700 bytes less than asyncio's: every open request has one."""

    def __init__(self, *, is_set: bool) -> None:
        self._value = is_set
        self._waiters = []  # type: ignore[assignment]  # a deque there


class _Pipeline(list[Any]):
    """The requests that a client has sent before its last answer ended.

    Few clients have any, and an empty deque takes 760 bytes.
    """

    __slots__ = ()

    def appendleft(self, cycle: Any) -> None:
        """Add a request."""
        self.insert(0, cycle)

    def popleft(self) -> Any:
        """Remove and return the request that was added last."""
        return self.pop(0)


def _write_chunk(transport: asyncio.Transport, flow: FlowControl, data: bytes) -> bool:
    """Write a part of a chunked body; return whether the client keeps up."""
    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    return not flow.write_paused


async def _unframed(app: ASGIApp, cycle: RequestResponseCycle, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a client of HTTP/1.0, which does not support chunked encoding.

    The end of the connection ends the answer.
    """

    async def send_unframed(message: Message) -> None:
        if message["type"] == "http.response.start":
            cycle.chunked_encoding = False
        else:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    await app(scope, receive, send_unframed)


class _GuardedProtocol(HttpToolsProtocol):
    # More attributes than uvicorn's own in the dictionary of an instance would cost 1.3 KB a connection.
    __slots__ = ("_head_timer", "_is_head_repeated", "_is_in_head", "_on_lost", "_refusal", "_stalled_bytes")
    limits: ClassVar[RequestLimits]
    joins_writes: ClassVar[bool]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = None  # type: ignore[assignment]  # created with the first bytes
        self.pipeline = _Pipeline()  # type: ignore[assignment]  # a deque there
        self._stalled_bytes = 0  # received since the parser has last returned a head, a part of a body, or an end
        self._is_in_head = True
        self._is_head_repeated = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._on_lost: list[Callable[[], object]] = []
        self._refusal: bytes | None = None

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(JoinedWrites(transport) if self.joins_writes else transport)
        self.flow = _FlowControl(self.transport)
        self._start_timer()
        limit = self.limits.connections
        if len(self.connections) > limit:
            text = f"More than {limit} connections are open."
            self._refuse(_Refused(503, text, "Close unused connections.", "connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        while self._on_lost:
            self._on_lost.pop()()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is not None:
            return
        parser: httptools.HttpRequestParser | None = self.parser
        if parser is None:
            self.parser = self._new_parser()
        try:
            for start in range(0, len(data), SLICE_BYTES):
                piece = data[start : start + SLICE_BYTES]
                self._stalled_bytes += len(piece)
                self._parse(piece)
                self._check_size(self._stalled_bytes)
        except _Refused as refused:
            self._refuse(refused)
        else:
            if self._is_in_head and self._has_begun() and self._head_timer is None:
                self._start_timer()  # for the rest of the head of a further request

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._framing_after_upgrade() + data[offer.args[0] :]
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, _Refused):
                    raise error.__context__ from None
                raise _Refused(400, f"The request is not valid HTTP: {error}.") from None

    def _new_parser(self) -> httptools.HttpRequestParser:
        """Return a parser, as uvicorn does; connections that have sent nothing need none."""
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _framing_after_upgrade(self) -> bytes:
        """Return a head by which a new parser finds the body of a request with an offer.

        The offer of another protocol is ignored (RFC 9110, section 7.8; Java's client offers HTTP/2); httptools stops there.
        """
        self.parser = self._new_parser()
        self._is_head_repeated = self._has_begun()
        if not self._is_head_repeated:  # the request has no body, and has ended
            return b""
        framing = [b"%b: %b\r\n" % field for field in self.scope["headers"] if field[0] in _FRAMING]
        return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing)

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        if self._is_head_repeated:
            return
        super().on_message_begin()
        extensions = cast("dict[str, object]", self.scope)
        extensions[ABORT] = self.transport.abort
        extensions[ON_LOST] = self._on_lost

    def on_headers_complete(self) -> None:
        if self._is_head_repeated:
            self._is_head_repeated = False
        else:
            self._check_head()
            super().on_headers_complete()
            self._is_in_head = False
            self._stop_timer()
        self._stalled_bytes = 0
        self.headers = []  # for the fields after a chunked body, which are not headers (RFC 9110, section 6.5.1)

    def on_body(self, body: bytes) -> None:
        self._stalled_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._has_body():
            return  # it follows (`_framing_after_upgrade`)
        self._stop_timer()
        super().on_message_complete()
        self._stalled_bytes, self._is_in_head = 0, True
        self.scope = None  # type: ignore[assignment]  # the next request has not begun

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.message_event = _MessageEvent(is_set=cycle.message_event.is_set())
        if cycle.scope["http_version"] == "1.0":
            cycle.waiting_for_100_continue = False  # (RFC 9110, section 10.1.1)
            app = partial(_unframed, app, cycle)
        elif cycle.scope["method"] == "POST":  # its answer has chunks
            cast("dict[str, object]", cycle.scope)[WRITE] = partial(_write_chunk, self.transport, self.flow)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if self._refusal is not None:
            if is_last:
                self._send_refusal()
        elif self.cycle.response_complete and self.cycle.more_body and self._head_timer is None:
            self._head_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.close)

    # --- checks ---

    def _has_begun(self) -> bool:
        """Whether a part of a request has been read."""
        scope: HTTPScope | None = self.scope
        return scope is not None

    def _has_body(self) -> bool:
        return any(name in _FRAMING for name, _ in self.scope["headers"])

    def _check_head(self) -> None:
        self._check_size(len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers))
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise _Refused(505, f"HTTP/{version} is not supported.")
        if self.parser.get_method() == b"CONNECT":
            raise _Refused(405, "The method CONNECT is not supported.", "This server is not a proxy: use GET or POST.")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise _Refused(400, "The request must have one header Host.")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Refused(503, f"More than {MAX_PIPELINED} requests of this connection wait.", "Wait for the answers.")
        if not self.url.startswith(b"/"):
            self._read_target()

    def _check_size(self, size: int) -> None:
        limit = self.limits.header_bytes
        if size > limit:
            text = f"The headers are larger than {limit} bytes."
            raise _Refused(431, text, "Send fewer or shorter headers.", "header_bytes")

    def _read_target(self) -> None:
        """Read a target that is a URL of the host in the header (RFC 9112, section 3.2.2)."""
        target = _ABSOLUTE_TARGET.fullmatch(self.url)
        if target is None or (b"host", target[1]) not in self.headers:
            raise _Refused(400, "The target of the request is neither a path nor a URL of its host.")
        self.url = target[2] if target[2].startswith(b"/") else b"/" + target[2]

    # --- time and refusals ---

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._has_begun():  # a connection that was opened and not used
            self.transport.close()
            return
        text = f"The headers did not arrive within {self.limits.header_seconds:g} s."
        self._refuse(_Refused(408, text, "Send them at once.", "header_seconds"))

    def _refuse(self, refused: _Refused) -> None:
        """Send an error after the answers to earlier requests, and end the connection.

        What else arrives is ignored.
        """
        if self._refusal is not None or self.transport.is_closing():
            return
        self._stop_timer()
        self._refusal = refused.response(self.limits.section)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or (self._is_in_head and cycle.response_complete):
            self._send_refusal()
        elif self._is_in_head:
            return  # `on_response_complete` sends it
        elif self.pipeline:
            self.pipeline.popleft()  # the request with this body, which has not started
        elif cycle.response_started:
            self.transport.close()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_refusal()

    def _send_refusal(self) -> None:
        """Send the refusal, and close the connection after a while.

        At once would reset it while the client still sends, and the client would lose the refusal (RFC 9112, section 9.6).
        """
        if self._refusal is not None and not self.transport.is_closing():
            self.transport.write(self._refusal)
            self.transport.write_eof()
            self._head_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.close)


def protocol_with(limits: RequestLimits, *, joins_writes: bool) -> type[HttpToolsProtocol]:
    """Return a protocol class with these limits, for uvicorn's setting `http`.

    With `joins_writes`, what is written in one turn of the event loop is sent at once, which uvloop does itself.
    """
    return type("GuardedProtocol", (_GuardedProtocol,), {"limits": limits, "joins_writes": joins_writes})
