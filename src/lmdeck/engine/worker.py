"""One thread that makes every call into the engine, in order.

Not a `ThreadPoolExecutor`, because the interpreter waits for its threads at exit: a long prompt that is being processed cannot
be interrupted, and Ctrl-C should not have to wait for it.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Worker:
    """A daemon thread that runs queued calls in order."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call; its future can be cancelled until the call begins."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self, seconds: float) -> bool:
        """End the thread after the queued calls, waiting at most `seconds`; return whether it has ended."""
        self._calls.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # whoever waits gets it, a panic of the engine too
                    future.set_exception(error)
            del item, future, call  # while waiting for the next, nothing of the last is kept alive
