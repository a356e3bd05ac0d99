"""Async code under WSGI, which has no event loop: one loop in a thread of its own, for the whole process.

An answer that is read on a loop can be stopped at any moment, also while the server is silent; a blocking read cannot.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

from lmdeck._forking import on_fork
from lmdeck._native_threads import start_native_thread
from lmdeck.web.native_loop import new_event_loop, wait_for

__all__ = ["iterate"]

T = TypeVar("T")


class _Background:
    """The loop of this process; a forked process starts its own."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Let the next use start another loop: threads are not forked."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Give the loop, started where it is not yet."""
        with self._lock:
            if self._loop is None:
                self._loop = new_event_loop()
                start_native_thread(self._loop.run_forever, "lmdeck-loop")
            return self._loop

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, in this thread's context, and wait for it."""
        return wait_for(coroutine, self.loop())


_background = _Background()
on_fork(_background, _Background.after_fork)


class _Pull(Iterator[bytes]):
    """An async generator's pieces, one after the other, for a thread; nothing is read ahead of who pulls."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._task: asyncio.Task[Any] | None = None

    def __next__(self) -> bytes:
        piece = _background.wait(self._next())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the generator, whatever it waits for."""
        _background.wait(self._close())

    async def _next(self) -> bytes | None:
        self._task = asyncio.current_task()
        return await anext(self._pieces, None)

    async def _close(self) -> None:
        if self._task is not None and not self._task.done():  # the thread was interrupted while it waited
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._pieces.aclose()


def iterate(pieces: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
    """Give the pieces of an async generator to a thread; leaving early ends it at once."""
    pull = _Pull(pieces)
    try:
        yield from pull
    finally:
        pull.close()
