"""An event loop for a thread of the operating system, which greenlets of gevent may wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from lmdeck._forking import on_fork
from lmdeck._native_threads import is_patched, original, start_native_thread

__all__ = ["NativeThread", "new_event_loop", "wait_for"]

P = ParamSpec("P")
T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop for a native thread: it waits for sockets as the system does, and hands work on to native threads."""
    if not is_patched():
        return asyncio.new_event_loop()
    loop = asyncio.SelectorEventLoop(original("selectors", "DefaultSelector")())
    loop.set_default_executor(NativeThread())
    return loop


def wait_for(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a coroutine on a loop in another thread, in this thread's context, and wait for it.

    A greenlet is woken by its hub, as after work in gevent's own thread pool: locks of gevent are for greenlets of one thread.
    """
    if not is_patched():
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    import gevent  # type: ignore[import-untyped]  # late: it is there, and of no use elsewhere

    hub = gevent.get_hub()
    watcher = hub.loop.async_()
    waiter = gevent.hub.Waiter(hub)
    ended: list[asyncio.Task[T]] = []

    def finish(task: asyncio.Task[T]) -> None:
        ended.append(task)
        for each in waiting:  # nobody, where the greenlet was ended
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
    """An executor whose one thread is native, and as long-lived as the process."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self.after_fork()
        on_fork(self, NativeThread.after_fork)

    def after_fork(self) -> None:
        """Let the next call start another thread: threads are not forked."""
        self._calls: Any = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function called after those that were submitted before."""
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
            except BaseException as error:  # noqa: BLE001  # it belongs to who waits for the future
                future.set_exception(error)
            else:
                future.set_result(value)
