"""Serving the gateway on uvicorn, in one process or several.
At SIGTERM, streams are brought to an orderly end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec
import uvicorn

from lmdeck._version import __version__
from lmdeck.errors import ConfigurationError, LMStudioError
from lmdeck.gateway.app import Gateway
from lmdeck.gateway.config import Config
from lmdeck.gateway.metrics import FOLDER, forget_process
from lmdeck.gateway.protocol import protocol_with
from lmdeck.server.serve import base_url, listen
from lmdeck.web.trust import is_loopback

__all__ = ["check_exposure", "serve", "serve_worker"]

END_SECONDS = 2.0  # how long ended requests may take to send their error
POLL_SECONDS = 0.05
RESTART_PAUSE = 0.5
LEAST_FILES_FREE = 64
_log = logging.getLogger("lmdeck.gateway")


class _Server(uvicorn.Server):
    """uvicorn that lets open requests finish within a limit at shutdown.
    After that, they end with an error.
    """

    def __init__(self, gateway: Gateway, config_path: str | None, on_ready: Callable[[], object] | None = None) -> None:
        settings = gateway.config.server
        super().__init__(
            uvicorn.Config(
                gateway,
                http=protocol_with(gateway.config.limits),
                loop="auto",
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                headers=[("Server", f"lmdeck-gateway/{__version__}")],
            )
        )
        self._gateway = gateway
        self._config_path = config_path
        self._on_ready = on_ready
        self._reloads: deque[asyncio.Task[None]] = deque(maxlen=10)
        self._shutdown_seconds = settings.shutdown_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        with suppress(NotImplementedError, ValueError, RuntimeError, AttributeError):  # not on Windows, nor in a thread
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: self._reloads.append(loop.create_task(self._reload())))
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    async def _reload(self) -> None:
        """Read the configuration file again; an invalid one changes nothing."""
        if self._config_path is None:
            _log.warning("SIGHUP: the gateway was started without a configuration file")
            return
        try:
            await self._gateway.reconfigure(Config.load(self._config_path))
        except LMStudioError as error:
            _log.error("the configuration was not changed: %s", error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, wait for open requests, and end those that take too long."""
        self._gateway.is_draining = True
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait(self._shutdown_seconds)
        if self.server_state.tasks:
            _log.warning("%d requests were ended by the shutdown", self._gateway.end_requests())
            await self._wait(END_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    async def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (tasks := self.server_state.tasks) and time.monotonic() < until and not self.force_exit:
            await asyncio.wait(tasks, timeout=POLL_SECONDS)


def check_exposure(config: Config) -> None:
    """Check that the gateway is not open to other machines by accident.

    Raises:
        ConfigurationError: It listens beyond loopback, and the configuration does not say whether clients need a key.
    """
    host = config.server.host
    if is_loopback(host.strip("[]")) or config.auth.required is not None:
        return
    raise ConfigurationError(
        f"The gateway would listen on {host}, which other machines can reach, without keys.",
        hint="Set `required = true` in [auth] and create keys, or `required = false` to serve everybody.",
    )


def serve(
    config: Config, config_path: str | None, on_ready: Callable[[str], object] | None = None, workers: int | None = None
) -> int:
    """Serve until SIGTERM or Ctrl-C, in as many processes as configured; return the exit code.

    Raises:
        ConfigurationError: The address is not free, or open to other machines without keys.
    """
    check_exposure(config)
    listener = listen(config.server.host, config.server.port)
    url = base_url(listener)
    count = workers or config.server.workers
    ready = None if on_ready is None else lambda: on_ready(url)
    if count > 1:
        return _Supervisor(config, config_path, listener, count, ready).run()
    return _run(config, config_path, listener, ready)


def serve_worker(config: Config, config_path: str | None, descriptor: int, locks: Path) -> int:
    """Serve as one of several processes, on a socket that the parent process has opened."""
    listener = socket.socket(fileno=descriptor)
    return _run(config, config_path, listener, None, locks)


def _run(
    config: Config,
    config_path: str | None,
    listener: socket.socket,
    on_ready: Callable[[], object] | None,
    locks: Path | None = None,
) -> int:
    _allow_connections(config.limits.connections)
    server = _Server(Gateway(config, locks=locks), config_path, on_ready)
    with suppress(KeyboardInterrupt):  # uvicorn has shut down cleanly and raises the signal again
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _allow_connections(count: int) -> None:
    """Raise the limit of open files as far as allowed.
    Each request needs a connection of the client and one to the host.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + LEAST_FILES_FREE
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _Supervisor:
    """The parent of several gateway processes: it restarts dead ones and forwards signals."""

    def __init__(
        self,
        config: Config,
        config_path: str | None,
        listener: socket.socket,
        count: int,
        on_ready: Callable[[], object] | None,
    ) -> None:
        self._config = config
        self._path = config_path
        self._listener = listener
        self._count = count
        self._on_ready = on_ready
        self._workers: list[subprocess.Popen[bytes]] = []
        self._is_ending = False
        self._locks = tempfile.TemporaryDirectory(prefix="lmdeck-gateway-")
        self._metrics = tempfile.TemporaryDirectory(prefix="lmdeck-metrics-")

    def run(self) -> int:
        """Run until SIGTERM or Ctrl-C; return the exit code."""
        before: Mapping[int, object] = {
            number: signal.signal(number, self._note_signal)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        os.set_inheritable(self._listener.fileno(), True)
        try:
            self._workers = [self._start() for _ in range(self._count)]
            if self._on_ready is not None:
                self._on_ready()
            while not self._is_ending:
                time.sleep(POLL_SECONDS)
                self._replace_dead()
            return self._end()
        finally:
            self._locks.cleanup()
            self._metrics.cleanup()
            for number, handler in before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal` has returned

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            for worker in self._workers:
                worker.send_signal(number)
        else:
            self._is_ending = True

    def _start(self) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        settings = msgspec.json.encode(self._config)
        command = [sys.executable, "-m", "lmdeck.gateway.worker", str(descriptor), self._locks.name, self._path or ""]
        worker = subprocess.Popen(
            command, pass_fds=[descriptor], stdin=subprocess.PIPE, env={**os.environ, FOLDER: self._metrics.name}
        )
        assert worker.stdin is not None
        with suppress(BrokenPipeError):  # it died at once, and will be replaced
            worker.stdin.write(settings + b"\n")
            worker.stdin.flush()
        return worker  # the pipe stays open: its end tells the worker that this process has died

    def _replace_dead(self) -> None:
        for number, worker in enumerate(self._workers):
            if worker.poll() is not None and not self._is_ending:
                _log.error("worker %d ended with code %s, starting another", worker.pid, worker.returncode)
                forget_process(self._metrics.name, worker.pid)
                time.sleep(RESTART_PAUSE)
                _close_pipe(worker)
                self._workers[number] = self._start()

    def _end(self) -> int:
        self._listener.close()
        for worker in self._workers:
            worker.terminate()
        limit = time.monotonic() + self._config.server.shutdown_seconds + 2 * END_SECONDS
        codes = []
        for worker in self._workers:
            try:
                codes.append(worker.wait(max(0.1, limit - time.monotonic())))
            except subprocess.TimeoutExpired:
                worker.kill()
                codes.append(worker.wait())
            _close_pipe(worker)
        return 0 if all(code in (0, -signal.SIGTERM) for code in codes) else 1


def _close_pipe(worker: subprocess.Popen[bytes]) -> None:
    if worker.stdin is not None:
        with suppress(BrokenPipeError):
            worker.stdin.close()
