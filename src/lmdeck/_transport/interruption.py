"""How one thread ends what another one waits for: a connection, the head of an answer, its turn in a queue."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

__all__ = ["Interruption", "interruptible", "watch_socket"]


class Interruption:
    """Whoever waits names what would wake it (`watch`), and another thread does (`set`); once set, it stays so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: Callable[[], object] | None = None
        self.is_set = False

    def watch(self, wake: Callable[[], object] | None) -> None:
        """Name what ends the wait that comes now, instead of the one before; where it is too late, it ends at once."""
        with self._lock:
            self._wake = wake
            is_late = self.is_set
        if is_late and wake is not None:
            wake()

    def set(self) -> None:
        """End the wait."""
        with self._lock:
            self.is_set = True
            wake = self._wake
        if wake is not None:
            wake()


_current: ContextVar[Interruption | None] = ContextVar("interruption", default=None)


@contextlib.contextmanager
def interruptible(interruption: Interruption | None) -> Iterator[None]:
    """Let the sockets that are opened or used inside, in this thread, be ended by the interruption."""
    token = _current.set(interruption)
    try:
        yield
    finally:
        _current.reset(token)
        if interruption is not None:
            interruption.watch(None)


def watch_socket(sock: socket.socket) -> None:
    """Let the interruption of this thread, if there is one, shut the socket down."""
    interruption = _current.get()
    if interruption is not None:
        interruption.watch(lambda: _shut_down(sock))


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be gone already
        sock.shutdown(socket.SHUT_RDWR)
