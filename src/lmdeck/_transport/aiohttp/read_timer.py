"""The time limit of the waits for one answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")


class ReadTimer:
    """The time limit of the waits for one answer, with one timer that is set only when it fires.

    `when_over` is called when a limit is exceeded, even if the wait has ended meanwhile.
    """

    __slots__ = ("_fires_at", "_handle", "_loop", "_period", "_wait_ends_at", "when_over")

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float) -> None:
        """`period` is the usual limit, for which the timer never has to be set earlier."""
        self._loop = loop
        self._period = period
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        self._wait_ends_at = math.inf
        self.when_over: Callable[[], object] = _ignore

    async def limit(self, seconds: float, result: Awaitable[T]) -> T:
        """Wait for a result within a limit, as `asyncio.timeout` does with a separate timer.

        Raises:
            TimeoutError: The limit is exceeded.
        """
        task, is_over = cast("asyncio.Task[object]", asyncio.current_task(self._loop)), False
        cancellations = task.cancelling()

        def cancel() -> None:
            nonlocal is_over
            is_over = True
            task.cancel()

        self.when_over = cancel
        self.begin_wait(seconds)
        try:
            return await result
        except BaseException as error:
            self.end()
            if is_over and isinstance(error, asyncio.CancelledError) and task.cancelling() <= cancellations + 1:
                raise TimeoutError from error
            raise
        finally:
            self.when_over = _ignore
            if is_over:
                task.uncancel()

    def begin_wait(self, seconds: float) -> None:
        """Limit the next wait."""
        self._wait_ends_at = self._loop.time() + seconds
        if self._wait_ends_at < self._fires_at:
            self._set()

    def is_over(self) -> bool:
        """Whether the limit of the last wait is exceeded."""
        return self._wait_ends_at <= self._loop.time()

    def end(self) -> None:
        """Release the timer and `when_over`, whose owner usually refers to this object."""
        self.when_over = _ignore
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
            self.when_over()
        else:
            self._set()


def _ignore() -> None:
    """Do nothing: nothing is limited."""
