"""Transports for clients on httpx 0.2x (mistralai, groq, older versions of openai, …): the server's answers arrive repaired.

import httpx
from lmdeck.contrib.httpx import RepairTransport

client = httpx.Client(transport=RepairTransport())
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Unpack

import httpx

from lmdeck.contrib._upstream import AsyncSent, AsyncUpstream, Limits, OuterTimeoutError, Sent, Upstream
from lmdeck.errors import LMStudioError

if TYPE_CHECKING:
    from lmdeck.config import ClientSettings

__all__ = ["AsyncRepairTransport", "RepairTransport"]


class RepairTransport(httpx.BaseTransport):
    """A transport that makes requests acceptable to LM Studio and repairs its answers.

    The keywords are those of `LMStudio`. The address is the request's own, unless one of them names another. Time limits of
    the client hold where they are shorter than lmdeck's; retries are lmdeck's.
    """

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        self._upstream = Upstream(settings)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; what went wrong is a response with a status of 400 or above.

        Raises:
            httpx.TimeoutException: A time limit of the client ran out.
        """
        body = request.read()
        try:
            sent = self._upstream.send(
                request.method, str(request.url), dict(request.headers.items()), body, Limits.of(request.extensions)
            )
        except OuterTimeoutError as error:
            raise _timeout(error, request) from error
        return httpx.Response(sent.status, headers=dict(sent.headers), stream=_Stream(sent, request))

    def close(self) -> None:
        """Close every connection; the transport can be used again, on new ones."""
        self._upstream.close()


class AsyncRepairTransport(httpx.AsyncBaseTransport):
    """The same for asyncio."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        self._upstream = AsyncUpstream(settings)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; what went wrong is a response with a status of 400 or above.

        Raises:
            httpx.TimeoutException: A time limit of the client ran out.
        """
        body = await request.aread()
        try:
            sent = await self._upstream.send(
                request.method, str(request.url), dict(request.headers.items()), body, Limits.of(request.extensions)
            )
        except OuterTimeoutError as error:
            raise _timeout(error, request) from error
        return httpx.Response(sent.status, headers=dict(sent.headers), stream=_AsyncStream(sent, request))

    async def aclose(self) -> None:
        """Close every connection; the transport can be used again, on new ones."""
        await self._upstream.aclose()


class _Stream(httpx.SyncByteStream):
    """The body of an answer; closed, or dropped unread, it ends the generation on the server."""

    def __init__(self, sent: Sent, request: httpx.Request) -> None:
        self._sent = sent
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._sent.chunks
        except OuterTimeoutError as error:
            raise _timeout(error, self._request) from error
        except LMStudioError as error:
            raise httpx.ReadError(str(error), request=self._request) from error

    def close(self) -> None:
        self._sent.close()

    def __del__(self) -> None:
        self._sent.close()


class _AsyncStream(httpx.AsyncByteStream):
    """The body of an answer; closed, or dropped unread, it ends the generation on the server."""

    def __init__(self, sent: AsyncSent, request: httpx.Request) -> None:
        self._sent = sent
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._sent.chunks:
                yield chunk
        except OuterTimeoutError as error:
            raise _timeout(error, self._request) from error
        except LMStudioError as error:
            raise httpx.ReadError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        self._sent.close()

    def __del__(self) -> None:
        self._sent.close()


def _timeout(error: OuterTimeoutError, request: httpx.Request) -> httpx.TimeoutException:
    kind = httpx.ConnectTimeout if error.is_connect else httpx.ReadTimeout
    return kind(str(error), request=request)
