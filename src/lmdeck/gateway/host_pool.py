"""The pool of hosts: watches them, and replaces them when the configuration changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from lmdeck._pipeline.run_plan import drive_async
from lmdeck._plans.models import load, unload
from lmdeck._responses.model_lists import choose_model
from lmdeck._transport.aiohttp import AiohttpTransport
from lmdeck.config import Settings
from lmdeck.errors import LMStudioError
from lmdeck.gateway.admission import Principal
from lmdeck.gateway.config import Config, HostConfig
from lmdeck.gateway.errors import no_host_available
from lmdeck.gateway.hosts import Host
from lmdeck.gateway.routing import Capacity, SlotRequest
from lmdeck.gateway.scheduler import LocalSlot, Scheduler, Ticket
from lmdeck.gateway.sticky import StickyHosts

__all__ = ["HostPool"]

FIRST_POLL_SECONDS = 3.0
TICK_SECONDS = 0.25
_log = logging.getLogger("lmdeck.gateway")


class HostPool:
    """The hosts of a configuration, their queues, and the conversations bound to them."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self.config = config
        self._clock = clock
        self._transport = AiohttpTransport(Settings())
        self.hosts = [self._host(each, config) for each in config.hosts]
        self.scheduler = Scheduler(config, self.hosts, self._start_load, self._poll_soon, clock)
        self._sticky = StickyHosts(clock)
        self._polls: dict[Host, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Poll every host once, briefly for those that do not answer; then poll regularly."""
        self._watch_hosts(set(self.hosts))
        self._run(self._tick())
        await _wait_for_polls(self.hosts)

    async def aclose(self) -> None:
        """Stop polling and close all connections."""
        tasks = [*self._polls.values(), *self._tasks]
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
        """Use other hosts: remaining ones keep their state, removed ones finish their requests.

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
        has_new_settings = (config.timeouts, config.store) != (self.config.timeouts, self.config.store)
        self.config = self.scheduler.config = config
        for host, each in zip(hosts, config.hosts, strict=True):
            if has_new_settings:
                host.use(each, config)
            host.config = each
        self.hosts[:] = hosts
        self._watch_hosts(set(hosts))
        self.scheduler.wake()

    # --- routing ---

    async def acquire(self, wanted: SlotRequest) -> LocalSlot:
        """Wait for a slot on a host.

        Raises:
            LMStudioError: No host has a model, the queue is full, or the wait was too long.
        """
        if not wanted.models:
            return self._slot_anywhere()
        excluded = self._excluded(wanted)
        model = self.scheduler.usable_model(wanted.models, excluded)
        ticket = Ticket(
            wanted.request_id,
            wanted.key,
            wanted.cost,
            self._sticky.host_of(wanted.conversation),
            excluded,
            is_background=wanted.is_background,
        )
        slot = await self.scheduler.acquire(model, ticket)
        ttl = self.config.sticky.ttl
        slot.on_answer = lambda: self._sticky.bind(wanted.conversation, slot.host.name, ttl)
        return slot

    async def has_other(self, wanted: SlotRequest) -> bool:
        """Whether a host that is not avoided may answer."""
        excluded = self._excluded(wanted)
        return any(
            host.is_usable and host.name not in excluded and any(map(host.has, wanted.models)) for host in self.hosts
        )

    def bind_response(self, response: bytes, host: str) -> None:
        """Record which host stores a response."""
        self._sticky.bind(response, host, self.config.sticky.ttl)

    async def default_model(self, principal: Principal) -> str:
        """Return the model of a request that names none: one that is loaded, else the smallest."""
        usable = [host for host in self.hosts if host.is_usable]
        return choose_model(info for host in usable for info in host.models.values() if principal.may_use(info.key))

    async def capacity(self) -> Capacity:
        """Return how many answers the hosts can generate at once, less one slot of each host."""
        names = {name for host in self.hosts for name in host.models}
        parallel = {
            name: sum(max(host.parallel(name) - 1, 1) for host in self.hosts if host.has(name)) for name in names
        }
        return Capacity(parallel=parallel, hosts=len(self.hosts))

    def _slot_anywhere(self) -> LocalSlot:
        """Return a slot on the least busy host, for a request that names no model."""
        usable = [host for host in self.hosts if host.is_usable]
        if not usable:
            raise no_host_available("No host can answer now: none is up and in rotation.")
        host = min(usable, key=lambda host: sum(host.running.values()) / host.config.weight)
        return LocalSlot(self.scheduler, host, "")

    def _excluded(self, wanted: SlotRequest) -> frozenset[str]:
        """Return the hosts that cannot answer.

        These are hosts to avoid and, for a stored response, all but the one that made it.
        """
        names = {host.name for host in self.hosts}
        owner = self._sticky.host_of(wanted.response)
        return wanted.avoided | (names - {owner} if owner in names else set())

    # --- hosts ---

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

    def _poll_soon(self, host: Host) -> None:
        """Poll a host now, unless a poll is already running."""
        if not host.is_being_polled:
            host.is_being_polled = True
            self._run(self._poll_once(host))

    async def _poll_once(self, host: Host) -> None:
        try:
            await host.poll()
        finally:
            host.is_being_polled = False
            self.scheduler.wake()

    def _start_load(self, host: Host, model: str, victim: str | None) -> None:
        self._run(self._load(host, model, victim))

    async def _load(self, host: Host, model: str, victim: str | None) -> None:
        """Load a model on a host, by its profile, after unloading `victim`.

        The scheduler receives the result.
        """
        key = host.key_of(model)
        error: LMStudioError | None = None
        try:
            if victim is not None:
                await host.poll()  # which instances there are now
                for instance in host.models[victim].instances if host.has(victim) else ():
                    _log.info("host %s unloads %s for %s", host.name, victim, key)
                    await drive_async(unload(host.session, instance.id), host.transport)
                host.note_unloaded(victim)
            _log.info("host %s loads %s", host.name, key)
            options = self.config.profile_of(key) or {}
            await drive_async(load(host.session, key, options, force=False), host.transport)
            host.changes += 1
            await host.poll()
        except LMStudioError as raised:
            _log.warning("host %s could not load %s: %s", host.name, key, raised.message)
            error = raised
        finally:
            self.scheduler.note_load_ended(host, model, error)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _wait_for_polls(hosts: list[Host]) -> None:
    """Wait until each host was polled once, but only briefly for those that do not answer."""
    polls = [asyncio.create_task(host.first_poll.wait()) for host in hosts]
    _, late = await asyncio.wait(polls, timeout=FIRST_POLL_SECONDS)
    for each in late:
        each.cancel()
