"""The way to the server: one request out, one answer's bytes back.

A transport has one method, `open`; it knows sockets, pools, timeouts and nothing of chats. The sync one is made of urllib3,
the async one of aiohttp, and each library is named in one file only. Every error it raises is a `TransportError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from lmdeck._secret import Secret
from lmdeck.config import Settings

__all__ = [
    "DRAIN_SECONDS",
    "AsyncResponse",
    "AsyncTransport",
    "CheckAddress",
    "Response",
    "SyncResponse",
    "Timeouts",
    "Transport",
    "WireRequest",
    "codings_left",
]


class Timeouts(Struct, frozen=True, kw_only=True):
    """How long to wait, in seconds: to connect, for the answer's first byte, between two bytes, and for all of it."""

    connect: float = 5.0
    first_token: float = 600.0
    idle: float = 60.0
    total: float | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Timeouts:
        """Take the four limits from the settings."""
        return cls(
            connect=settings.connect_timeout,
            first_token=settings.first_token_timeout,
            idle=settings.timeout,
            total=settings.total_timeout,
        )


class WireRequest(Struct, frozen=True, kw_only=True):
    """One HTTP request; the token is kept apart from the headers, so that these can be logged."""

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    api_token: Secret | None = None
    timeouts: Timeouts = Timeouts()

    @property
    def server(self) -> str:
        """The server's root, as messages name it: scheme, host and port."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"

    def wire_headers(self) -> dict[str, str]:
        """Give the headers as they go over the wire, the token included."""
        headers = {"Accept-Encoding": "identity", **self.headers}
        if self.body is not None:
            headers.setdefault("Content-Type", "application/json")
        if self.api_token is not None:
            headers["Authorization"] = f"Bearer {self.api_token.reveal()}"
        return headers


CheckAddress: TypeAlias = Callable[[str], None]
"""Look at the IP address that a socket is about to be connected to; an `OSError` refuses it."""


class Response(Protocol):
    """The head of an answer. `close` ends the connection at once, unless the body was read to its end."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, their names in lower case."""
        ...

    @property
    def undecoded(self) -> str:
        """The content codings that `read` leaves on the body, `""` for none."""
        ...

    def close(self) -> None:
        """Let go of the connection; a body that was not read to its end is cut off, so that the server stops."""
        ...

    def be_patient(self, *, wanted: bool) -> None:
        """Let a silence last as long as the wait for the first byte, or no longer."""
        ...


def codings_left(headers: Mapping[str, str], decoded: Collection[str]) -> str:
    """Return what `Content-Encoding` names and is not in `decoded`, `""` for nothing."""
    codings = [coding.strip().lower() for coding in headers.get("content-encoding", "").split(",")]
    return ", ".join(coding for coding in codings if coding and coding != "identity" and coding not in decoded)


DRAIN_SECONDS = 0.2  # what an answer's framing may take to end after its last event


class SyncResponse(Response, Protocol):
    """An answer whose body is read with blocking calls."""

    def read(self) -> bytes:
        """Give what has arrived, at least one byte; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit ran out.
        """
        ...

    def drain(self) -> None:
        """Let go of the connection after a finished answer, so that it can be used again if its body has ended."""
        ...


class AsyncResponse(Response, Protocol):
    """An answer whose body is awaited."""

    async def drain(self) -> None:
        """Let go of the connection after a finished answer, so that it can be used again if its body has ended."""
        ...

    async def read(self) -> bytes:
        """Give what has arrived, at least one byte; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit ran out.
        """
        ...


class Transport(Protocol):
    """The sync way to the server."""

    def open(self, request: WireRequest, /) -> SyncResponse:
        """Send a request and wait for the head of its answer."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class AsyncTransport(Protocol):
    """The async way to the server."""

    async def open(self, request: WireRequest, /) -> AsyncResponse:
        """Send a request and wait for the head of its answer."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
