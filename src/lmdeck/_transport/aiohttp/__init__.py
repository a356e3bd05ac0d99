"""The async transport, on aiohttp.

A session belongs to an event loop: it is opened by the first request and closed at the end of the loop at the latest, so a
client can be used under several loops in turn, as in two `asyncio.run` calls. A forked process opens its own. Proxies from the
environment, cookies and redirects are off: the server is a local API.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache

import aiohttp
from multidict import istr
from yarl import URL

from lmdeck._forking import on_fork
from lmdeck._transport import CheckAddress, WireRequest
from lmdeck._transport.aiohttp.connections import Connector, keep_session, proxy_address
from lmdeck._transport.aiohttp.errors import forget_headers, is_limit, translate
from lmdeck._transport.aiohttp.read_timer import ReadTimer
from lmdeck._transport.aiohttp.response import AiohttpResponse
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.tls import ssl_context
from lmdeck._transport.traceback_secrets import clear_locals
from lmdeck.config import Settings

LARGE_BODY = 1 << 20  # larger bodies are sent in pieces: aiohttp warns of bytes that would block the loop


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
            TransportError: The server is unreachable, the connection broke, or a time limit was exceeded.
        """
        deadlines = Deadlines(request.timeouts)
        remaining, phase = deadlines.remaining()
        timer = ReadTimer(asyncio.get_running_loop(), request.timeouts.idle)
        body, is_tunnelled = request.body, request.url.startswith("https://")
        handled = sys.exc_info()[1]
        try:
            session = await self._opened_session()
            sent = session.request(
                request.method,
                URL(request.url, encoded=True),
                data=body if body is None or len(body) < LARGE_BODY else io.BytesIO(body),
                # Through a tunnel the proxy's headers would reach the server.
                headers=_shared_names(request.wire_headers() | ({} if is_tunnelled else self._proxy_headers)),
                allow_redirects=False,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers if is_tunnelled else None,
                timeout=_limits(request.timeouts.connect),
            )
            response = await timer.limit(remaining, sent)
        except BaseException as error:
            clear_locals(error, handled)
            if not isinstance(error, (aiohttp.ClientError, OSError, ValueError)):
                raise
            forget_headers(error)
            if is_limit(error):
                raise deadlines.expired(phase) from error
            raise translate(error, request.url, deadlines) from error
        return AiohttpResponse(response, deadlines, timer, request)

    async def aclose(self) -> None:
        """Close every connection."""
        keeper, session, self._keeper, self._session = self._keeper, self._session, None, None
        if keeper is not None and session is not None and self._loop is asyncio.get_running_loop():
            await session.close()
            await keeper.aclose()

    def after_fork(self) -> None:
        """Leave the session and its connections to the parent process, whose event loop uses them."""
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


_name = lru_cache(maxsize=256)(istr)


def _shared_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with shared names: aiohttp would create them again for each request."""
    return {_name(name): value for name, value in headers.items()}


@lru_cache(maxsize=64)  # its construction takes as long as that of the headers
def _limits(connect: float) -> aiohttp.ClientTimeout:
    """Return the only limit that aiohttp itself applies: to connect."""
    return aiohttp.ClientTimeout(total=None, connect=connect)


_parents: list[object] = []
"""Objects inherited from the parent process; their finalizers, which would wake its event loop, must not run."""
