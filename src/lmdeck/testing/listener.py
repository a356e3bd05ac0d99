"""The fake's port, closed for a while and opened again: what a server looks like that is not running."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lmdeck.server.serve import BackgroundServer

if TYPE_CHECKING:
    from collections.abc import Callable


class WatchedServer(BackgroundServer):
    """A server that tells what is connected to it."""

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)


class Door:
    """The listening port, closed for a while and opened again."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def shut(
        self, server: BackgroundServer, seconds: float = threading.TIMEOUT_MAX, then: Callable[[], None] | None = None
    ) -> None:
        """Close the port for so many seconds; where it is closed, for so many from now on."""

        def reopen() -> None:
            self.open(server)
            if then is not None:
                then()

        with self._lock:
            if self._timer is None:
                server.stop_listening()
            else:
                self._timer.cancel()
            self._timer = threading.Timer(seconds, reopen)
            self._timer.daemon = True
            self._timer.start()

    def open(self, server: BackgroundServer) -> None:
        """Open the port, if it is closed."""
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
                server.listen_again()
