"""The async transport, on aiohttp.

A session belongs to an event loop: it is opened by the first request and closed at the end of the loop at the latest, so a
client can be used under several loops in turn, as in two `asyncio.run` calls. A forked process opens its own. Proxies from the
environment, cookies and redirects are off: the server is a local API.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import math
import re
import select
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError, TransferEncodingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lmdeck._forking import disown, on_fork
from lmdeck._transport import DRAIN_SECONDS, CheckAddress, WireRequest, codings_left
from lmdeck._transport._names import look_up_async
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.frames import without_locals
from lmdeck._transport.reasons import reason_of
from lmdeck._transport.tls import TLS_HINT, ssl_context
from lmdeck.config import Settings
from lmdeck.errors import (
    ConfigurationError,
    ConnectionLostError,
    LMStudioError,
    MalformedStreamError,
    ServerUnreachableError,
    TransportError,
    describe,
)

IDLE_SECONDS = 4.0  # LM Studio closes idle connections after five
READ_BUFFER = 1 << 18
LARGE_BODY = 1 << 20  # larger ones are sent piece by piece: aiohttp warns of bytes that would block the loop
PROXY_HINT = "Check the setting `proxy`."
DECODED = frozenset({"gzip", "deflate", "br", "zstd"})


class AiohttpTransport:
    """The async transport over a pool of connections; can be shared between tasks."""

    def __init__(self, settings: Settings, check_address: CheckAddress | None = None) -> None:
        self._ssl = ssl_context(settings)
        self._check_address = check_address
        self._proxy, self._proxy_headers = _proxy(settings.proxy)
        self._session: aiohttp.ClientSession | None = None
        self._keeper: AsyncGenerator[aiohttp.ClientSession, None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        on_fork(self, AiohttpTransport.after_fork)

    async def open(self, request: WireRequest, /) -> AiohttpResponse:
        """Send a request and wait for the head of its answer.

        Raises:
            TransportError: Nothing listens there, the connection broke, or a time limit was exceeded.
        """
        deadlines = Deadlines(request.timeouts)
        left, phase = deadlines.remaining()
        limits = aiohttp.ClientTimeout(total=None, connect=request.timeouts.connect)
        body, is_tunnelled = request.body, request.url.startswith("https://")
        try:
            async with asyncio.timeout(left):
                session = await self._opened_session()
                with without_locals():
                    response = await session.request(
                        request.method,
                        URL(request.url, encoded=True),
                        data=body if body is None or len(body) < LARGE_BODY else io.BytesIO(body),
                        # Through a tunnel the proxy's headers would reach the server.
                        headers=request.wire_headers() | ({} if is_tunnelled else self._proxy_headers),
                        allow_redirects=False,
                        proxy=self._proxy,
                        proxy_headers=self._proxy_headers if is_tunnelled else None,
                        timeout=limits,
                    )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            _forget_headers(error)
            if _is_limit(error):
                raise deadlines.expired(phase) from error
            raise translate(error, request) from error
        return AiohttpResponse(response, deadlines, request)

    async def aclose(self) -> None:
        """Close every connection."""
        keeper, self._keeper, self._session = self._keeper, None, None
        if keeper is not None and self._loop is asyncio.get_running_loop():
            await keeper.aclose()

    def after_fork(self) -> None:
        """Leave session and connections to the parent process, whose event loop uses them."""
        keeper, session, self._keeper, self._session, self._loop = self._keeper, self._session, None, None, None
        if session is not None and isinstance(session.connector, _Connector):
            session.connector.disown()
            _parents.append((keeper, session))

    async def _opened_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop or self._session.closed:
            self._keeper = _keep_session(self._ssl, self._check_address)
            self._session = await anext(self._keeper)  # does not wait, so no other task runs in between
            self._loop = loop
        return self._session


_parents: list[object] = []
"""Objects inherited from the parent process; their finalizers would wake its event loop, so they must not run."""


async def _keep_session(
    tls: ssl.SSLContext | None, check_address: CheckAddress | None
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Yield a session and close it with the generator, which the loop does at its end and the garbage collector before."""
    connector = _Connector(
        limit=0,
        keepalive_timeout=IDLE_SECONDS,
        ssl=True if tls is None else tls,
        resolver=_Resolver(),
        socket_factory=None if check_address is None else partial(_checked_socket, check_address),
    )
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, read_bufsize=READ_BUFFER
    ) as session:
        # aiohttp would silently repeat a GET or PUT; its own test client turns that off in the same way.
        session._retry_connection = False  # noqa: SLF001  # there is no public switch
        yield session


def _checked_socket(check_address: CheckAddress, info: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for an address that may be connected to."""
    family, kind, protocol, _, address = info
    check_address(str(address[0]))
    return socket.socket(family, kind, protocol)


def _proxy(setting: str | None) -> tuple[URL | None, dict[str, str]]:
    """Return a proxy's address without its credentials, which aiohttp's errors would show, and a header with them."""
    if setting is None:
        return None, {}
    url = URL(setting if "://" in setting else f"http://{setting}")
    if url.user is None:
        return url, {}
    credentials = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return url.with_user(None), {"Proxy-Authorization": f"Basic {credentials}"}


class _Resolver(AbstractResolver):
    """Looks names up in separate threads, since an event loop waits for its own threads at its end."""

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


class _Protocol(ResponseHandler):
    """A connection that closes on bytes that arrive while it is idle, as they belong to no request."""

    is_idle = False

    def data_received(self, data: bytes) -> None:
        """Receive bytes from the server."""
        if self.is_idle and data:
            self.force_close()
        super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """Aborts connections that cannot be reused: a plain close waits until the server has read everything written.

    An idle connection on which bytes have arrived is not reused: they would be read as the next answer.
    """

    def __init__(self, **options: Any) -> None:  # the base's options
        super().__init__(**options)
        self._factory: Callable[[], ResponseHandler] = partial(_Protocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # of a subclass

    async def _get(self, key: Any, traces: Any) -> Any:  # as below
        for protocol, _ in self._conns.get(key, ()):
            if protocol.should_close or _has_bytes(protocol):
                protocol.abort()
        connection = await super()._get(key, traces)
        if connection is not None and isinstance(connection.protocol, _Protocol):
            connection.protocol.is_idle = False
        return connection

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
        if isinstance(protocol, _Protocol):
            protocol.is_idle = True


def _has_bytes(protocol: ResponseHandler) -> bool:
    """Whether bytes, or the end, have arrived on a connection that the event loop has not read yet."""
    sock = None if protocol.transport is None else protocol.transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class _ReadTimer:
    """The time limit of the reads of one answer: one timer, which is set again when it fires, not for every read."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        self._wait_ends_at = math.inf

    def begin_wait(self, seconds: float) -> None:
        """Fail the read that follows with a `TimeoutError` if it waits for longer."""
        self._wait_ends_at = self._loop.time() + seconds
        if self._wait_ends_at < self._fires_at:
            self._set()

    def end_wait(self) -> None:
        """Set no limit until the next read."""
        self._wait_ends_at = math.inf

    def cancel(self) -> None:
        """Release the timer."""
        if self._handle is not None:
            self._handle.cancel()

    def _set(self) -> None:
        self.cancel()
        self._fires_at = self._wait_ends_at
        self._handle = self._loop.call_at(self._fires_at, self._fire)

    def _fire(self) -> None:
        self._handle, self._fires_at = None, math.inf
        if self._wait_ends_at <= self._loop.time():
            self._content.set_exception(TimeoutError())
        elif self._wait_ends_at < math.inf:
            self._set()


class AiohttpResponse:
    """An answer whose body is awaited as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse, deadlines: Deadlines, request: WireRequest) -> None:
        self._response = response
        self._content = response.content
        if response.connection is not None and response.connection.protocol is not None:
            _end_with(response.connection.protocol, response.content)
        self._timer = _ReadTimer(response.content)
        self._deadlines = deadlines
        self._request = request
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        # aiohttp decodes a single coding only, and refuses a known one whose library is missing.
        is_one = "," not in self.headers.get("content-encoding", "")
        self.undecoded = codings_left(self.headers, DECODED if is_one else ())

    async def read(self) -> bytes:
        """Return the bytes that have arrived, at least one; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit was exceeded.
        """
        left, phase = self._deadlines.remaining()
        self._timer.begin_wait(left)
        try:
            data = await self._content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.close()
            if _is_limit(error):
                raise self._deadlines.expired(phase) from error
            raise translate(error, self._request) from error
        finally:
            self._timer.end_wait()
        self._deadlines.note_bytes()
        return data

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or stop allowing them."""
        self._deadlines.is_patient = wanted

    async def drain(self) -> None:
        """Read the rest of a finished answer, but only briefly, so that the connection can be reused."""
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):  # then `close` cuts the connection
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._content.at_eof() and not await self._content.readany():
                    continue
        self.close()

    def close(self) -> None:
        """Release the connection; if the body was not read to its end, the connection is cut."""
        self._timer.cancel()
        self._response.close()


def _end_with(protocol: ResponseHandler, content: aiohttp.StreamReader) -> None:
    """End a body with its connection: on broken framing after the head, aiohttp closes without notifying the reader."""

    def end(_: object) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection ended"), protocol.exception() or OSError())

    closed = protocol.closed
    if closed is None:
        end(None)
    else:
        closed.remove_done_callback(_retrieve_exception)  # once is enough for all answers of a connection
        closed.add_done_callback(_retrieve_exception)
        closed.add_done_callback(end)
        content.on_eof(lambda: _forget(closed, end))


def _forget(closed: asyncio.Future[None], end: Callable[[object], None]) -> None:
    closed.remove_done_callback(end)


def _retrieve_exception(closed: asyncio.Future[None]) -> None:
    """Retrieve the exception of a closed connection; otherwise asyncio logs that nobody did."""
    closed.exception()


def _forget_headers(error: Exception) -> None:
    """Remove the request's headers, and with them the token, from an error that shows them."""
    if isinstance(error, aiohttp.ClientResponseError):
        info = error.request_info
        error.request_info = aiohttp.RequestInfo(info.url, info.method, CIMultiDictProxy(CIMultiDict()), info.real_url)
        error.args = (error.request_info, error.history)


def _is_limit(error: Exception) -> bool:
    """Whether one of our own limits was exceeded.
    If the system gave up the connection, the error has a number.
    """
    return isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError) and error.errno is None


def translate(error: Exception, request: WireRequest) -> LMStudioError:
    """Return lmdeck's error for one of aiohttp or the socket.
    The most specific translation wins.
    """
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Deadlines(request.timeouts).expired("connect")
    for kind, make in TRANSLATIONS:
        if isinstance(error, kind):
            return make(error, request.server)
    return TransportError(f"The request to {request.server} failed ({type(error).__name__}).")


def _unreachable(error: Exception, server: str) -> LMStudioError:
    return ServerUnreachableError(f"Nothing answers at {server}{reason_of(error)}.")


def _proxy_failed(error: Exception, _: str) -> LMStudioError:
    answered = f": it answered {error.status}" if isinstance(error, aiohttp.ClientHttpProxyError) else reason_of(error)
    return ServerUnreachableError(f"The proxy failed{answered}.", hint=PROXY_HINT)


def _body_error(error: Exception, _: str) -> LMStudioError:
    """Return the error of a body with a broken coding, or of one that was cut off."""
    cause = error.__cause__
    if isinstance(cause, HttpProcessingError) and not isinstance(cause, (ContentLengthError, TransferEncodingError)):
        return MalformedStreamError("The server's answer is not valid HTTP: its framing or compression is broken.")
    return ConnectionLostError("The answer was cut off before its end.")


def _not_http(error: Exception, _: str) -> LMStudioError:
    """Return an error that shows the first line of the server's answer, which aiohttp quotes."""
    line = QUOTED.search(str(error))
    shown = f": {describe(line[1])}" if line else ""
    return MalformedStreamError(f"The server's answer is not valid HTTP{shown}.")


QUOTED = re.compile(r"\bb'([^'\n]*)'")
Translation = tuple[type[Exception] | tuple[type[Exception], ...], Callable[[Exception, str], LMStudioError]]
TRANSLATIONS: list[Translation] = [
    (
        aiohttp.InvalidURL,
        lambda *_: ConfigurationError("The server's address is wrong.", hint="Check `base_url` or `host`."),
    ),
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), _proxy_failed),
    (
        (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError),
        lambda error, _: TransportError(f"TLS failed{reason_of(error)}.", hint=TLS_HINT),
    ),
    (aiohttp.ClientConnectorError, _unreachable),
    (
        aiohttp.ServerDisconnectedError,
        lambda *_: ConnectionLostError("The server closed the connection without an answer."),
    ),
    (aiohttp.ClientPayloadError, _body_error),
    (aiohttp.ClientResponseError, _not_http),
    # Errors while connecting are `ClientConnectorError`s, so that any other one of the socket broke a connection.
    (
        (aiohttp.ClientConnectionError, OSError),
        lambda error, _: ConnectionLostError(f"The connection broke{reason_of(error)}."),
    ),
]
