"""The gateway's HTTP protocol: uvicorn's on httptools, with limits for a request's head.

It also answers clients of HTTP/1.0. On httptools, uvicorn does not limit a head: a client could send headers without end, or
never finish them. Thousands of connections may be idle, so objects that few of them need are created on demand.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lmdeck.gateway.answer_sender import ABORT, ON_LOST, WRITE
from lmdeck.gateway.config import LimitsConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["protocol_with"]


DRAIN_SECONDS = 2.0
_H2C = re.compile(rb"(?i)\A((?:[^\r\n]+\r\n)+?)upgrade:[ \t]*h2c[ \t]*\r\n")
"""The head of a request up to an offer of HTTP/2, which Java's client makes.

The parser would take the body of such a request for HTTP/2.
"""


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
    __slots__ = ("_head_bytes", "_head_timer", "_is_in_head", "_on_lost")
    limits: ClassVar[LimitsConfig]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.pipeline = _Pipeline()  # type: ignore[assignment]  # a deque there
        self._head_bytes = 0
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._on_lost: list[Callable[[], object]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = _FlowControl(transport)
        self._expect_head()
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "limits.connections", f"More than {self.limits.connections} connections are open.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        while self._on_lost:
            self._on_lost.pop()()

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            if b"h2c" in data:
                data = _H2C.sub(b"\\1", data, count=1)
            if self._head_timer is None:  # the first bytes of a further request
                self._start_timer()
            self._head_bytes += len(data)
        super().data_received(data)
        # The head and a part of the body may come in one read, so the limit is checked only if the head has not ended.
        if self._is_in_head and self._head_bytes > self.limits.header_bytes:
            self._refuse(431, "limits.header_bytes", f"The headers are larger than {self.limits.header_bytes} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]  # an extension of ours
        self.scope[ON_LOST] = self._on_lost  # type: ignore[literal-required]  # as above

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        if self._header_size() > self.limits.header_bytes:
            self._refuse(431, "limits.header_bytes", f"The headers are larger than {self.limits.header_bytes} bytes.")
            return
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        is_old = cycle.scope["http_version"] == "1.0"
        cycle.message_event = _MessageEvent(is_set=cycle.message_event.is_set())
        if cycle.scope["method"] == "POST" and not is_old:  # its answer has chunks
            cycle.scope[WRITE] = partial(_write_chunk, self.transport, self.flow)  # type: ignore[literal-required]  # as ABORT
        super()._start_asgi_task(cycle, partial(_unframed, app, cycle) if is_old else app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and self._head_timer is None:
            # Most senders read a refusal only after the body, so that its rest is awaited, but not for long.
            self._head_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.close)

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()
        self._head_bytes, self._is_in_head = 0, True

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP."""
        self._refuse(400, "", msg)

    def _header_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _expect_head(self) -> None:
        self._head_bytes, self._is_in_head = 0, True
        self._start_timer()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        seconds = self.limits.header_seconds
        if self._head_bytes == 0:  # a connection that was opened and not used
            self.transport.close()
            return
        self._refuse(408, "limits.header_seconds", f"The headers did not arrive within {seconds:g} s.")

    def _refuse(self, status: int, setting: str, message: str) -> None:
        """Send an error in OpenAI's form, which names the setting, and close the connection."""
        if self.transport.is_closing():
            return
        hint = f"The limit is the setting {setting}." if setting else "Send valid HTTP/1.1."
        error = {
            "message": f"{message} {hint}",
            "type": "invalid_request_error",
            "param": None,
            "code": setting or None,
        }
        body = msgspec.json.encode({"error": error})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def protocol_with(limits: LimitsConfig) -> type[HttpToolsProtocol]:
    """Return a protocol class with these limits, for uvicorn's setting `http`."""
    return type("GuardedProtocol", (_GuardedProtocol,), {"limits": limits})
