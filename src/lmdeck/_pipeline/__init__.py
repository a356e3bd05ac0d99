"""What stands between a client and its transport: small handlers, each around the next.

A handler takes a `Call` and gives a plan: a generator that yields effects (open, read, sleep) and is sent their results. So
each handler is written once and runs under two short drivers, `drive` and `drive_async`; a test drives it with plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec import Struct, field

from lmdeck._responses.json_reader import Reader
from lmdeck._responses.server_detection import Peer
from lmdeck._transport import Response, WireRequest

if TYPE_CHECKING:
    from lmdeck._pipeline.concurrency import Gate
    from lmdeck._pipeline.exchange import Answer

__all__ = ["Call", "Effect", "Handler", "Open", "Plan", "Read", "Sleep", "Tell", "Wait"]

T = TypeVar("T")


class Open(Struct, frozen=True):
    """Effect: send the request, and be sent its `Response`."""

    request: WireRequest


class Read(Struct, frozen=True):
    """Effect: read from the response, and be sent bytes, `b""` at its end."""

    response: Response


class Sleep(Struct, frozen=True):
    """Effect: wait for so many seconds."""

    seconds: float


class Tell(Struct, frozen=True):
    """Effect: call the user's callback; one that gives an awaitable is awaited by the async driver."""

    callback: Callable[[Any], object]
    value: object


class Wait(Struct, frozen=True):
    """Effect: wait for a turn at the gate, and be sent the admitted `Turn`."""

    gate: Gate


Effect: TypeAlias = Open | Read | Sleep | Tell | Wait
Plan: TypeAlias = Generator[Effect, Any, T]


class Call(Struct, frozen=True, kw_only=True):
    """A request, the name it is logged under, and how to make the reader of its answer from status and headers.

    `has_effects` marks a request that changes something outside the answer, so that sending it twice would do it twice.
    `peer` is what is known of the server at the other end.
    """

    request: WireRequest
    request_id: str
    make_reader: Callable[[int, Mapping[str, str]], Reader]
    has_effects: bool = False
    peer: Peer = field(default_factory=Peer)


Handler: TypeAlias = "Callable[[Call], Plan[Answer]]"
