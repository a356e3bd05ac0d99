"""Callbacks after `os.fork()`.

A child process must not share connections, locks and queues with its parent. `os.fork()` copies a client with its pool. Two
processes that write to one socket receive each other's answers, and a lock held by another thread is never released. So every
owner of such a resource registers a method here, called in the child.

A server written in C, such as uWSGI, forks without Python's hooks. Therefore each request compares `process` with its own
process, and calls `notice_fork()` if they differ.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

process = os.getpid()  # whose connections, queues and locks the registered owners have
_noticing = threading.Lock()
_methods: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()


def on_fork(owner: object, method: Callable[[Any], None]) -> None:
    """Call `method` with its owner in each forked child, as long as the owner lives.

    It is called before other threads exist there.
    """
    _methods[owner] = method


def disown(descriptor: int) -> None:
    """Replace a socket with the null device in this process; the parent keeps its connection.

    The descriptor stays in use, so a later close affects the null device and not a file opened in the meantime.
    """
    if descriptor < 0:
        return
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, descriptor)
        finally:
            os.close(null)


def notice_fork() -> None:
    """Call the registered methods if this process was forked without Python's hooks."""
    with _noticing:
        if process != os.getpid():
            _after_fork()


def _after_fork() -> None:
    global process
    for owner, method in list(_methods.items()):
        method(owner)
    process = os.getpid()  # at the end: until then, other threads must wait in `notice_fork`


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
