"""What a forked process must not share with its parent: connections, locks and queues.

`os.fork()` copies a client with its pool. Two processes that write to one socket swap their answers, and a lock that another
thread held stays locked for ever. So whoever holds one of these registers a method here, which is called in the child.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

_methods: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()


def on_fork(owner: object, method: Callable[[Any], None]) -> None:
    """Call `method` with its owner in each child of this process, in which no other thread runs, while the owner lives."""
    _methods[owner] = method


def disown(descriptor: int) -> None:
    """Replace a socket by the null device in this process only, so that the parent's connection ends when the parent says.

    The number stays taken: whoever still holds it closes the null device, and not what was opened after it.
    """
    if descriptor < 0:
        return
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, descriptor)
        finally:
            os.close(null)


def _after_fork() -> None:
    for owner, method in list(_methods.items()):
        method(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
