"""Repairing transports for clients that use httpx2, such as openai 3, anthropic, pydantic-ai and langchain.

    import httpx2
    from lmdeck.contrib.httpx2 import RepairTransport

    client = httpx2.Client(transport=RepairTransport())

`lmdeck.contrib.httpx` has the same classes for httpx 0.2x.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Unpack

from lmdeck.contrib._extras import missing_extra

try:
    import httpx2
except ModuleNotFoundError as error:
    raise missing_extra(error, "httpx2") from error

from lmdeck.contrib._upstream import (
    AsyncRelayedResponse,
    AsyncUpstream,
    ClientTimeoutError,
    ClientTimeouts,
    RelayedResponse,
    Upstream,
    headers_of,
)
from lmdeck.errors import LMStudioError

if TYPE_CHECKING:
    from lmdeck.config import ClientSettings

__all__ = ["AsyncRepairTransport", "RepairTransport"]


class RepairTransport(httpx2.BaseTransport):
    """A transport that adapts requests to LM Studio and repairs its answers.

    The keywords are those of `LMStudio`. Requests are sent to their own address, unless a keyword names another one. Time
    limits of the client apply if they are shorter than lmdeck's; retries are lmdeck's.
    """

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        self._upstream = Upstream(settings)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; failures are returned as responses with a status of 400 or above.

        Raises:
            httpx2.TimeoutException: A time limit of the client was exceeded.
        """
        body = request.read()
        try:
            relayed = self._upstream.send(
                request.method,
                str(request.url),
                headers_of(request.headers.raw),
                body,
                ClientTimeouts.of(request.extensions),
            )
        except ClientTimeoutError as error:
            raise _timeout(error, request) from error
        return httpx2.Response(relayed.status, headers=dict(relayed.headers), stream=_RelayedStream(relayed, request))

    def close(self) -> None:
        """Close all connections; the transport can be used again, with new ones."""
        self._upstream.close()


class AsyncRepairTransport(httpx2.AsyncBaseTransport):
    """Async version of `RepairTransport`."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        self._upstream = AsyncUpstream(settings)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; failures are returned as responses with a status of 400 or above.

        Raises:
            httpx2.TimeoutException: A time limit of the client was exceeded.
        """
        body = await request.aread()
        try:
            relayed = await self._upstream.send(
                request.method,
                str(request.url),
                headers_of(request.headers.raw),
                body,
                ClientTimeouts.of(request.extensions),
            )
        except ClientTimeoutError as error:
            raise _timeout(error, request) from error
        return httpx2.Response(
            relayed.status, headers=dict(relayed.headers), stream=_AsyncRelayedStream(relayed, request)
        )

    async def aclose(self) -> None:
        """Close all connections; the transport can be used again, with new ones."""
        await self._upstream.aclose()


class _RelayedStream(httpx2.SyncByteStream):
    """The body of an answer; closing it, or dropping it unread, stops the generation on the server."""

    def __init__(self, relayed: RelayedResponse, request: httpx2.Request) -> None:
        self._relayed = relayed
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._relayed.chunks
        except ClientTimeoutError as error:
            raise _timeout(error, self._request) from error
        except LMStudioError as error:
            raise httpx2.ReadError(str(error), request=self._request) from error

    def close(self) -> None:
        self._relayed.close()

    def __del__(self) -> None:
        self._relayed.close()


class _AsyncRelayedStream(httpx2.AsyncByteStream):
    """The body of an answer; closing it, or dropping it unread, stops the generation on the server."""

    def __init__(self, relayed: AsyncRelayedResponse, request: httpx2.Request) -> None:
        self._relayed = relayed
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._relayed.chunks:
                yield chunk
        except ClientTimeoutError as error:
            raise _timeout(error, self._request) from error
        except LMStudioError as error:
            raise httpx2.ReadError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        self._relayed.close()

    def __del__(self) -> None:
        self._relayed.close()


def _timeout(error: ClientTimeoutError, request: httpx2.Request) -> httpx2.TimeoutException:
    kind = httpx2.ConnectTimeout if error.is_connect else httpx2.ReadTimeout
    return kind(str(error), request=request)
