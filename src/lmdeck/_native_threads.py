"""Threads of the operating system, even if gevent has replaced Python's with greenlets.

Greenlets share their thread's state, including the running event loop: with a loop in one greenlet, code in all others
appears to be called by async code, and Django refuses the ORM there. An event loop that runs beside greenlets therefore needs
a native thread, and so do the functions that it runs in threads.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any


def is_patched() -> bool:
    """Whether gevent has replaced threads with greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_native_thread(run: Callable[[], object], name: str) -> None:
    """Start a daemon thread of the operating system that calls `run`."""
    if is_patched():
        original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name=name, daemon=True).start()


def new_lock() -> threading.Lock:
    """Return a lock between threads of the operating system."""
    lock: threading.Lock = original("_thread", "allocate_lock")() if is_patched() else threading.Lock()
    return lock


def original(module: str, name: str) -> Any:  # gevent has no types
    """Return the original of an object that gevent replaced; other objects are returned as is."""
    return sys.modules["gevent.monkey"].get_original(module, name)
