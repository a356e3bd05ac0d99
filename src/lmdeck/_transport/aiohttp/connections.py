"""Connections, pools and sessions for aiohttp.

A connection that was idle for four seconds is not reused, because LM Studio closes it after five; nor is one on which bytes
have arrived that do not belong to a request.
"""

from __future__ import annotations

import asyncio
import base64
import re
import select
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from lmdeck._forking import disown
from lmdeck._transport import FIRST_FINAL_STATUS, MAX_HEADERS, MAX_LINE_BYTES, CheckAddress
from lmdeck._transport._names import look_up_async

IDLE_SECONDS = 4.0
READ_BUFFER = 1 << 18
_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)


async def keep_session(
    tls: ssl.SSLContext | None, check_address: CheckAddress | None
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Yield a session and close it with the generator, which the event loop closes at its end.

    Closing does not wait: the loop may not run long enough for that.
    """
    connector = Connector(
        limit=0,
        keepalive_timeout=IDLE_SECONDS,
        ssl=True if tls is None else tls,
        resolver=Resolver(),
        socket_factory=None if check_address is None else partial(_checked_socket, check_address),
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        read_bufsize=READ_BUFFER,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADERS,
    )
    # aiohttp would silently repeat a GET or PUT; its own test client turns that off in the same way.
    session._retry_connection = False  # noqa: SLF001  # there is no public switch
    try:
        yield session
    finally:
        connector.close_at_once()
        session.detach()


def _checked_socket(check_address: CheckAddress, info: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for an address, after checking it."""
    family, kind, protocol, _, address = info
    check_address(str(address[0]))
    return socket.socket(family, kind, protocol)


def proxy_address(setting: str | None) -> tuple[URL | None, dict[str, str]]:
    """Return a proxy's address without its credentials, and a header with them.

    aiohttp's errors would show the credentials.
    """
    if setting is None:
        return None, {}
    url = URL(setting if "://" in setting else f"http://{setting}")
    if url.user is None:
        return url, {}
    credentials = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return url.with_user(None), {"Proxy-Authorization": f"Basic {credentials}"}


class Resolver(AbstractResolver):
    """A resolver in separate threads: an event loop waits for its own threads at its end."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name."""
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in await look_up_async(host, port)
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class _Heads(list[Any]):
    """The heads of answers that have not been read.

    There is usually at most one, and an empty deque takes 760 bytes.
    """

    __slots__ = ()

    def popleft(self) -> Any:
        """Remove and return the first."""
        return self.pop(0)


class Listener:
    """The base class of what a connection reports to."""

    __slots__ = ()

    def on_change(self) -> None:
        """Called after each arrival of bytes, and at the end of the connection."""
        raise NotImplementedError


class Protocol(ResponseHandler, asyncio.BufferedProtocol):
    """A connection that closes if bytes arrive while it is idle.

    They would be read as the next answer. All connections of an event loop read into one buffer: without it, asyncio allocates
    256 KiB for each read, and where glibc asks the system for them (15 µs), that takes as long as all else for one event.
    """

    __slots__ = ("_body", "_listener", "_read_buffer", "is_idle")

    def __init__(self, loop: asyncio.AbstractEventLoop, read_buffer: memoryview) -> None:
        super().__init__(loop)
        self._buffer = _Heads()  # type: ignore[assignment]  # a deque there
        self._body: aiohttp.StreamReader | None = None
        self._listener: Listener | None = None
        self.is_idle = False
        self._read_buffer = read_buffer

    def report_to(self, listener: Listener, body: aiohttp.StreamReader) -> None:
        """Report each arrival of bytes, and the end of the connection, to a listener.

        The end of the connection also ends `body`: on invalid framing after the head, aiohttp closes the connection without
        notifying the reader.
        """
        self._body, self._listener = body, listener
        if self.transport is None:
            self._end_body()

    def stop_reports(self, listener: Listener) -> None:
        """Report nothing more to a listener."""
        if self._listener is listener:  # else the connection already has another answer
            self._listener = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the body that is being read."""
        super().connection_lost(exc)
        self._end_body()
        if self._listener is not None:
            self._listener.on_change()

    def become_idle(self) -> None:
        """Expect no bytes until the next request."""
        self.is_idle, self._body = True, None

    def _end_body(self) -> None:
        body, self._body = self._body, None
        if body is not None and not body.is_eof() and body.exception() is None:
            error = aiohttp.ClientPayloadError("the connection ended")
            error.__cause__ = self.exception() or OSError()  # the body would set it only for a read that waits
            body.set_exception(error)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for the next read, which `buffer_updated` empties before any other."""
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Receive the bytes that were read into the buffer."""
        self.data_received(bytes(self._read_buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Receive bytes from the server."""
        if self.is_idle and data:
            self.force_close()
        if self._body is None:
            data = self._receive_heads(data)
        super().data_received(data)
        if self._listener is not None:
            self._listener.on_change()

    def _receive_heads(self, data: bytes) -> bytes:
        """Receive the heads at the start of `data` one by one, and return what follows them.

        aiohttp's parser drops an answer that is whole if invalid bytes follow it in the same read.
        """
        start = 0
        while self._awaits_head and (blank_line := _BLANK_LINE.search(data, start)) and blank_line.end() < len(data):
            super().data_received(data[start : blank_line.end()])
            start = blank_line.end()
        return data[start:]

    @property
    def _awaits_head(self) -> bool:
        """Whether neither an error nor the head of an answer that is not interim has arrived."""
        if self.exception() is not None:
            return False
        return not self._buffer or self._buffer[-1][0][0].code < FIRST_FINAL_STATUS

    def _has_begun_another(self) -> bool:
        """Whether the last bytes of an answer were followed by the beginning of another one."""
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # of the parser, which reads the beginning as a whole
            return True

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Continue reading if it was paused.

        aiohttp calls this after every read, and would run the parser and resume the transport each time.
        """
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def is_connected(self) -> bool:
        """Whether the connection can be used."""
        if self.is_idle and (self.should_close or _has_bytes(self) or self._has_begun_another()):
            self.abort()
        return super().is_connected()


class Connector(aiohttp.TCPConnector):
    """A connector that aborts connections that cannot be reused.

    A plain close waits until the server has read everything written.
    """

    def __init__(self, **options: Any) -> None:  # the base's options
        super().__init__(**options)
        read_buffer = memoryview(bytearray(READ_BUFFER))
        self._factory: Callable[[], ResponseHandler] = partial(  # type: ignore[assignment]  # of a subclass
            Protocol, loop=asyncio.get_running_loop(), read_buffer=read_buffer
        )

    async def _get(self, key: Any, traces: Any) -> Any:  # as below
        connection = await super()._get(key, traces)
        if connection is not None and isinstance(connection.protocol, Protocol):
            connection.protocol.is_idle = False
        return connection

    def close_at_once(self) -> None:
        """Close every connection, without waiting until the server has read what was written."""
        self._close()

    def disown(self) -> None:
        """Leave every connection to the parent process."""
        idle = [protocol for protocols in self._conns.values() for protocol, _ in protocols]
        for protocol in [*idle, *self._acquired]:
            if protocol.transport is not None:
                disown(protocol.transport.get_extra_info("socket").fileno())
        self._conns.clear()
        self._acquired.clear()
        self._closed = True

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)
        if isinstance(protocol, Protocol):
            protocol.become_idle()


def _has_bytes(protocol: ResponseHandler) -> bool:
    """Whether bytes, or the end, have arrived that the event loop has not read yet."""
    sock = None if protocol.transport is None else protocol.transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
