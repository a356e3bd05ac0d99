"""The sync transport, on urllib3.

urllib3 pools and connects; three things are added below it. Chunked bodies are read many chunks at a time. A pooled
connection that was idle for four seconds is not used again, because LM Studio closes it after five. And an answer that is
left early is cut off at the socket, so that the server stops generating.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
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
from lmdeck.transport import DRAIN_SECONDS, WireRequest
from lmdeck.transport._chunked import ChunkedDecoder, ChunkedError
from lmdeck.transport._clock import Deadlines
from lmdeck.transport._tls import TLS_HINT, ssl_context

__all__ = ["IDLE_SECONDS", "Urllib3Transport", "translate"]

IDLE_SECONDS = 4.0
READ_BYTES = 1 << 18
POOL_SIZE = 100


class Urllib3Transport:
    """Send requests over a pool of connections; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._manager = _pool_manager(settings)

    def open(self, request: WireRequest, /) -> Urllib3Response:
        """Send a request and wait for the head of its answer.

        Raises:
            TransportError: Nothing listens there, the connection broke, or a time limit ran out.
        """
        deadlines = Deadlines(request.timeouts)
        left, phase = deadlines.remaining()
        try:
            response = self._manager.urlopen(
                request.method,
                request.url,
                redirect=False,
                body=request.body,
                headers=request.wire_headers(),
                preload_content=False,
                retries=False,
                timeout=urllib3.Timeout(connect=min(request.timeouts.connect, left), read=left),
            )
        except ReadTimeoutError as error:
            raise deadlines.expired(phase) from error
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            raise translate(error, request) from error
        return Urllib3Response(response, deadlines, request)

    def close(self) -> None:
        """Close every connection."""
        self._manager.clear()


class Urllib3Response:
    """An answer whose body is read as it arrives."""

    def __init__(self, response: BaseHTTPResponse, deadlines: Deadlines, request: WireRequest) -> None:
        self._response = response
        self._deadlines = deadlines
        self._request = request
        self._connection = response.connection
        self._socket = self._connection.live_socket if isinstance(self._connection, _Pooled) else None
        self._timeout = -1.0
        self._is_finished = False
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def read(self) -> bytes:
        """Give what has arrived, at least one byte; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit ran out.
        """
        left, phase = self._deadlines.remaining()
        self._limit(left)
        try:
            data = self._response.read1(READ_BYTES)
        except ReadTimeoutError as error:
            self.close()
            raise self._deadlines.expired(phase) from error
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise translate(error, self._request) from error
        self._deadlines.note_bytes()
        if not data:
            self._is_finished = True
            self._response.release_conn()
        elif isinstance(self._connection, _Pooled):
            self._connection.last_used = time.monotonic()
        return data

    def drain(self) -> None:
        """Read what is left of a finished answer, for a moment only, so that the connection can be used again."""
        with contextlib.suppress(HTTPError, OSError, http.client.HTTPException, ValueError):  # then it is cut off below
            self._limit(DRAIN_SECONDS)
            while not self._is_finished and len(self._response.read1(READ_BYTES)) == 0:
                self._is_finished = True
                self._response.release_conn()
        self.close()

    def close(self) -> None:
        """Let go of the connection; a body that was not read to its end is cut off at the socket."""
        if self._is_finished:
            return
        self._is_finished = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may be gone already
                self._socket.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._response.release_conn()

    def _limit(self, seconds: float) -> None:
        if self._socket is not None and seconds != self._timeout:
            self._socket.settimeout(seconds)
            self._timeout = seconds


class _BulkHTTPResponse(http.client.HTTPResponse):
    """The standard library's response, reading chunked bodies many chunks at a time."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the base's signature
        super().__init__(sock, *args, **kwargs)
        self._decoder = ChunkedDecoder()

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
    """A connection that knows its socket and when it was last used."""

    response_class = _BulkHTTPResponse
    last_used: float | None = None
    live_socket: socket.socket | None = None

    @property
    def is_connected(self) -> bool:
        """Tell whether the connection can be used again: open, and not idle for too long."""
        is_fresh = self.last_used is None or time.monotonic() - self.last_used < IDLE_SECONDS
        return is_fresh and super().is_connected

    def getresponse(self) -> Any:  # noqa: ANN401  # typed so by the base class of the base class
        """Wait for the head of the answer, and keep the socket, which `http.client` gives away with the last answer."""
        self.live_socket = self.sock
        self.last_used = time.monotonic()
        return super().getresponse()


class _PooledTLS(_Pooled, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Pooled


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _PooledTLS


def _pool_manager(settings: Settings) -> urllib3.PoolManager:
    options: dict[str, Any] = {"maxsize": POOL_SIZE, "ssl_context": ssl_context(settings)}
    if settings.proxy:
        proxy = urllib3.util.parse_url(settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=proxy.auth) if proxy.auth else None
        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url, proxy_headers=headers, **options
        )
    else:
        manager = urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
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
        (ChunkedError, http.client.HTTPException),
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
