"""Threads of the operating system, also where gevent has replaced those of Python by greenlets.

Greenlets of one thread share what Python keeps for the thread, the running event loop among it: with a loop in one of them,
code in all others seems to be called by async code, and Django refuses the ORM there. A loop that is to run beside greenlets,
and what it hands on to threads, therefore needs real ones.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from lmdeck._forking import on_fork

__all__ = ["NativeThread", "is_patched", "new_event_loop", "start_native_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def is_patched() -> bool:
    """Whether gevent has replaced threads by greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_native_thread(run: Callable[[], object], name: str) -> None:
    """Start a daemon thread of the operating system."""
    if is_patched():
        _original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name=name, daemon=True).start()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop for a native thread: it waits for sockets as the system does, and hands work on to native threads."""
    if not is_patched():
        return asyncio.new_event_loop()
    loop = asyncio.SelectorEventLoop(_original("selectors", "DefaultSelector")())
    loop.set_default_executor(NativeThread())
    return loop


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
            self._calls = _original("_queue", "SimpleQueue")()
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


def _original(module: str, name: str) -> Any:  # noqa: ANN401  # gevent has no types
    """Return what gevent replaced, or what it left as it is."""
    return sys.modules["gevent.monkey"].get_original(module, name)
