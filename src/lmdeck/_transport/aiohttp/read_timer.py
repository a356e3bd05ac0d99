"""The time limit of the reads of one answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import aiohttp


class ReadTimer:
    """The time limit of the reads of one answer.

    It has one timer, which is set again when it fires, not for every read.
    """

    __slots__ = ("_content", "_fires_at", "_handle", "_loop", "_period", "_wait_ends_at", "when_over")

    def __init__(self, content: aiohttp.StreamReader, period: float) -> None:
        """Limit the reads of `content`.
        `period` is the usual limit, so that the timer never has to be set earlier for it.
        """
        self._content = content
        self._period = period
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        self._wait_ends_at = math.inf
        self.when_over: Callable[[], object] | None = None  # called when the limit is exceeded

    def begin_wait(self, seconds: float) -> None:
        """Fail the read that follows with a `TimeoutError` if it waits for longer."""
        self._wait_ends_at = self._loop.time() + seconds
        if self._wait_ends_at < self._fires_at:
            self._set()

    def end_wait(self) -> None:
        """Set no limit until the next read."""
        self._wait_ends_at = math.inf

    def cancel(self) -> None:
        """Release the timer."""
        if self._handle is not None:
            self._handle.cancel()

    def _set(self) -> None:
        self.cancel()
        self._fires_at = min(self._wait_ends_at, self._loop.time() + self._period)
        self._handle = self._loop.call_at(self._fires_at, self._fire)

    def _fire(self) -> None:
        self._handle, self._fires_at = None, math.inf
        if self._wait_ends_at <= self._loop.time():
            self._content.set_exception(TimeoutError())
            if self.when_over is not None:
                self.when_over()
        elif self._wait_ends_at < math.inf:
            self._set()
