"""Running an application on uvicorn: in the foreground or in a thread.

The command line uses the first, tests and demos the second.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import uvicorn

from lmdeck._version import __version__
from lmdeck.errors import LMStudioError
from lmdeck.server.joined_writes import JoinedWrites
from lmdeck.server.sockets import base_url, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType
    from typing import Self

    from starlette.types import ASGIApp

OWN_HEADERS = (("Server", f"lmdeck/{__version__}"),)
TICK_SECONDS = 0.1
SIGNAL_CHECK_SECONDS = 0.5  # on Windows, Ctrl-C does not interrupt a wait without a time limit
IDLE_SECONDS = 60
"""The time after which an idle connection is closed; long, since a client on a busy machine may be slow."""

TURNS_TO_ACCEPT = 3
"""The turns of the event loop from accepting a connection to the start of its protocol."""

SHUTDOWN_SECONDS = 5
"""How long open requests may take at shutdown to notice that their connection is closed."""


def _protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's protocol on httptools, with limits; on h11 if httptools is not installed."""
    try:
        from lmdeck.server.protocol import RequestLimits, protocol_with
    except ModuleNotFoundError as error:
        if error.name != "httptools":
            raise
        from lmdeck.server.h11_protocol import JoinedH11Protocol

        return JoinedH11Protocol
    return protocol_with(RequestLimits(), joins_writes=True)


class Server(uvicorn.Server):
    """uvicorn with the settings of this package's servers.

    `on_ready` is called once connections are accepted. With `lifespan`, the application gets ASGI lifespan events. `headers`
    are sent with every response. `idle_seconds` is the time after which an idle connection is closed.
    """

    def __init__(
        self,
        app: ASGIApp,
        protocol: type[asyncio.Protocol],
        on_ready: Callable[[], object] | None = None,
        *,
        lifespan: bool = False,
        headers: Sequence[tuple[str, str]] = OWN_HEADERS,
        idle_seconds: float = IDLE_SECONDS,
        loop: Literal["asyncio", "auto"] = "asyncio",
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                loop=loop,
                access_log=False,
                log_level="warning",
                log_config=None,
                lifespan="on" if lifespan else "off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                headers=list(headers),
                timeout_keep_alive=idle_seconds,  # type: ignore[arg-type]  # it may be a fraction
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    async def stop_listening(self) -> None:
        """Close the port; open connections continue, and those that were just accepted begin.

        asyncio leaves a connection open for ever, without a protocol, if it was accepted right before `Server.close` (CPython
        issue 109564).
        """
        for server in self.servers:
            for listener in server.sockets:
                with suppress(NotImplementedError):  # the event loop of Windows has no readers
                    self.loop.remove_reader(listener.fileno())
        for _ in range(TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()


class _ImmediateServer(Server):
    """A server with an immediate shutdown.

    Open requests lose their connection, which stops their generation.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_requested = asyncio.Event()
        await super().startup(sockets)

    async def listen_again(self, listener: socket.socket) -> None:
        """Accept connections on another socket."""
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        make_protocol = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers.append(await self.loop.create_server(make_protocol, sock=listener))

    async def main_loop(self) -> None:
        """Tick as uvicorn does, but exit as soon as `end` is called instead of at the next tick."""
        ticks = 0
        while not (self.should_exit or await self.on_tick(ticks)):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end_requested.wait(), TICK_SECONDS)
            ticks += 1

    def end(self) -> None:
        """Request the shutdown; may be called from any thread, and more than once."""
        self.should_exit = True
        if self.started and not self.loop.is_closed():
            with suppress(RuntimeError):  # the loop has closed since
                self.loop.call_soon_threadsafe(self._end_requested.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and all connections, and wait for the open requests to end."""
        await self.stop_listening()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.close()
        for listener in sockets or ():
            listener.close()
        if self.server_state.tasks:
            _, late = await asyncio.wait(self.server_state.tasks, timeout=SHUTDOWN_SECONDS)
            for task in late:
                task.cancel()
        await self.lifespan.shutdown()


def run(app: ASGIApp, listener: socket.socket, on_ready: Callable[[str], object] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM.

    `on_ready` is called with the base URL once connections are accepted.
    """
    url = base_url(listener)
    server = _ImmediateServer(app, _protocol(), None if on_ready is None else lambda: on_ready(url))
    with suppress(KeyboardInterrupt):  # uvicorn has shut down cleanly and raises the signal again
        server.run(sockets=[listener])


def wait_until_stopped() -> None:
    """Wait for Ctrl-C or SIGTERM, in the main thread."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stopped.wait(SIGNAL_CHECK_SECONDS):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class BackgroundServer:
    """An application served from a background thread, ready when the constructor returns.

    `on_close` is called once, after the last connection has ended. With `lifespan`, the application gets ASGI lifespan events.
    `headers` are sent with every response.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        on_close: Callable[[], object] | None = None,
        *,
        lifespan: bool = False,
        headers: Sequence[tuple[str, str]] = OWN_HEADERS,
    ) -> None:
        self.base_url = base_url(listener)
        self._host, self._port = listener.getsockname()[:2]
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_close = on_close
        self._ready = threading.Event()
        self._server = _ImmediateServer(app, _protocol(), self._ready.set, lifespan=lifespan, headers=headers)
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="lmdeck-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if not self._server.started:
            self.close()
            raise LMStudioError(f"The server on {self.base_url} did not start.", hint="See its log for the reason.")

    def _serve(self, listener: socket.socket) -> None:
        try:
            self._server.run(sockets=[listener])
        finally:
            self._ready.set()

    def transport(self, client: tuple[str, int] | None) -> JoinedWrites | None:
        """Return the connection of a client address, for access below HTTP; None if there is none."""
        for connection in self._server.server_state.connections:
            transport = getattr(connection, "transport", None)
            if isinstance(transport, JoinedWrites) and getattr(connection, "client", None) == client:
                return transport
        return None

    def stop_listening(self) -> None:
        """Close the port until `listen_again`; may be called from any thread."""
        self._run_in_loop(self._server.stop_listening())

    def listen_again(self) -> None:
        """Reopen the port that `stop_listening` closed."""
        if not self._server.should_exit:
            self._run_in_loop(self._server.listen_again(listen(self._host, self._port)))

    def _run_in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        if threading.current_thread() is self._thread:
            self._tasks.add(task := self._server.loop.create_task(work))
            task.add_done_callback(self._tasks.discard)
        else:
            asyncio.run_coroutine_threadsafe(work, self._server.loop).result()

    def close(self) -> None:
        """End every connection, stop the thread and release the port. A second call does nothing."""
        self._server.end()
        self._thread.join()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
