"""What is added below urllib3: connections and pools.

Chunked bodies are read many chunks at a time. A pooled connection that was idle for four seconds is not used again, because LM
Studio closes it after five. A limit on several reads bounds them together.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
)

from lmdeck._transport import CheckAddress
from lmdeck._transport.chunked import ChunkedDecoder, ChunkedError
from lmdeck._transport.tls import ssl_context
from lmdeck.config import Settings

__all__ = [
    "IDLE_SECONDS",
    "READ_BYTES",
    "Pool",
    "PooledConnection",
    "TLSPool",
    "_PooledTLSConnection",
    "guarded",
    "pool_manager",
]

IDLE_SECONDS = 4.0
READ_BYTES = 1 << 18
POOL_SIZE = 100


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


class PooledConnection(HTTPConnection):
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


class _PooledTLSConnection(PooledConnection, HTTPSConnection):
    """The same over TLS."""


class Pool(HTTPConnectionPool):
    """Connections to one server, each told how long its answer may take to begin."""

    ConnectionCls = PooledConnection

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the base's signature
        conn.sent_within = kwargs["timeout"].read_timeout
        return super()._make_request(conn, *args, **kwargs)


class TLSPool(Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _PooledTLSConnection

    def _validate_conn(self, conn: Any) -> None:  # noqa: ANN401  # the base's
        if conn.is_closed:
            conn.connect()  # the base warns with each connection where `tls_verify=False` was asked for


def guarded(pool: type[Pool], check_address: CheckAddress) -> type[Pool]:
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


def pool_manager(settings: Settings) -> urllib3.PoolManager:
    """Make the pools of a client, behind its proxy if it has one."""
    options: dict[str, Any] = {"maxsize": POOL_SIZE, "ssl_context": ssl_context(settings)}
    if settings.proxy:
        proxy = urllib3.util.parse_url(settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else None
        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url, proxy_headers=headers, **options
        )
    else:
        manager = urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": Pool, "https": TLSPool}
    manager.pools.dispose_func = HTTPConnectionPool.close  # else the collector closes them, whenever that is
    return manager
