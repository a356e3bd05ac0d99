"""The sync transport, on urllib3.

urllib3 pools and connects; four things are added below it. Chunked bodies are read many chunks at a time. A pooled
connection that was idle for four seconds is not used again, because LM Studio closes it after five. An answer that is left
early is cut off at the socket, so that the server stops generating. And a limit on several reads bounds them together.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from lmdeck.config import Settings
from lmdeck.errors import (
    ConfigurationError,
    ConnectionLostError,
    LMStudioError,
    MalformedStreamError,
    ServerUnreachableError,
    TransportError,
)
from lmdeck.transport import DRAIN_SECONDS, CheckAddress, WireRequest
from lmdeck.transport._chunked import ChunkedDecoder, ChunkedError
from lmdeck.transport._clock import Deadlines
from lmdeck.transport._tls import TLS_HINT, ssl_context

__all__ = ["IDLE_SECONDS", "Urllib3Transport", "translate"]

IDLE_SECONDS = 4.0
READ_BYTES = 1 << 18
POOL_SIZE = 100


class Urllib3Transport:
    """Send requests over a pool of connections; safe to share between threads."""

    def __init__(self, settings: Settings, check_address: CheckAddress | None = None) -> None:
        self._manager = _pool_manager(settings)
        if check_address is not None:
            self._manager.pool_classes_by_scheme = {
                "http": _guarded(_Pool, check_address),
                "https": _guarded(_TLSPool, check_address),
            }
        self._pools: dict[str, HTTPConnectionPool] = {}

    def open(self, request: WireRequest, /) -> Urllib3Response:
        """Send a request and wait for the head of its answer.

        Raises:
            TransportError: Nothing listens there, the connection broke, or a time limit ran out.
        """
        deadlines = Deadlines(request.timeouts)
        left, phase = deadlines.remaining()
        try:
            send, url = self._way(request)
            response = send(
                request.method,
                url,
                redirect=False,
                body=request.body,
                headers=request.wire_headers(),
                preload_content=False,
                retries=False,
                timeout=urllib3.Timeout(connect=min(request.timeouts.connect, left), read=left),
            )
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            cause = _root(error)
            # A connection may take `connect`, or what is left of the other limits, and the shorter of the two is named.
            late = TimeoutError if left > request.timeouts.connect else (TimeoutError, ConnectTimeoutError)
            if isinstance(cause, (ReadTimeoutError, late)) and not isinstance(cause, NewConnectionError):
                raise deadlines.expired(phase) from error
            raise translate(error, request) from error
        return Urllib3Response(response, deadlines, request)

    def close(self) -> None:
        """Close every connection."""
        self._pools.clear()
        self._manager.clear()

    def _way(self, request: WireRequest) -> tuple[Callable[..., BaseHTTPResponse], str]:
        """Give what sends a request and the URL it takes; without a proxy that is the server's pool, looked up once."""
        if self._manager.proxy is not None:
            return self._manager.urlopen, request.url
        server = request.server
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = self._manager.connection_from_url(server)
        return pool.urlopen, request.url.removeprefix(server)


class Urllib3Response:
    """An answer whose body is read as it arrives."""

    def __init__(self, response: BaseHTTPResponse, deadlines: Deadlines, request: WireRequest) -> None:
        self._response = response
        self._deadlines = deadlines
        self._request = request
        self._connection = response.connection
        self._reads = self._connection.reads if isinstance(self._connection, _Pooled) else None
        if self._reads is not None:
            self._reads.by = deadlines.all_by
        self._is_finished = False
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def read(self) -> bytes:
        """Give what has arrived, at least one byte; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit ran out.
        """
        left, phase = self._deadlines.remaining()
        try:
            if self._reads is not None:
                self._reads.limit(left)
            data = self._response.read1(READ_BYTES)
        except ReadTimeoutError as error:
            self.close()
            raise self._deadlines.expired(phase) from error
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise translate(error, self._request) from error
        self._deadlines.note_bytes()
        if not data:
            if self._is_finished:  # by `close`, and maybe in another thread
                raise ConnectionLostError("The answer was closed before its end.")
            self._is_finished = True
            self._response.release_conn()
        elif isinstance(self._connection, _Pooled):
            self._connection.last_used = time.monotonic()
        return data

    def drain(self) -> None:
        """Read what is left of a finished answer, for a moment only, so that the connection can be used again."""
        with contextlib.suppress(HTTPError, OSError, http.client.HTTPException, ValueError):  # then it is cut off below
            if self._reads is not None:
                self._reads.by = time.monotonic() + DRAIN_SECONDS
            while not self._is_finished and len(self._response.read1(READ_BYTES)) == 0:
                self._is_finished = True
                self._response.release_conn()
        self.close()

    def close(self) -> None:
        """Let go of the connection; a body that was not read to its end is cut off at the socket."""
        if self._is_finished:
            return
        self._is_finished = True
        if self._reads is not None:
            with contextlib.suppress(OSError):  # it may be gone already
                self._reads.sock.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._response.release_conn()


class _TimedReads(io.RawIOBase):
    """A socket's bytes: each read within its timeout, and all of them `by` a moment, if one is set."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.by: float | None = None
        self._seconds = sock.gettimeout()
        self._hold = sock.makefile("rb", buffering=0)  # the socket stays open for as long as it is read

    def limit(self, seconds: float) -> None:
        """Set how long the next reads may take, each."""
        if seconds != self._seconds and not self.closed:
            self.sock.settimeout(seconds)
            self._seconds = seconds

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # a buffer has no type before Python 3.12
        """Read what has arrived, at least one byte."""
        if self.by is not None:
            left = self.by - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.sock.settimeout(left if self._seconds is None else min(left, self._seconds))
        return self.sock.recv_into(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._hold.close()
        super().close()


class _BulkHTTPResponse(http.client.HTTPResponse):
    """The standard library's response, reading chunked bodies many chunks at a time."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the base's signature
        super().__init__(sock, *args, **kwargs)
        self.reads = _TimedReads(sock)
        self.fp.close()
        self.fp = io.BufferedReader(self.reads)
        self._decoder = ChunkedDecoder()

    def begin(self) -> None:
        """Read the head, all of it within the socket's timeout."""
        seconds = self.reads.sock.gettimeout()
        self.reads.by = None if seconds is None else time.monotonic() + seconds
        super().begin()
        self.reads.by = None

    def read1(self, n: int = -1) -> bytes:
        """Give what has arrived, at least one byte; `b""` at the end of the body."""
        if not self.chunked or self.fp is None:
            return super().read1(n)
        while not self._decoder.is_finished:
            wire = self.fp.read1(n if n > 0 else READ_BYTES)
            if not wire:
                raise http.client.IncompleteRead(b"")
            data = self._decoder.feed(wire)
            if data:
                return data
        if self._decoder.excess:
            raise ChunkedError("the server sent more than the answer")
        self.close()
        return b""


class _Pooled(HTTPConnection):
    """A connection that knows when it was last used, and how its answer is read."""

    last_used: float | None = None
    sent_within: float | None = None
    reads: _TimedReads | None = None
    _held: list[bytes] | None = None

    @property
    def is_connected(self) -> bool:
        """Tell whether the connection can be used again: open, and not idle for too long."""
        is_fresh = self.last_used is None or time.monotonic() - self.last_used < IDLE_SECONDS
        return is_fresh and super().is_connected

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ANN401  # the base's signature
        """Send head and body in one piece: one system call and mostly one packet instead of two."""
        pieces: list[bytes] = []
        self._held = pieces
        try:
            super().request(method, url, *args, **options)
        finally:
            self._held = None
        self.send(b"".join(pieces))

    def send(self, data: Any) -> None:  # noqa: ANN401  # the base's signature
        """Send bytes, or hold them back while a request is put together."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def connect(self) -> None:
        """Connect; a TLS handshake or a proxy's tunnel that takes too long counts as what it is."""
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host} did not finish the connection") from error

    def endheaders(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the base's signature
        """Send the head; it and the body have the time of the answer's first byte, not that of connecting."""
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self.sent_within)
        super().endheaders(*args, **kwargs)

    def getresponse(self) -> Any:  # noqa: ANN401  # typed so by the base class of the base class
        """Wait for the head of the answer."""
        self.last_used = time.monotonic()
        return super().getresponse()

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> _BulkHTTPResponse:  # type: ignore[override]  # noqa: ANN401
        """Make the answer, and keep its socket, which `http.client` gives away with the last one."""
        response = _BulkHTTPResponse(sock, *args, **kwargs)
        self.reads = response.reads
        return response


class _PooledTLS(_Pooled, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Pooled

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the base's signature
        conn.sent_within = kwargs["timeout"].read_timeout
        return super()._make_request(conn, *args, **kwargs)


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _PooledTLS

    def _validate_conn(self, conn: Any) -> None:  # noqa: ANN401  # the base's
        if conn.is_closed:
            conn.connect()  # the base warns with each connection where `tls_verify=False` was asked for


def _guarded(pool: type[_Pool], check_address: CheckAddress) -> type[_Pool]:
    """Make a pool whose connections look at each address of a name before they connect, and at the one they got behind."""

    class Guarded(pool.ConnectionCls):  # type: ignore[name-defined,misc]  # a class made for one transport
        def _new_conn(self) -> socket.socket:
            for *_, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
                check_address(str(address[0]))
            connected: socket.socket = super()._new_conn()
            try:
                check_address(connected.getpeername()[0])  # a name may lead elsewhere the second time
            except OSError:
                connected.close()
                raise
            return connected

    class GuardedPool(pool):  # type: ignore[misc,valid-type]  # as above
        ConnectionCls = Guarded

    return GuardedPool


def _pool_manager(settings: Settings) -> urllib3.PoolManager:
    options: dict[str, Any] = {"maxsize": POOL_SIZE, "ssl_context": ssl_context(settings)}
    if settings.proxy:
        proxy = urllib3.util.parse_url(settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else None
        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url, proxy_headers=headers, **options
        )
    else:
        manager = urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    manager.pools.dispose_func = HTTPConnectionPool.close  # else the collector closes them, whenever that is
    return manager


def translate(error: Exception, request: WireRequest) -> LMStudioError:
    """Give the error of ours that one of urllib3, `http.client` or the socket means, the most specific first."""
    cause = _root(error)
    if isinstance(error, NewConnectionError):
        return ServerUnreachableError(f"Nothing answers at {request.server}: {_reason(error)}.")
    for kind, make in TRANSLATIONS:
        if isinstance(error, kind) or isinstance(cause, kind):
            return make(cause)
    if isinstance(error, ConnectTimeoutError):
        return Deadlines(request.timeouts).expired("connect")
    return TransportError(f"The request failed: {cause!r}.")


def _root(error: BaseException) -> BaseException:
    """Find the innermost reason: urllib3 keeps it as its last argument."""
    while isinstance(error, (ProtocolError, ProxyError)) and error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return error


Translation = tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[BaseException], LMStudioError]]
TRANSLATIONS: list[Translation] = [
    (LocationValueError, lambda cause: ConfigurationError(f"The server's address is wrong: {cause}.")),
    (
        ProxyError,
        lambda cause: ServerUnreachableError(f"The proxy failed: {cause}.", hint="Check the setting `proxy`."),
    ),
    ((SSLError, ssl.SSLError), lambda cause: TransportError(f"TLS failed: {cause}.", hint=TLS_HINT)),
    (
        http.client.BadStatusLine,
        lambda cause: (
            ConnectionLostError("The server closed the connection without an answer.")
            if isinstance(cause, http.client.RemoteDisconnected)
            else MalformedStreamError(f"The server does not speak HTTP: {cause}.")
        ),
    ),
    (http.client.IncompleteRead, lambda cause: ConnectionLostError(f"The answer was cut: {cause}.")),
    (
        (ChunkedError, DecodeError, http.client.HTTPException),
        lambda cause: MalformedStreamError(f"The server's answer is not valid HTTP: {cause!r}."),
    ),
    ((ProtocolError, ConnectionError), lambda cause: ConnectionLostError(f"The connection broke: {cause}.")),
    (OSError, lambda cause: ServerUnreachableError(f"The connection failed: {cause}.")),
]


def _reason(error: NewConnectionError) -> str:
    """Give what a failed connection says, without the connection object and the number in front of it."""
    cause = error.__cause__
    words = cause.strerror if isinstance(cause, OSError) else None
    return (words or str(error).rpartition(": ")[2]).rstrip(".").lower()
