"""Repairing transports for clients that use httpx 0.2x.

Such clients are mistralai, groq, and older versions of openai.

    import httpx
    from lmdeck.contrib.httpx import RepairTransport

    client = httpx.Client(transport=RepairTransport())

`lmdeck.contrib.httpx2` has the same classes for httpx2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from lmdeck.contrib._extras import missing_extra

try:
    import httpx
except ModuleNotFoundError as error:
    raise missing_extra(error, "httpx") from error

from lmdeck.contrib._httpx_transports import AsyncRelayedStream, RelayedStream, relay, relay_async
from lmdeck.relay.upstream import AsyncUpstream, Upstream

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
        response: httpx.Response = relay(self._upstream, request, httpx, _Stream)
        return response

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
        response: httpx.Response = await relay_async(self._upstream, request, httpx, _AsyncStream)
        return response

    async def aclose(self) -> None:
        """Close all connections; the transport can be used again, with new ones."""
        await self._upstream.aclose()


class _Stream(RelayedStream, httpx.SyncByteStream):
    library = httpx


class _AsyncStream(AsyncRelayedStream, httpx.AsyncByteStream):
    library = httpx
