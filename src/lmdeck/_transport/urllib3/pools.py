"""What is added below urllib3: connections and pools.

Chunked bodies are read many chunks at a time. A pooled connection that was idle for four seconds is not used again, because LM
Studio closes it after five; nor is one with bytes left on it, which belong to no request. A limit on several reads bounds them
together. A connection's name is looked up within its limit, and a forked process loses the connections of its parent.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)

from lmdeck._forking import disown, on_fork
from lmdeck._transport import CheckAddress
from lmdeck._transport._names import AddressInfo, look_up
from lmdeck._transport.chunked import ChunkedDecoder, ChunkedError
from lmdeck._transport.interruption import watch_socket
from lmdeck.config import Settings

__all__ = [
    "IDLE_SECONDS",
    "READ_BYTES",
    "Pool",
    "PooledConnection",
    "TLSPool",
    "_PooledTLSConnection",
    "pool_manager",
]

IDLE_SECONDS = 4.0
MOST_INTERIM_ANSWERS = 100
READ_BYTES = 1 << 18
POOL_SIZE = 100


class _TimedReads(io.RawIOBase):
    """A socket's bytes: each read within its timeout, and all of them `by` a moment, if one is set."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.by: float | None = None
        self.left_over = 0
        self.is_inherited = False
        self._received = 0
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
        if self.is_inherited:
            raise ConnectionResetError
        if self.by is not None:
            left = self.by - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.sock.settimeout(left if self._seconds is None else min(left, self._seconds))
        count = self.sock.recv_into(buffer)
        self._received += count
        return count

    def tell(self) -> int:
        """Return how many bytes were received, from which a buffer counts how many of them were read."""
        return self._received

    def cut(self) -> None:
        """End the connection, and with it a read that waits in another thread."""
        if not self.is_inherited:
            with suppress(OSError):  # it may be gone already
                self.sock.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """Leave the socket to the parent of this process."""
        self.is_inherited = True
        disown(self.sock.fileno())

    def close(self) -> None:
        """Let go of the socket."""
        self._hold.close()
        super().close()


class _Buffer(io.BufferedReader):
    """A buffer over a socket that notes, when it is closed, what was received and not read."""

    def close(self) -> None:
        """Close it, and note how many bytes are left."""
        if not self.closed:
            self.raw.left_over = self.raw.tell() - self.tell()  # type: ignore[attr-defined]  # `_TimedReads`
        super().close()


class _BulkHTTPResponse(http.client.HTTPResponse):
    """The standard library's response, reading chunked bodies many chunks at a time."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the base's signature
        super().__init__(sock, *args, **kwargs)
        self.reads = _TimedReads(sock)
        self.fp.close()
        self.fp = _Buffer(self.reads)
        self._decoder = ChunkedDecoder()

    def begin(self) -> None:
        """Read the head, all of it within the socket's timeout."""
        seconds = self.reads.sock.gettimeout()
        self.reads.by = None if seconds is None else time.monotonic() + seconds
        super().begin()
        self.reads.by = None

    def _read_status(self) -> tuple[str, int, str]:
        """Read the status line of the answer, past those of interim answers (RFC 9110, 15.2), which `begin` knows one of."""
        for _ in range(MOST_INTERIM_ANSWERS):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 102 <= status <= 199:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {MOST_INTERIM_ANSWERS} interim answers")

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
    check_address: CheckAddress | None = None
    _held: list[bytes] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  # the base's signature
        super().__init__(*args, **options)
        on_fork(self, PooledConnection.after_fork)

    def after_fork(self) -> None:
        """Leave the socket to the parent, which goes on with it."""
        if self.sock is not None:
            disown(self.sock.fileno())
        if self.reads is not None:
            self.reads.disown()

    @property
    def is_connected(self) -> bool:
        """Whether the connection can be used again: open, not idle for too long, and with no bytes left on it."""
        is_fresh = self.last_used is None or time.monotonic() - self.last_used < IDLE_SECONDS
        return is_fresh and not self._has_bytes_left() and super().is_connected

    def _has_bytes_left(self) -> bool:
        """Whether the server sent more than its answer: a part of that would be taken for the next one."""
        return bool(
            (self.reads is not None and self.reads.left_over)
            or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())
        )

    def _new_conn(self) -> socket.socket:
        """Look the name up and connect to one of its addresses, all of it within the connection's limit."""
        seconds = self.timeout if isinstance(self.timeout, int | float) else None
        by = None if seconds is None else time.monotonic() + seconds
        try:
            addresses = look_up(self._dns_host.strip("[]"), self.port, seconds)
            if self.check_address is not None:
                for *_, address in addresses:
                    self.check_address(str(address[0]))
            return self._connected(addresses, by)
        except UnicodeError as error:
            raise LocationParseError(f"{self.host!r}: a label is empty or too long") from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host} did not take the connection") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

    def _connected(self, addresses: Sequence[AddressInfo], by: float | None) -> socket.socket:
        """Connect to the first address that answers; each has half of the time that is left, the last one all of it."""
        failure = OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                watch_socket(sock)
                left = None if by is None else max(by - time.monotonic(), 0.001)
                sock.settimeout(left if left is None or number == len(addresses) else left / 2)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.settimeout(None if by is None else max(by - time.monotonic(), 0.001))
                return sock
        try:
            raise failure
        finally:
            del failure  # a frame and its exception would keep each other alive

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
        watch_socket(self.sock)
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
    """Make a pool whose connections have each address of a name checked before they connect to one of just these."""
    checked = {"check_address": staticmethod(check_address)}
    return type("Guarded", (pool,), {"ConnectionCls": type("GuardedConnection", (pool.ConnectionCls,), checked)})


def pool_manager(
    settings: Settings, tls: ssl.SSLContext | None, check_address: CheckAddress | None
) -> urllib3.PoolManager:
    """Make the pools of a client, behind its proxy if it has one."""
    options: dict[str, Any] = {"maxsize": POOL_SIZE, "ssl_context": tls}
    if settings.proxy:
        proxy = urllib3.util.parse_url(settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else None
        manager: urllib3.PoolManager = urllib3.ProxyManager(
            proxy._replace(auth=None).url, proxy_headers=headers, **options
        )
    else:
        manager = urllib3.PoolManager(**options)
    pools: dict[str, type[Pool]] = {"http": Pool, "https": TLSPool}
    if check_address is not None:
        pools = {scheme: guarded(pool, check_address) for scheme, pool in pools.items()}
    manager.pool_classes_by_scheme = pools
    manager.pools.dispose_func = HTTPConnectionPool.close  # else the collector closes them, whenever that is
    return manager
