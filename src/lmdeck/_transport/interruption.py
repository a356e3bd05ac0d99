"""Interrupt another thread that waits for a connection, a response head or a queue slot."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar


class Interruption:
    """A permanent interruption of a waiting thread.

    The thread registers a wake-up with `watch`; another thread calls `set`.
    """

    __slots__ = ("_lock", "_wake", "is_set")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: Callable[[], object] | None = None
        self.is_set = False

    def watch(self, wake: Callable[[], object] | None) -> None:
        """Register the function that ends the next wait, in place of the last one.

        It is called at once if the interruption is set.
        """
        with self._lock:
            self._wake = wake
            was_set = self.is_set
        if was_set and wake is not None:
            wake()

    def set(self) -> None:
        """End the wait."""
        with self._lock:
            self.is_set = True
            wake = self._wake
        if wake is not None:
            wake()


current_interruption: ContextVar[Interruption | None] = ContextVar("interruption", default=None)
"""The interruption that this thread watches, or None."""


@contextlib.contextmanager
def interruptible(interruption: Interruption | None) -> Iterator[None]:
    """On an interruption, shut down the sockets that this thread uses or opens in the block."""
    token = current_interruption.set(interruption)
    try:
        yield
    finally:
        current_interruption.reset(token)
        if interruption is not None:
            interruption.watch(None)


def watch_socket(interruption: Interruption, sock: socket.socket) -> None:
    """Register a socket with an interruption, to be shut down by it."""
    interruption.watch(lambda: _shut_down(sock))


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the socket may already be closed
        sock.shutdown(socket.SHUT_RDWR)
