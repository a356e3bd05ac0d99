"""Single flight: of equal simultaneous requests, one is sent, and all read its response."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any

from lmdeck._forking import on_fork
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.latch import Latch
from lmdeck.cache.sharing import SharedBody


class Flight(Latch):
    """A request that was sent.

    The latch opens when its response begins (`body`), or when there is none.

    `keep` is called with each finished stream of the response.
    """

    def __init__(self, end: Callable[[Flight], object]) -> None:
        super().__init__(threading.Lock())
        self.body: SharedBody | None = None
        self.keep: Callable[[ResponseStream[Any]], object] = _forget
        self.has_failed = False
        self._end = end

    def share(self, body: SharedBody, keep: Callable[[ResponseStream[Any]], object]) -> None:
        """Allow the others to read the response."""
        self.keep = keep
        self.body = body
        self.open()

    def fail(self, *, by_error: bool) -> None:
        """Allow another request to be sent, since this one failed or was cancelled."""
        self.has_failed = by_error
        self.end()
        self.open()

    def end(self) -> None:
        """Stop further requests from joining."""
        self._end(self)


class Flights:
    """The open requests, by key.

    Tasks share only within their event loop, threads with each other.
    """

    def __init__(self) -> None:
        self._renew()
        on_fork(self, Flights._renew)

    def join(self, key: bytes) -> tuple[Flight, bool]:
        """Return the flight of a key, and whether it is new; if it is, the caller sends the request."""
        name = (key, running_loop())
        with self._lock:
            flight = self._flights.get(name)
            if flight is not None:
                return flight, False
            flight = self._flights[name] = Flight(lambda ended: self._remove(name, ended))
            return flight, True

    def _remove(self, name: Hashable, flight: Flight) -> None:
        with self._lock:
            if self._flights.get(name) is flight:
                del self._flights[name]

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight] = {}


def unshared_flight() -> Flight:
    """Return a flight that no other request joins."""
    return Flight(lambda _: None)


def _forget(_: object) -> None:
    """Store nothing."""


def running_loop() -> Any:
    """Return the event loop of this thread, or None."""
    asyncio = sys.modules.get("asyncio")  # a sync script need not import it
    try:
        return asyncio.get_running_loop() if asyncio else None
    except RuntimeError:
        return None
