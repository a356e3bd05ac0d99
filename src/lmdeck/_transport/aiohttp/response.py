"""The answer of the async transport.

One mechanism reads it: the connection reports a change (bytes, the end, an error) to the answer, which wakes the task that
waits for it, or passes the bytes to a function at once. aiohttp keeps what has arrived, and pauses the connection if need be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import lru_cache

import aiohttp

from lmdeck._transport import DRAIN_SECONDS, WireRequest, codings_left
from lmdeck._transport.aiohttp.connections import Listener, Protocol
from lmdeck._transport.aiohttp.errors import is_limit, translate
from lmdeck._transport.aiohttp.read_timer import ReadTimer
from lmdeck._transport.deadlines import Deadlines
from lmdeck.errors import LMStudioError, RequestTimeoutError

_lower = lru_cache(maxsize=256)(str.lower)  # many streams at once share the names of headers
DECODED = frozenset({"gzip", "deflate", "br", "zstd"})


class AiohttpResponse(Listener):
    """An answer whose body is awaited as it arrives."""

    __slots__ = (
        "_connection", "_content", "_deadlines", "_has_length", "_has_news", "_loop", "_response", "_take", "_timer", "_url",
        "_waiter", "has_ended", "headers", "status", "undecoded",
    )  # fmt: skip

    def __init__(
        self, response: aiohttp.ClientResponse, deadlines: Deadlines, timer: ReadTimer, request: WireRequest
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._content = response.content
        self._has_news = True  # whether something may have arrived that was not read
        self._waiter: asyncio.Future[None] | None = None  # of the task that waits for news
        self._take: Callable[[bytes], bool] | None = None
        self._timer = timer
        timer.when_over = self._end_wait
        self._connection: Protocol | None = None  # None if the whole body has arrived with the head
        if response.connection is not None and isinstance(response.connection.protocol, Protocol):
            self._connection = response.connection.protocol
            self._connection.report_to(self, response.content)
        self._deadlines = deadlines
        self._url = request.url
        self.status = response.status
        self.headers: Mapping[str, str] = {_lower(name): value for name, value in response.headers.items()}
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
        remaining, phase = self._deadlines.remaining()
        try:
            data = self._arrived() if self._has_news else b""
            if not data:
                self._timer.begin_wait(remaining)
            while not data and not self._content.is_eof():
                self._waiter = self._loop.create_future()
                await self._waiter
                data = self._arrived() or self._check_limit()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.close()
            if is_limit(error):
                raise self._deadlines.expired(phase) from error
            raise translate(error, self._url, self._deadlines) from error
        if self._has_length:
            self.has_ended = self._content.at_eof()
        return data

    async def follow(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with bytes as they arrive, until it returns False or only `read` can go on.

        That is at the end of the body, when the connection breaks, and when a time limit is exceeded. No task is switched.
        """
        if not self._pass_on(take):
            return
        self._take, self._waiter = take, self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._take = None

    def on_change(self) -> None:
        """Pass on what has arrived, or wake the task that waits for it."""
        self._has_news = True
        waiter, self._waiter = self._waiter, None  # reading may resume the connection, whose bytes come later
        if waiter is None or waiter.done():
            return
        try:
            if self._take is not None and self._pass_on(self._take):
                self._waiter = waiter
            else:
                waiter.set_result(None)
        except Exception as error:
            waiter.set_exception(error)

    def _arrived(self) -> bytes:
        """Return the bytes that have arrived since the last call.

        Raises:
            ClientError: The body has ended with this error. Another one is possible, such as an `OSError`.
        """
        self._has_news = False
        data = self._content.read_nowait()
        if data:
            self._deadlines.has_bytes = True
        return data

    def _check_limit(self) -> bytes:
        """Return no bytes, unless the limit expired while the task was being woken.

        Raises:
            TimeoutError: It did.
        """
        if self._timer.is_over() and not self._content.is_eof():
            raise TimeoutError
        return b""

    def _pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Call `take` with what has arrived; return whether there may be more to wait for."""
        content = self._content
        while self._has_news and content.exception() is None:
            data = self._arrived()
            if data and not take(data):
                return False
        if content.exception() is not None or content.is_eof():
            return False
        try:
            self._timer.begin_wait(self._deadlines.remaining()[0])
        except RequestTimeoutError:
            return False
        return True

    def _end_wait(self) -> None:
        """End a wait whose time limit is exceeded."""
        if self._waiter is not None and not self._waiter.done():
            self._content.set_exception(TimeoutError())
            self.on_change()

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or stop allowing them."""
        self._deadlines.be_patient(wanted=wanted)

    async def drain(self) -> None:
        """Read the rest of a finished answer, but only briefly, to make the connection reusable."""
        if not self._content.at_eof():  # the end has often come with the last event
            with contextlib.suppress(LMStudioError, TimeoutError):  # then `close` cuts the connection
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self.read()
        self.close()

    def close(self) -> None:
        """Release the connection; if the body was not read to its end, the connection is cut."""
        self._timer.end()
        if self._connection is not None:
            self._connection.stop_reports(self)
            self._connection = None
        self._response.close()
        self.on_change()
