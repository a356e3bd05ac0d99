"""Event loops in native threads, also under gevent, and waiting for them from greenlets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from lmdeck._forking import on_fork
from lmdeck._native_threads import is_patched, original, start_native_thread

P = ParamSpec("P")
T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for a native thread, without gevent's patches."""
    if not is_patched():
        return asyncio.new_event_loop()
    loop = asyncio.SelectorEventLoop(original("selectors", "DefaultSelector")())
    loop.set_default_executor(NativeThread())
    return loop


def wait_for(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a coroutine on a loop in another thread, with this thread's context variables.

    Return its result.

    A greenlet is woken through its hub, as in gevent's thread pool, because gevent's locks work within one thread only.
    """
    if not is_patched():
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    import gevent  # imported late: optional, and installed if it has patched the process

    hub = gevent.get_hub()
    watcher = hub.loop.async_()
    waiter = gevent.hub.Waiter(hub)
    ended: list[asyncio.Task[T]] = []

    def finish(task: asyncio.Task[T]) -> None:
        ended.append(task)
        for each in waiting:  # empty if the greenlet was killed
            each.send()

    def begin() -> None:
        task: asyncio.Task[T] = loop.create_task(coroutine)
        task.add_done_callback(finish)

    waiting = [watcher]
    watcher.start(waiter.switch, None)
    try:
        loop.call_soon_threadsafe(begin)
        waiter.get()
    finally:
        waiting.clear()
        watcher.stop()
        watcher.close()
    return ended[0].result()


class NativeThread(ThreadPoolExecutor):
    """An executor with one native thread that lives as long as the process."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self.after_fork()
        on_fork(self, NativeThread.after_fork)

    def after_fork(self) -> None:
        """Drop the thread, since threads do not survive a fork; the next call starts another one."""
        self._calls: Any = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; calls run in the order of submission."""
        if self._calls is None:
            self._calls = original("_queue", "SimpleQueue")()
            start_native_thread(self._serve, "lmdeck-native")
        future: Future[T] = Future()
        self._calls.put((future, fn, args, kwargs))
        return future

    def _serve(self) -> None:
        while True:
            future, fn, args, kwargs = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = fn(*args, **kwargs)
            except BaseException as error:  # raised where the future is awaited
                future.set_exception(error)
            else:
                future.set_result(value)
