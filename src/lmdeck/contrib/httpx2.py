"""Repairing transports for clients that use httpx2.

Such clients are openai 3, anthropic, pydantic-ai and langchain.

    import httpx2
    from lmdeck.contrib.httpx2 import RepairTransport

    client = httpx2.Client(transport=RepairTransport())

`lmdeck.contrib.httpx` has the same classes for httpx 0.2x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from lmdeck.contrib._extras import missing_extra

try:
    import httpx2
except ModuleNotFoundError as error:
    raise missing_extra(error, "httpx2") from error

from lmdeck.contrib._httpx_transports import AsyncRelayedStream, RelayedStream, relay, relay_async
from lmdeck.relay.upstream import AsyncUpstream, Upstream

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
        response: httpx2.Response = relay(self._upstream, request, httpx2, _Stream)
        return response

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
        response: httpx2.Response = await relay_async(self._upstream, request, httpx2, _AsyncStream)
        return response

    async def aclose(self) -> None:
        """Close all connections; the transport can be used again, with new ones."""
        await self._upstream.aclose()


class _Stream(RelayedStream, httpx2.SyncByteStream):
    library = httpx2


class _AsyncStream(AsyncRelayedStream, httpx2.AsyncByteStream):
    library = httpx2
