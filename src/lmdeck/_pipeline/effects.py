"""The effects that a plan may yield.

A plan is a generator that yields effects and is sent their results. It decides but does not perform them, so it is written once
for sync and async, and tests drive it with plain values. `run_plan` and `run_plan_async` perform the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from lmdeck._transport import Response, WireRequest

T = TypeVar("T")


class FirstReads(Protocol):
    """A response that is read up to its first chunks; see `ResponseStream`."""

    response: Response

    def feed_first(self, data: bytes) -> bool:
        """Read bytes of the body, `b""` at its end, and return whether there are chunks now."""
        ...


class Open(Struct, frozen=True):
    """Effect: send the request. The result is its `Response`."""

    request: WireRequest


class Send(Struct, frozen=True):
    """Effect: send the request and read its response up to the first chunks.

    The result is the stream that `begin` returns for the response; if it returns None, the `Response`, with an unread body. The
    response is closed if `begin` or a read raises.
    """

    request: WireRequest
    begin: Callable[[Response], FirstReads | None]


class Read(Struct, frozen=True):
    """Effect: read from the response once. The result is bytes, `b""` at the end of the body."""

    response: Response


class Sleep(Struct, frozen=True):
    """Effect: wait for the given number of seconds."""

    seconds: float


class RunBlocking(Struct, frozen=True):
    """Effect: call a function that may block; async code calls it in a thread.

    The result is its return value.
    """

    function: Callable[[], object]


class RunCallback(Struct, frozen=True):
    """Effect: call the user's callback with a value; async code awaits an awaitable result."""

    callback: Callable[[Any], object]
    value: object


class Slot(Struct, eq=False):
    """A position in a queue; `wake` is called once, in the thread that freed a slot."""

    wake: Callable[[], object]
    owner: object
    is_granted: bool = False


class Queue(Protocol):
    """A queue of waiting slots, such as a `FairSemaphore` or a `Latch`."""

    def enqueue(self, wake: Callable[[], object]) -> Slot:
        """Return a slot at the end of the queue; it may be granted at once."""
        ...

    def release(self, slot: Slot) -> None:
        """Return a slot, or leave the queue."""
        ...


class Acquire(Struct, frozen=True):
    """Effect: wait in the queue. The result is the acquired `Slot`.

    After `patience` seconds, `on_long_wait` is called once.
    """

    queue: Queue
    patience: float | None = None
    on_long_wait: Callable[[], object] | None = None


Effect: TypeAlias = Open | Send | Read | Sleep | RunBlocking | RunCallback | Acquire
Plan: TypeAlias = Generator[Effect, Any, T]
