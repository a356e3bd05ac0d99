"""The transport: send one request and return the bytes of its answer.

A transport has one method, `open`; it knows sockets, pools and timeouts, but not chats. The sync one uses urllib3, the async
one aiohttp, and only their own modules import these libraries. Every error that a transport raises is a `TransportError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from lmdeck._secret import Secret
from lmdeck.config import Settings


class Timeouts(Struct, frozen=True, kw_only=True):
    """Time limits in seconds: to connect, for the first byte, between two bytes, and in all."""

    connect: float = 5.0
    first_token: float = 600.0
    idle: float = 60.0
    total: float | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Timeouts:
        """Return the limits in the settings."""
        return cls(
            connect=settings.connect_timeout,
            first_token=settings.first_token_timeout,
            idle=settings.timeout,
            total=settings.total_timeout,
        )


class WireRequest(Struct, frozen=True, kw_only=True):
    """One HTTP request; the token is separate from the headers, so that these can be logged."""

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    api_token: Secret | None = None
    timeouts: Timeouts = Timeouts()

    def wire_headers(self) -> dict[str, str]:
        """Return the headers as they are sent, with the token."""
        headers = {"Accept-Encoding": "identity", **self.headers}
        if self.body is not None:
            headers.setdefault("Content-Type", "application/json")
        if self.api_token is not None:
            headers["Authorization"] = f"Bearer {self.api_token.reveal()}"
        return headers


def server_of(url: str) -> str:
    """Return scheme, host and port of a URL, as shown in messages."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


CheckAddress: TypeAlias = Callable[[str], None]
"""Checks the IP address that a socket is about to connect to; an `OSError` refuses it."""


class Response(Protocol):
    """The head of an answer; `close` ends the connection at once, unless the body was read."""

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
        """The content codings that `read` does not decode; `""` for none."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the last bytes of the body were read; False also if that is not known yet."""
        ...

    def close(self) -> None:
        """Release the connection.

        If the body was not read to its end, the connection is cut, so that the server stops.
        """
        ...

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or stop allowing them."""
        ...


def codings_left(encoding: str, decoded: Collection[str]) -> str:
    """Return the codings in a `Content-Encoding` that are not in `decoded`; `""` for none."""
    codings = [coding.strip().lower() for coding in encoding.split(",")]
    return ", ".join(coding for coding in codings if coding and coding != "identity" and coding not in decoded)


MAX_LINE_BYTES = 65536  # of a line in the head of an answer
MAX_HEADERS = 128
FIRST_FINAL_STATUS = 200  # below it, an interim answer precedes the answer (RFC 9110, section 15.2)
READ_BYTES = 124 << 10  # at once; for 128 KiB, glibc would ask the system for memory at each read, which takes 14 µs
DRAIN_SECONDS = 0.2  # how long the framing of an answer may take to end after its last event


class SyncResponse(Response, Protocol):
    """An answer whose body is read with blocking calls."""

    def read(self) -> bytes:
        """Return the bytes that have arrived, at least one; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit was exceeded.
        """
        ...

    def drain(self) -> None:
        """Release the connection after a finished answer, for reuse if its body has ended."""
        ...


class AsyncResponse(Response, Protocol):
    """An answer whose body is awaited."""

    async def drain(self) -> None:
        """Release the connection after a finished answer, for reuse if its body has ended."""
        ...

    async def read(self) -> bytes:
        """Return the bytes that have arrived, at least one; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit was exceeded.
        """
        ...

    async def follow(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with bytes as they arrive, until it returns False or only `read` can continue."""
        ...


class Transport(Protocol):
    """The sync transport."""

    def open(self, request: WireRequest, /) -> SyncResponse:
        """Send a request and wait for the head of its answer."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class AsyncTransport(Protocol):
    """The async transport."""

    async def open(self, request: WireRequest, /) -> AsyncResponse:
        """Send a request and wait for the head of its answer."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
