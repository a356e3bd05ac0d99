"""The pool of hosts: watches them, and replaces them when the configuration changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from lmdeck._transport.aiohttp import AiohttpTransport
from lmdeck.config import Settings
from lmdeck.gateway.config import Config, HostConfig
from lmdeck.gateway.dispatcher import Dispatcher
from lmdeck.gateway.hosts import Host
from lmdeck.gateway.load_guard import LoadGuard
from lmdeck.gateway.scheduler import Scheduler
from lmdeck.gateway.sticky import StickyHosts

__all__ = ["Pool"]

FIRST_POLL_SECONDS = 3.0
TICK_SECONDS = 0.25


class Pool:
    """The hosts of a configuration, their scheduler and dispatcher."""

    def __init__(self, config: Config, clock: Callable[[], float], locks: Path | None = None) -> None:
        self.config = config
        self._clock = clock
        self._transport = AiohttpTransport(Settings())
        self.hosts = [self._host(each, config) for each in config.hosts]
        self.scheduler = Scheduler(config, self.hosts, self._start_load, self._look, clock)
        self.dispatcher = Dispatcher(config, self.scheduler, StickyHosts(config.sticky, clock), LoadGuard(locks))
        self._polls: dict[Host, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Poll every host once, briefly for those that do not answer; then poll regularly."""
        self._watch_hosts(set(self.hosts))
        self._run(self._tick())
        await _wait_for_polls(self.hosts)

    async def aclose(self) -> None:
        """Stop polling and close all connections."""
        tasks = [*self._polls.values(), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._polls.clear()
        await self._transport.aclose()

    async def variants(self, model: str) -> set[str] | None:
        """Return the variants of a requested model on the usable hosts; None if they are not known."""
        usable = [host for host in self.hosts if host.is_usable]
        if not (usable and model):
            return None
        models = self.config.models_of(model)
        return {host.variant_of(each) for host in usable for each in models if host.has(each)}

    async def reconfigure(self, config: Config) -> None:
        """Use other hosts: those that remain keep their state, removed ones finish their requests.

        New hosts are polled first, so that there is no moment without a usable host.
        """
        known = {(host.config.url, host.config.token_env): host for host in self.hosts}
        hosts = []
        for each in config.hosts:
            host = known.get((each.url, each.token_env))
            if host is None:
                host = self._host(each, config)
            hosts.append(host)
        self._watch_hosts({*hosts, *self.hosts})
        await _wait_for_polls(hosts)
        self.config = self.scheduler.config = self.dispatcher.config = config
        for host, each in zip(hosts, config.hosts, strict=True):
            host.config = each
        self.hosts[:] = hosts
        self._watch_hosts(set(hosts))
        self.scheduler.wake()

    def _host(self, config: HostConfig, gateway: Config) -> Host:
        return Host(config, gateway, self._transport, self._clock)

    def _watch_hosts(self, hosts: set[Host]) -> None:
        """Poll exactly these hosts."""
        for host in [host for host in self._polls if host not in hosts]:
            self._polls.pop(host).cancel()
        for host in hosts:
            if host not in self._polls:
                self._polls[host] = asyncio.create_task(self._poll(host))

    async def _poll(self, host: Host) -> None:
        while True:
            is_up = await host.poll()
            self.scheduler.wake()
            routing = self.config.routing
            await asyncio.sleep(routing.poll if is_up and host.breaker.state == "closed" else routing.probe)

    async def _tick(self) -> None:
        """Serve the queues regularly: requests time out, and paused loads may be retried."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.scheduler.wake()

    def _look(self, host: Host) -> None:
        """Poll a host now, unless a poll is already running."""
        if not host.is_being_looked_at:
            host.is_being_looked_at = True
            self._run(self._poll_once(host))

    async def _poll_once(self, host: Host) -> None:
        try:
            await host.poll()
        finally:
            host.is_being_looked_at = False
            self.scheduler.wake()

    def _start_load(self, host: Host, model: str, victim: str | None) -> None:
        self._run(self.dispatcher.load(host, model, victim))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)


async def _wait_for_polls(hosts: list[Host]) -> None:
    """Wait until each host was polled once, but only briefly for those that do not answer."""
    polls = [asyncio.create_task(host.first_poll.wait()) for host in hosts]
    _, late = await asyncio.wait(polls, timeout=FIRST_POLL_SECONDS)
    for each in late:
        each.cancel()
