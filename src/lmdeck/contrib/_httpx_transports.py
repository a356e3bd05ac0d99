"""The common code of the transports for httpx and httpx2, which differ only in their names.

`library` is the module `httpx` or `httpx2`. It is `Any`, since their classes have no common type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lmdeck._incoming.headers import joined_headers
from lmdeck.errors import LMStudioError
from lmdeck.relay.upstream import (
    AsyncRelayedResponse,
    AsyncUpstream,
    ClientTimeoutError,
    ClientTimeouts,
    RelayedResponse,
    Upstream,
)


def relay(upstream: Upstream, request: Any, library: Any, stream: Callable[[RelayedResponse, Any], Any]) -> Any:
    """Send a request and return the library's response; failures have a status of 400 or above.

    Raises:
        TimeoutException: The library's own; a time limit of the client was exceeded.
    """
    body = request.read()
    with _library_errors(library, request):
        relayed = upstream.send(*_arguments(request, body))
    return library.Response(relayed.status, headers=dict(relayed.headers), stream=stream(relayed, request))


async def relay_async(
    upstream: AsyncUpstream, request: Any, library: Any, stream: Callable[[AsyncRelayedResponse, Any], Any]
) -> Any:
    """Async version of `relay`."""
    body = await request.aread()
    with _library_errors(library, request):
        relayed = await upstream.send(*_arguments(request, body))
    return library.Response(relayed.status, headers=dict(relayed.headers), stream=stream(relayed, request))


class RelayedStream:
    """The body of an answer; closing or dropping it stops the generation on the server."""

    library: Any

    def __init__(self, relayed: RelayedResponse, request: Any) -> None:
        self._relayed = relayed
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _library_errors(self.library, self._request):
            yield from self._relayed.chunks

    def close(self) -> None:
        """Release the connection, or cut it if the body was not read to its end."""
        self._relayed.close()

    def __del__(self) -> None:
        self._relayed.close()


class AsyncRelayedStream:
    """Async version of `RelayedStream`."""

    library: Any

    def __init__(self, relayed: AsyncRelayedResponse, request: Any) -> None:
        self._relayed = relayed
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _library_errors(self.library, self._request):
            async for chunk in self._relayed.chunks:
                yield chunk

    async def aclose(self) -> None:
        """Release the connection, or cut it if the body was not read to its end."""
        self._relayed.close()

    def __del__(self) -> None:
        self._relayed.close()


def _arguments(request: Any, body: bytes) -> tuple[str, str, dict[str, str], bytes, ClientTimeouts]:
    limits = request.extensions.get("timeout") or {}
    timeouts = ClientTimeouts(connect=limits.get("connect"), read=limits.get("read"))
    return request.method, str(request.url), joined_headers(request.headers.raw), body, timeouts


@contextmanager
def _library_errors(library: Any, request: Any) -> Iterator[None]:
    """Translate lmdeck's errors to the library's exceptions."""
    try:
        yield
    except ClientTimeoutError as error:
        kind = library.ConnectTimeout if error.is_connect else library.ReadTimeout
        raise kind(str(error), request=request) from error
    except LMStudioError as error:
        raise library.ReadError(str(error), request=request) from error
