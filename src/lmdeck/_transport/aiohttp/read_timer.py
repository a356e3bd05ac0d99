"""The time limit of the waits for one answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class ReadTimer:
    """The time limit of the waits for one answer, with one timer that is set only when it fires."""

    __slots__ = ("_fires_at", "_handle", "_loop", "_period", "_wait_ends_at", "_when_over")

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float, when_over: Callable[[], object]) -> None:
        """`when_over` is called when a limit is exceeded, even if the wait has ended meanwhile.

        `period` is the usual limit, for which the timer never has to be set earlier.
        """
        self._loop = loop
        self._period = period
        self._when_over = when_over
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        self._wait_ends_at = math.inf

    def begin_wait(self, seconds: float) -> None:
        """Limit the next wait."""
        self._wait_ends_at = self._loop.time() + seconds
        if self._wait_ends_at < self._fires_at:
            self._set()

    def is_over(self) -> bool:
        """Whether the limit of the last wait is exceeded."""
        return self._wait_ends_at <= self._loop.time()

    def end(self) -> None:
        """Limit nothing more; release the timer, and the function, which usually refers to the owner of this object."""
        self._when_over = _ignore
        self._cancel()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _set(self) -> None:
        self._cancel()
        self._fires_at = min(self._wait_ends_at, self._loop.time() + self._period)
        self._handle = self._loop.call_at(self._fires_at, self._fire)

    def _fire(self) -> None:
        self._handle, self._fires_at = None, math.inf
        if self.is_over():
            self._when_over()
        else:
            self._set()


def _ignore() -> None:
    """Do nothing: nothing is limited any more."""
