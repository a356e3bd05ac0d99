"""Serving the gateway on uvicorn, in one process or in one of several.

At SIGTERM, open requests may finish within a limit; then each ends with an error in its format.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from lmdeck._version import __version__
from lmdeck.gateway.app import Gateway
from lmdeck.gateway.config import Config
from lmdeck.gateway.hub import Hub
from lmdeck.gateway.remote import RemoteHub
from lmdeck.server.protocol import RequestLimits, protocol_with
from lmdeck.server.serve import Server

__all__ = ["serve", "serve_worker"]

END_SECONDS = 2.0  # how long ended requests may take to send their error
POLL_SECONDS = 0.05
_log = logging.getLogger("lmdeck.gateway")


class _GatewayServer(Server):
    """A server with a shutdown that lets open requests end within a limit.

    The others then end with an error.
    """

    def __init__(
        self,
        gateway: Gateway,
        on_ready: Callable[[], object] | None = None,
        on_hangup: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        limits = gateway.config.limits
        protocol = protocol_with(
            RequestLimits(limits.header_bytes, limits.header_seconds, limits.connections, section="limits"),
            joins_writes=False,
        )
        super().__init__(
            gateway,
            protocol,
            on_ready,
            lifespan=True,
            headers=[("Server", f"lmdeck-gateway/{__version__}")],
            idle_seconds=limits.idle_seconds,
            loop="auto",
        )
        self._gateway = gateway
        self._on_hangup = on_hangup
        self._reloads: deque[asyncio.Task[None]] = deque(maxlen=10)
        self._shutdown_seconds = gateway.config.server.shutdown_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        with suppress(NotImplementedError, ValueError, RuntimeError, AttributeError):  # not on Windows, nor in a thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        await super().startup(sockets)

    def _hang_up(self) -> None:
        if self._on_hangup is not None:
            self._reloads.append(asyncio.ensure_future(self._on_hangup()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, wait for open requests, and end those that take too long."""
        self._gateway.drain()
        await self.stop_listening()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait(self._shutdown_seconds)
        if self.server_state.tasks:
            _log.warning("the shutdown ended %d open requests", self._gateway.end_requests())
            await self._wait(END_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    async def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (tasks := self.server_state.tasks) and time.monotonic() < until and not self.force_exit:
            await asyncio.wait(tasks, timeout=POLL_SECONDS)


def serve(config: Config, config_path: str | None, listener: socket.socket, on_ready: Callable[[], object]) -> int:
    """Serve on a socket until SIGTERM or Ctrl-C, in this process; return the exit code."""
    hub = Hub(config)
    return _run(_GatewayServer(Gateway(config, hub=hub), on_ready, partial(hub.reload, config_path)), listener)


def serve_worker(config: Config, descriptor: int, link: int) -> int:
    """Serve as one of several processes, on a socket that the parent has opened.

    `link` leads to the parent's hub.
    """
    hub = RemoteHub(config, socket.socket(fileno=link), on_lost=lambda: os.kill(os.getpid(), signal.SIGTERM))
    return _run(_GatewayServer(Gateway(config, hub=hub), hub.note_ready), socket.socket(fileno=descriptor))


def _run(server: _GatewayServer, listener: socket.socket) -> int:
    with suppress(KeyboardInterrupt):  # uvicorn has shut down cleanly and raises the signal again
        server.run(sockets=[listener])
    return 0 if server.started else 1
