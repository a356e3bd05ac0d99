"""The listening port of the fake; a closed one simulates a server that is not running."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lmdeck.server.serve import BackgroundServer

if TYPE_CHECKING:
    from collections.abc import Callable


class WatchedServer(BackgroundServer):
    """A server that counts its connections."""

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._server.server_state.connections)


class ListeningPort:
    """A listening port that can be closed and reopened."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def close(
        self, server: BackgroundServer, seconds: float = threading.TIMEOUT_MAX, then: Callable[[], None] | None = None
    ) -> None:
        """Close the port for the given number of seconds from now, then call `then`."""

        def end() -> None:
            self.reopen(server)
            if then is not None:
                then()

        with self._lock:
            if self._timer is None:
                server.stop_listening()
            else:
                self._timer.cancel()
            self._timer = threading.Timer(seconds, end)
            self._timer.daemon = True
            self._timer.start()

    def reopen(self, server: BackgroundServer) -> None:
        """Reopen the port if it is closed."""
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
                server.listen_again()
