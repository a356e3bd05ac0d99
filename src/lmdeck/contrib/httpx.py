"""Repairing transports for clients that use httpx 0.2x, such as mistralai, groq, and older versions of openai.

    import httpx
    from lmdeck.contrib.httpx import RepairTransport

    client = httpx.Client(transport=RepairTransport())

`lmdeck.contrib.httpx2` has the same classes for httpx2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Unpack

from lmdeck.contrib._extras import missing_extra

try:
    import httpx
except ModuleNotFoundError as error:
    raise missing_extra(error, "httpx") from error

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


class RepairTransport(httpx.BaseTransport):
    """A transport that adapts requests to LM Studio and repairs its answers.

    The keywords are those of `LMStudio`. Requests are sent to their own address, unless a keyword names another one. Time
    limits of the client apply if they are shorter than lmdeck's; retries are lmdeck's.
    """

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        self._upstream = Upstream(settings)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; failures are returned as responses with a status of 400 or above.

        Raises:
            httpx.TimeoutException: A time limit of the client was exceeded.
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
        return httpx.Response(relayed.status, headers=dict(relayed.headers), stream=_RelayedStream(relayed, request))

    def close(self) -> None:
        """Close all connections; the transport can be used again, with new ones."""
        self._upstream.close()


class AsyncRepairTransport(httpx.AsyncBaseTransport):
    """Async version of `RepairTransport`."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        self._upstream = AsyncUpstream(settings)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; failures are returned as responses with a status of 400 or above.

        Raises:
            httpx.TimeoutException: A time limit of the client was exceeded.
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
        return httpx.Response(
            relayed.status, headers=dict(relayed.headers), stream=_AsyncRelayedStream(relayed, request)
        )

    async def aclose(self) -> None:
        """Close all connections; the transport can be used again, with new ones."""
        await self._upstream.aclose()


class _RelayedStream(httpx.SyncByteStream):
    """The body of an answer; closing or dropping it stops the generation on the server."""

    def __init__(self, relayed: RelayedResponse, request: httpx.Request) -> None:
        self._relayed = relayed
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._relayed.chunks
        except ClientTimeoutError as error:
            raise _timeout(error, self._request) from error
        except LMStudioError as error:
            raise httpx.ReadError(str(error), request=self._request) from error

    def close(self) -> None:
        self._relayed.close()

    def __del__(self) -> None:
        self._relayed.close()


class _AsyncRelayedStream(httpx.AsyncByteStream):
    """The body of an answer; closing or dropping it stops the generation on the server."""

    def __init__(self, relayed: AsyncRelayedResponse, request: httpx.Request) -> None:
        self._relayed = relayed
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._relayed.chunks:
                yield chunk
        except ClientTimeoutError as error:
            raise _timeout(error, self._request) from error
        except LMStudioError as error:
            raise httpx.ReadError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        self._relayed.close()

    def __del__(self) -> None:
        self._relayed.close()


def _timeout(error: ClientTimeoutError, request: httpx.Request) -> httpx.TimeoutException:
    kind = httpx.ConnectTimeout if error.is_connect else httpx.ReadTimeout
    return kind(str(error), request=request)
