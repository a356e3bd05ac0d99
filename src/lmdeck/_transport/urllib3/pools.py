"""Connections and pools for urllib3.

Chunked bodies are read many chunks at a time. A connection that was idle for four seconds is not reused, because LM Studio
closes it after five; nor is one with unread bytes, which belong to no request. A limit may span several reads. A name is looked
up within the limit for connecting, and a forked process gives up the connections of its parent.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
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
from urllib3.response import HTTPResponse

from lmdeck._forking import disown, on_fork
from lmdeck._transport import CheckAddress
from lmdeck._transport._names import AddressInfo, look_up
from lmdeck._transport.chunked import ChunkedDecoder, ChunkedError
from lmdeck._transport.interruption import current_interruption, watch_socket
from lmdeck._transport.urllib3.heads import read_fields, request_head
from lmdeck.config import Settings

IDLE_SECONDS = 4.0
SWITCHING_PROTOCOLS = 101
MAX_INTERIM_ANSWERS = 100
MAX_LENGTH_DIGITS = 20
READ_BYTES = 1 << 17
POOL_SIZE = 100


class _TimedReads(io.RawIOBase):
    """The bytes of a socket, read with a timeout.

    If `by` is set, all reads must end by that point in time.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.by: float | None = None
        self.left_over = 0
        self.is_inherited = False
        self.received = 0
        self._seconds = sock.gettimeout()
        self._hold = sock.makefile("rb", buffering=0)  # keeps the socket open while it is read

    def makefile(self, _mode: str) -> _Buffer:
        """Return the file that `http.client` reads a response from."""
        return _Buffer(self)

    def limit(self, seconds: float) -> None:
        """Set the timeout of each of the next reads."""
        if seconds != self._seconds and not self.closed:
            self.sock.settimeout(seconds)
            self._seconds = seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:  # a buffer has no type before Python 3.12
        """Read the bytes that have arrived, at least one."""
        if self.is_inherited:
            raise ConnectionResetError
        if self.by is not None:
            left = self.by - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.sock.settimeout(left if self._seconds is None else min(left, self._seconds))
        count = self.sock.recv_into(buffer)
        self.received += count
        return count

    def tell(self) -> int:
        """Return the number of bytes received; a buffer derives from it how many of them were read."""
        return self.received

    def cut(self) -> None:
        """Shut the connection down, which ends a read that waits in another thread."""
        if not self.is_inherited:
            with suppress(OSError):  # it may be gone already
                self.sock.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """Leave the socket to the parent process."""
        self.is_inherited = True
        disown(self.sock.fileno())

    def close(self) -> None:
        """Release the socket."""
        self._hold.close()
        super().close()


class _Buffer(io.BufferedReader):
    """A buffer over a socket that records at its closing how many received bytes were not read."""

    def close(self) -> None:
        """Close the buffer and record how many bytes are left."""
        if not self.closed:
            self.raw.left_over = self.raw.received - self.tell()  # type: ignore[attr-defined]  # `_TimedReads`
        super().close()


class _BulkHTTPResponse(http.client.HTTPResponse):
    """The standard library's response, but chunked bodies are read many chunks at a time."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # the base's signature
        self.reads = _TimedReads(sock)
        super().__init__(self.reads, *args, **kwargs)  # type: ignore[arg-type]  # asked for its file only
        self._decoder: ChunkedDecoder | None = None

    def begin(self) -> None:
        """Read the whole head within the socket's timeout and determine how the body is framed."""
        seconds = self.reads.sock.gettimeout()
        self.reads.by = None if seconds is None else time.monotonic() + seconds
        version, self.status, reason = self._read_status()
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in {"HTTP/1.0", "HTTP/0.9"} else 11
        self.code, self.reason = self.status, reason.strip()
        self.fields = self.headers = self.msg = read_fields(self.fp)  # type: ignore[assignment]  # has what is used
        self.reads.by = None
        self._frame()

    def _frame(self) -> None:
        """Determine where the body ends (RFC 9112, section 6.3).
        The first of repeated fields counts.
        """
        coding = self.fields.getlist("transfer-encoding", ("",))[0]
        length = self.fields.getlist("content-length", ("",))[0]
        self.chunked = coding.lower() == "chunked"
        self._decoder = ChunkedDecoder() if self.chunked else None
        is_counted = length.isdecimal() and length.isascii() and len(length) < MAX_LENGTH_DIGITS and not self.chunked
        self.length = int(length) if is_counted else None
        if self.status in {SWITCHING_PROTOCOLS, 204, 304} or self._method == "HEAD":  # type: ignore[attr-defined]  # typeshed leaves it out
            self.length = 0
        self.will_close = self._check_close() or (not self.chunked and self.length is None)  # type: ignore[attr-defined]

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line of the answer, skipping interim answers (RFC 9110, 15.2)."""
        for _ in range(MAX_INTERIM_ANSWERS):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if status == SWITCHING_PROTOCOLS or not 100 <= status <= 199:
                return version, status, reason
            read_fields(self.fp)
        raise http.client.HTTPException(f"more than {MAX_INTERIM_ANSWERS} interim answers")

    def read1(self, n: int = -1) -> bytes:
        """Return the bytes that have arrived, at least one; `b""` at the end of the body."""
        decoder = self._decoder
        if decoder is None or self.fp is None:
            return super().read1(n)
        while not decoder.is_finished:
            wire = self.fp.read1(n if n > 0 else READ_BYTES)
            if not wire:
                raise http.client.IncompleteRead(b"")
            data = decoder.feed(wire)
            if data:
                return data
        if decoder.excess:
            raise ChunkedError("the server sent more than the answer")
        self.close()
        return b""


class PooledConnection(HTTPConnection):
    """A connection that records when it was last used and how its answer is read."""

    last_used: float | None = None
    sent_within: float | None = None
    reads: _TimedReads | None = None
    check_address: CheckAddress | None = None
    _asked: tuple[str, str] = "", ""
    _answer: _BulkHTTPResponse | None = None

    def __init__(self, *args: Any, **options: Any) -> None:  # the base's signature
        super().__init__(*args, **options)
        on_fork(self, PooledConnection.after_fork)

    def after_fork(self) -> None:
        """Leave the socket to the parent process, which uses it."""
        if self.sock is not None:
            disown(self.sock.fileno())
        if self.reads is not None:
            self.reads.disown()

    @property
    def is_connected(self) -> bool:
        """Whether the connection can be reused: open, not idle for too long, no unread bytes.

        What the server sent beyond its answer would be read as the next answer.
        """
        if self.last_used is not None and time.monotonic() - self.last_used >= IDLE_SECONDS:
            return False
        if self.reads is not None and self.reads.left_over:
            return False
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        return super().is_connected

    def _new_conn(self) -> socket.socket:
        """Look the name up and connect to one of its addresses, within the limit for connecting."""
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
            raise ConnectTimeoutError(self, f"{self.host} did not accept the connection") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

    def _connected(self, addresses: Sequence[AddressInfo], by: float | None) -> socket.socket:
        """Connect to the first address that answers.
        Each gets half of the remaining time, the last one all of it.
        """
        failure = OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                if (interruption := current_interruption.get()) is not None:
                    watch_socket(interruption, sock)
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
            del failure  # breaks the reference cycle of frame and exception

    def request(  # type: ignore[override]  # as urllib3's own does
        self,
        method: str,
        url: str,
        body: Any = None,  # the base's signature
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> None:
        """Send head and body together: one system call, and usually one packet, instead of two.

        The limit for both is that of the first byte, not that of connecting.
        """
        self._asked = method, url
        data = request_head(method, url, self._authority, body, headers or {}) + (body or b"")
        if self.sock is None:
            self.connect()
        if (interruption := current_interruption.get()) is not None:
            watch_socket(interruption, self.sock)
        self.sock.settimeout(self.sent_within)
        self.sock.sendall(data)

    @cached_property
    def _authority(self) -> str:
        """Return the value of `Host`: name and port of the server, also behind a proxy tunnel."""
        host, port = (self._tunnel_host, self._tunnel_port) if self._tunnel_host else (self.host, self.port)
        if not host.isascii():
            host = host.encode("idna").decode()
        if ":" in host:
            host = f"[{host.strip('[]').partition('%')[0]}]"
        return host if port == self.default_port else f"{host}:{port}"

    def connect(self) -> None:
        """Connect; a TLS handshake or a proxy tunnel that takes too long is a connect timeout."""
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host} did not finish the connection") from error

    def getresponse(self) -> Any:  # typed so by the base class of the base class
        """Wait for the head of the answer."""
        self.last_used = time.monotonic()
        self.sock.settimeout(self.timeout)
        method, url = self._asked
        answer = _BulkHTTPResponse(self.sock, method=method)
        self.reads = answer.reads
        try:
            answer.begin()
        except BaseException:
            answer.close()
            self.close()
            raise
        if answer.will_close:
            self.close()
        else:
            self._answer = answer
        return HTTPResponse(
            body=answer,
            headers=answer.fields,
            status=answer.status,
            version=answer.version,
            reason=answer.reason,
            preload_content=False,
            original_response=answer,
            request_method=method,
            request_url=url,
        )

    def close(self) -> None:
        """Close the connection and the response that is read from it."""
        answer, self._answer = self._answer, None
        super().close()
        if answer is not None:
            answer.close()

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> _BulkHTTPResponse:  # type: ignore[override]
        """Return the response, and remember its socket.

        `http.client` hands the socket over with the last response.
        """
        response = _BulkHTTPResponse(sock, *args, **kwargs)
        self.reads = response.reads
        return response


class _PooledTLSConnection(PooledConnection, HTTPSConnection):
    """The same over TLS."""


class Pool(HTTPConnectionPool):
    """A pool of connections to one server; each gets the time limit of its request."""

    ConnectionCls = PooledConnection

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:  # the base's signature
        conn.sent_within = kwargs["timeout"].read_timeout
        return super()._make_request(conn, *args, **kwargs)


class TLSPool(Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _PooledTLSConnection

    def _validate_conn(self, conn: Any) -> None:  # the base's
        if conn.is_closed:
            conn.connect()  # the base class warns on each connection with `tls_verify=False`


def _with_address_check(pool: type[Pool], check_address: CheckAddress) -> type[Pool]:
    """Return a pool class whose connections check each address of a name before connecting."""
    checked = {"check_address": staticmethod(check_address)}
    return type("CheckedPool", (pool,), {"ConnectionCls": type("CheckedConnection", (pool.ConnectionCls,), checked)})


def pool_manager(
    settings: Settings, tls: ssl.SSLContext | None, check_address: CheckAddress | None
) -> urllib3.PoolManager:
    """Return the pools of a client, which use its proxy if it has one."""
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
        pools = {scheme: _with_address_check(pool, check_address) for scheme, pool in pools.items()}
    manager.pool_classes_by_scheme = pools
    manager.pools.dispose_func = HTTPConnectionPool.close  # otherwise the garbage collector closes them, at any time
    return manager
