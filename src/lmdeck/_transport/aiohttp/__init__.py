"""The async transport, on aiohttp.

A session belongs to an event loop: it is opened by the first request and closed at the end of the loop at the latest, so a
client can be used under several loops in turn, as in two `asyncio.run` calls. A forked process opens its own. Proxies from the
environment, cookies and redirects are off: the server is a local API.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncGenerator, Callable, Mapping

import aiohttp
from yarl import URL

from lmdeck._forking import on_fork
from lmdeck._transport import DRAIN_SECONDS, CheckAddress, WireRequest, codings_left
from lmdeck._transport.aiohttp.connections import Connector, Protocol, keep_session, proxy_address
from lmdeck._transport.aiohttp.errors import forget_headers, is_limit, translate
from lmdeck._transport.aiohttp.read_timer import ReadTimer
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.tls import ssl_context
from lmdeck._transport.traceback_secrets import clear_locals
from lmdeck.config import Settings
from lmdeck.errors import RequestTimeoutError

LARGE_BODY = 1 << 20  # larger ones are sent piece by piece: aiohttp warns of bytes that would block the loop
DECODED = frozenset({"gzip", "deflate", "br", "zstd"})


class AiohttpTransport:
    """The async transport over a pool of connections; can be shared between tasks."""

    def __init__(self, settings: Settings, check_address: CheckAddress | None = None) -> None:
        self._ssl = ssl_context(settings)
        self._check_address = check_address
        self._proxy, self._proxy_headers = proxy_address(settings.proxy)
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
        handled = sys.exc_info()[1]
        try:
            async with asyncio.timeout(left):
                session = await self._opened_session()
                try:
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
                except BaseException as error:
                    clear_locals(error, handled)
                    raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            forget_headers(error)
            if is_limit(error):
                raise deadlines.expired(phase) from error
            raise translate(error, request.url, deadlines) from error
        return AiohttpResponse(response, deadlines, request)

    async def aclose(self) -> None:
        """Close every connection."""
        keeper, self._keeper, self._session = self._keeper, None, None
        if keeper is not None and self._loop is asyncio.get_running_loop():
            await keeper.aclose()

    def after_fork(self) -> None:
        """Leave session and connections to the parent process, whose event loop uses them."""
        keeper, session, self._keeper, self._session, self._loop = self._keeper, self._session, None, None, None
        if session is not None and isinstance(session.connector, Connector):
            session.connector.disown()
            _parents.append((keeper, session))

    async def _opened_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop or self._session.closed:
            self._keeper = keep_session(self._ssl, self._check_address)
            self._session = await anext(self._keeper)  # does not wait, so no other task runs in between
            self._loop = loop
        return self._session


_parents: list[object] = []
"""Objects inherited from the parent process, whose finalizers must not run.

They would wake the parent's event loop.
"""


class AiohttpResponse:
    """An answer whose body is awaited as it arrives."""

    __slots__ = (
        "_connection", "_content", "_deadlines", "_has_length", "_response", "_timer", "_url", "has_ended", "headers",
        "status", "undecoded",
    )  # fmt: skip

    def __init__(self, response: aiohttp.ClientResponse, deadlines: Deadlines, request: WireRequest) -> None:
        self._response = response
        self._content = response.content
        self._connection: Protocol | None = None  # None if the whole body has arrived with the head
        if response.connection is not None and isinstance(response.connection.protocol, Protocol):
            self._connection = response.connection.protocol
            self._connection.end_with_connection(response.content)
        self._timer = ReadTimer(response.content, request.timeouts.idle)
        self._deadlines = deadlines
        self._url = request.url
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._has_length = "content-length" in self.headers  # then aiohttp knows the end with the last bytes
        self.has_ended = False
        coding = self.headers.get("content-encoding")
        # aiohttp decodes a single coding only, and refuses a known one whose library is missing.
        self.undecoded = codings_left(coding, () if "," in coding else DECODED) if coding else ""

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
            if is_limit(error):
                raise self._deadlines.expired(phase) from error
            raise translate(error, self._url, self._deadlines) from error
        finally:
            self._timer.end_wait()
        self._deadlines.has_bytes = True
        if self._has_length:
            self.has_ended = self._content.at_eof()
        return data

    async def follow(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with bytes as they arrive, until it returns False or only `read` can go on.

        That is at the end of the body, when the connection breaks, and when a time limit is exceeded. No task is switched.
        """
        content, connection, timer = self._content, self._connection, self._timer
        if connection is None or not self._may_wait():
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        taken, is_advancing, goes_on = 0, False, True

        def advance() -> None:
            nonlocal taken, is_advancing, goes_on
            if is_advancing or over.done():  # reading may resume the connection, whose bytes come later
                return
            is_advancing = True
            try:
                while goes_on and content.total_bytes > taken and content.exception() is None:
                    taken, data = content.total_bytes, content.read_nowait()
                    self._deadlines.has_bytes = True
                    goes_on = not data or (take(data) and self._may_wait())
            except Exception as error:
                over.set_exception(error)
                return
            finally:
                is_advancing = False
            if not goes_on or content.exception() is not None or content.is_eof():
                over.set_result(None)

        connection.when_changed = timer.when_over = advance
        try:
            advance()
            await over
        finally:
            if connection.when_changed is advance:  # else it already has another answer
                connection.when_changed = None
            timer.when_over = None
            timer.end_wait()

    def _may_wait(self) -> bool:
        """Limit the wait for the next bytes; return False if a limit is exceeded already."""
        try:
            self._timer.begin_wait(self._deadlines.remaining()[0])
        except RequestTimeoutError:
            return False
        return True

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or stop allowing them."""
        self._deadlines.be_patient(wanted=wanted)

    async def drain(self) -> None:
        """Read the rest of a finished answer, but only briefly, to make the connection reusable."""
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):  # then `close` cuts the connection
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._content.at_eof() and not await self._content.readany():
                    continue
        self.close()

    def close(self) -> None:
        """Release the connection; if the body was not read to its end, the connection is cut."""
        self._timer.cancel()
        self._response.close()
