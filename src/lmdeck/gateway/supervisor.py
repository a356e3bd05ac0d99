"""The parent of several gateway processes.

It has the hub, starts processes again when they die, and passes a shutdown on to them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import msgspec

from lmdeck.gateway.config import Config

if TYPE_CHECKING:
    from lmdeck.gateway.hub import Hub

__all__ = ["Supervisor"]

END_SECONDS = 4.0  # beyond `server.shutdown_seconds`, after which a process is killed
RESTART_PAUSE = 0.5
_log = logging.getLogger("lmdeck.gateway")


class Supervisor:
    """Runs `count` serving processes on one socket.

    `on_ready` is called when one of them serves.
    """

    def __init__(
        self,
        config: Config,
        config_path: str | None,
        listener: socket.socket,
        count: int,
        on_ready: Callable[[], object] | None,
    ) -> None:
        self._config = config
        self._hub: Hub
        self._path = config_path
        self._listener = listener
        self._count = count
        self._on_ready = on_ready
        self._processes: set[Process] = set()
        self._reloads: set[asyncio.Task[None]] = set()
        self._is_ending = asyncio.Event()
        self._is_serving = asyncio.Event()

    def run(self) -> int:
        """Run until SIGTERM or Ctrl-C; return the exit code."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._is_ending.set)
        os.set_inheritable(self._listener.fileno(), True)
        launched = await asyncio.gather(*(self._launch(self._config) for _ in range(self._count)))
        from lmdeck.gateway.hub import Hub

        self._hub = Hub(self._config)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            await asyncio.gather(self._load_history(), self._hub.start())
            keeping = [asyncio.create_task(self._keep(await self._connected(*each))) for each in launched]
            announcing = asyncio.create_task(self._announce())
            await self._is_ending.wait()
            announcing.cancel()
            self._end()
            codes = await asyncio.gather(*keeping)
        finally:
            await self._hub.aclose()
        return 0 if all(code in (0, -signal.SIGTERM) for code in codes) else 1

    async def _announce(self) -> None:
        await self._is_serving.wait()
        if self._on_ready is not None:
            self._on_ready()

    async def _load_history(self) -> None:
        config = self._config
        if config.auth.required or config.store.url:
            from lmdeck._usage_store import open_store

            with closing(await asyncio.to_thread(open_store, config.store_url)) as store:
                await self._hub.load_history(store)

    def _reload(self) -> None:
        task = asyncio.ensure_future(self._hub.reload(self._path))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _launch(self, config: Config) -> tuple[Process, socket.socket]:
        """Start a worker; return its process, and the hub's end of their connection.

        The worker's calls wait until `_connected` answers them.
        """
        here, there = socket.socketpair()
        with there:
            descriptors = (self._listener.fileno(), there.fileno())
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lmdeck.gateway.worker_main", *map(str, descriptors),
                pass_fds=descriptors, stdin=asyncio.subprocess.PIPE,
            )  # fmt: skip
        self._processes.add(process)
        assert process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # it died at once, and will be replaced
            process.stdin.write(msgspec.json.encode(config) + b"\n")
            await process.stdin.drain()
        process.stdin.close()
        return process, here

    async def _connected(self, process: Process, end: socket.socket) -> Process:
        """Answer the calls of a process to the hub, and return the process."""
        from lmdeck.gateway.remote import WorkerProcess

        await WorkerProcess(self._hub, self._is_serving.set).connect(end)
        return process

    async def _keep(self, process: Process) -> int:
        """Replace the process whenever it ends; return the exit code of the last one."""
        while True:
            code = await process.wait()
            self._processes.discard(process)
            if self._is_ending.is_set():
                return code
            _log.error("worker %d ended with code %s, starting another", process.pid, code)
            await asyncio.sleep(RESTART_PAUSE)
            process = await self._connected(*await self._launch(self._hub.config))
            if self._is_ending.is_set():
                process.terminate()

    def _end(self) -> None:
        self._hub.is_draining = True
        self._listener.close()
        for process in self._processes:
            process.terminate()
        loop = asyncio.get_running_loop()
        loop.call_later(self._hub.config.server.shutdown_seconds + END_SECONDS, self._kill)

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
