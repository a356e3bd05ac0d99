"""Async code under WSGI: one event loop for the process, in a background thread.

An answer that is read on an event loop can be stopped at any time, even while the server sends nothing; a blocking read cannot.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

from lmdeck._forking import notice_fork, on_fork
from lmdeck._native_threads import new_lock, start_native_thread
from lmdeck.web.native_loop import new_event_loop, wait_for

T = TypeVar("T")
EXIT_SECONDS = 2.0
"""How long the end of the process waits for what is open on the loop."""


class _BackgroundLoop:
    """The event loop of this process; a forked process starts another one."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Drop the loop, since threads do not survive a fork; the next use starts another one."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop; start it at first use."""
        notice_fork()
        with self._lock:
            if self._loop is None:
                self._loop = new_event_loop()
                start_native_thread(self._loop.run_forever, "lmdeck-loop")
            return self._loop

    def close(self) -> None:
        """End what runs on the loop, and close its connections, at the end of the process."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        running = new_lock()
        running.acquire()

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await loop.shutdown_asyncgens()
            running.release()

        loop.call_soon_threadsafe(lambda: loop.create_task(end()))
        running.acquire(timeout=EXIT_SECONDS)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, with this thread's context variables, and return its result."""
        return wait_for(coroutine, self.loop())


_background = _BackgroundLoop()
on_fork(_background, _BackgroundLoop.after_fork)
atexit.register(_background.close)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop of this process and return its result."""
    return _background.wait(coroutine)


class _BlockingIterator(Iterator[bytes]):
    """An async generator as a blocking iterator; nothing is read ahead."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._task: asyncio.Task[Any] | None = None

    def __next__(self) -> bytes:
        piece = _background.wait(self._next())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Close the generator, even while it waits."""
        _background.wait(self._close())

    async def _next(self) -> bytes | None:
        self._task = asyncio.current_task()
        return await anext(self._pieces, None)

    async def _close(self) -> None:
        if self._task is not None and not self._task.done():  # the waiting thread was interrupted
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._pieces.aclose()


def iterate(pieces: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
    """Iterate over an async generator from a thread; an early exit closes it immediately."""
    blocking = _BlockingIterator(pieces)
    try:
        yield from blocking
    finally:
        blocking.close()
