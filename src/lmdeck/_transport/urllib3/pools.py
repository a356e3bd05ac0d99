"""Connections and pools for urllib3.

A connection that was idle for four seconds is not reused, because LM Studio closes it after five; nor is one with unread
bytes, which do not belong to a request. A name is looked up within the limit for connecting, and a forked process does not
use the connections of its parent. Head and body of a request are sent together: `http.client` writes each header with several
calls.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, cast
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
from lmdeck._transport import CheckAddress, WireRequest
from lmdeck._transport._names import AddressInfo, look_up
from lmdeck._transport.interruption import current_interruption, watch_socket
from lmdeck._transport.urllib3.bulk_response import BulkHTTPResponse, TimedReads
from lmdeck.config import Settings

IDLE_SECONDS = 4.0
POOL_SIZE = 100
CLOSED_EARLY = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE})  # the last one on macOS
"""The errors of sending to a server that may have answered before it closed the connection."""
_METHODS_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "TRACE", "OPTIONS", "CONNECT"})
_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_target = re.compile(r"[!-~]+").fullmatch


class PooledConnection(HTTPConnection):
    """A connection that records the time of its last use and the reads of its answer."""

    last_used: float | None = None
    sent_within: float | None = None
    reads: TimedReads | None = None
    check_address: CheckAddress | None = None
    _requested: tuple[str, str] = "", ""
    _answer: BulkHTTPResponse | None = None

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

        Unread bytes after an answer would be read as the next answer.
        """
        if self.last_used is not None and time.monotonic() - self.last_used >= IDLE_SECONDS:
            return False
        if self.reads is not None and self.reads.unread:
            return False
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        return super().is_connected

    def _new_conn(self) -> socket.socket:
        """Look up the name and connect to one of its addresses, within the limit for connecting."""
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

        Each attempt has half of the remaining time, the last one all of it.
        """
        failure = OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                if (interruption := current_interruption.get()) is not None:
                    watch_socket(interruption, sock)
                remaining = None if by is None else max(by - time.monotonic(), 0.001)
                sock.settimeout(remaining if remaining is None or number == len(addresses) else remaining / 2)
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
        self._requested = method, url
        data = _request_head(method, url, self._authority, body, headers or {}) + (body or b"")
        if self.sock is None:
            self.connect()
        if (interruption := current_interruption.get()) is not None:
            watch_socket(interruption, self.sock)
        self.sock.settimeout(self.sent_within)
        self.sock.sendall(data)

    @cached_property
    def _authority(self) -> str:
        """Return the value of `Host`: name and port of the server, even through a proxy tunnel."""
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

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3's own does
        """Wait for the head of the answer."""
        self.last_used = time.monotonic()
        self.sock.settimeout(self.timeout)
        method, url = self._requested
        answer = BulkHTTPResponse(self.sock, method=method)
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

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> BulkHTTPResponse:  # type: ignore[override]
        """Return the response, and store its reads.

        `http.client` detaches the socket from the connection with the last response.
        """
        response = BulkHTTPResponse(sock, *args, **kwargs)
        self.reads = response.reads
        return response


class _PooledTLSConnection(PooledConnection, HTTPSConnection):
    """The same over TLS."""


class Pool(HTTPConnectionPool):
    """A pool of connections to one server; each has the time limit of its request."""

    ConnectionCls = PooledConnection

    def send(self, request: WireRequest, headers: Mapping[str, str], seconds: float) -> HTTPResponse:
        """Send a request without a proxy, and wait for the head of its answer.

        `urlopen` takes a third longer, because it also handles proxies, redirects and retries.
        """
        connection = cast("PooledConnection", self._get_conn())
        try:
            connection.timeout, connection.sent_within = min(request.timeouts.connect, seconds), seconds
            self._validate_conn(connection)
            try:
                connection.request(request.method, _target(request.url), request.body, headers)
            except OSError as error:
                if error.errno not in CLOSED_EARLY:
                    raise
            connection.timeout = seconds
            answer = connection.getresponse()
        except BaseException:
            connection.close()
            self._put_conn(None)
            raise
        answer._connection, answer._pool = connection, self  # noqa: SLF001  # as in `urlopen`
        return answer

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:  # the base's signature
        conn.sent_within = kwargs["timeout"].read_timeout
        return super()._make_request(conn, *args, **kwargs)


class TLSPool(Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _PooledTLSConnection

    def _validate_conn(self, conn: Any) -> None:  # the base's
        if conn.is_closed:
            conn.connect()  # the base class warns on each connection with `tls_verify=False`


@lru_cache(maxsize=64)  # a client requests few URLs
def _target(url: str) -> str:
    """Return path and query of a URL."""
    return urllib3.util.parse_url(url).request_uri


def _request_head(method: str, target: str, host: str, body: bytes | None, fields: Mapping[str, str]) -> bytes:
    """Return the head of a request (RFC 9112, sections 3 and 5).

    `host` is the value of `Host` if the fields do not contain one.

    Raises:
        ValueError: A part contains characters that HTTP does not allow there.
    """
    added = {} if "host" in map(str.lower, fields) else {"Host": host}
    if body is not None or method not in _METHODS_WITHOUT_BODY:
        added["Content-Length"] = str(len(body or b""))
    whole = {**added, **fields}
    if not (_is_token(method) and _is_target(target) and all(map(_is_token, whole))):
        raise ValueError("a method, a target or the name of a header is not valid HTTP")
    lines = [f"{method} {target} HTTP/1.1", *map(": ".join, whole.items()), "\r\n"]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) or "\0" in head:
        raise ValueError("the value of a header is not one line")
    return head.encode("latin-1")


def _with_address_check(pool: type[Pool], check_address: CheckAddress) -> type[Pool]:
    """Return a pool class whose connections check each address of a name before connecting."""
    checked = {"check_address": staticmethod(check_address)}
    return type("CheckedPool", (pool,), {"ConnectionCls": type("CheckedConnection", (pool.ConnectionCls,), checked)})


def pool_manager(
    settings: Settings, tls: ssl.SSLContext | None, check_address: CheckAddress | None
) -> urllib3.PoolManager:
    """Return the pools of a client, through its proxy if it has one."""
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
