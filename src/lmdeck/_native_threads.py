"""Threads of the operating system, also where gevent has replaced those of Python by greenlets.

Greenlets of one thread share what Python keeps for the thread, the running event loop among it: with a loop in one of them,
code in all others seems to be called by async code, and Django refuses the ORM there. A loop that is to run beside greenlets,
and what it hands on to threads, therefore needs real ones.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any


def is_patched() -> bool:
    """Whether gevent has replaced threads by greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_native_thread(run: Callable[[], object], name: str) -> None:
    """Start a daemon thread of the operating system."""
    if is_patched():
        original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name=name, daemon=True).start()


def original(module: str, name: str) -> Any:  # noqa: ANN401  # gevent has no types
    """Return what gevent replaced, or what it left as it is."""
    return sys.modules["gevent.monkey"].get_original(module, name)
