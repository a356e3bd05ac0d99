"""The two ends of the connection between the hub and a process that serves.

`RemoteHub` is in the serving process, `WorkerProcess` in the parent with the hub.
"""

from __future__ import annotations

import copy
import itertools
import socket
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._transport.aiohttp import AiohttpTransport
from lmdeck.config import Settings
from lmdeck.errors import LMStudioError
from lmdeck.gateway.admission import Principal, RequestOutcome
from lmdeck.gateway.config import Config, HostConfig
from lmdeck.gateway.host_client import HostClient
from lmdeck.gateway.http import Access, HTTPAnswer, HTTPRequest
from lmdeck.gateway.hub import Hub, Server, ServerState
from lmdeck.gateway.link import Link
from lmdeck.gateway.request_history import Bucket
from lmdeck.gateway.routing import Capacity, SlotRequest
from lmdeck.gateway.scheduler import LocalSlot
from lmdeck.model_info import ModelInfo

__all__ = ["RemoteHub", "WorkerProcess"]


class _Grant(Struct, kw_only=True):
    """A slot on a host, as the hub describes it to another process."""

    name: str
    url: str
    token_env: str
    model: str
    variant: str
    architecture: str


class _RemoteSlot:
    """A slot that the hub has granted to a serving process."""

    def __init__(self, link: Link, number: int, host: HostClient, grant: _Grant) -> None:
        self.host = host
        self.model = grant.model
        self.variant = grant.variant
        self._link = link
        self._number = number
        self._is_released = False

    def note_first_byte(self) -> None:
        """Record that the model has answered."""
        self._link.notify("answered", self._number)

    def note_failure(self, error: LMStudioError) -> None:
        """Record what a failure says about the host."""
        self._link.notify("failed", self._number, _without_partial(error))

    def release(self) -> None:
        """Release the slot; a second call does nothing."""
        if not self._is_released:
            self._is_released = True
            self._link.notify("release", self._number)


class RemoteHub:
    """The hub, as seen by a serving process; `end` is the process's end of the connection."""

    def __init__(self, config: Config, end: socket.socket, on_lost: Callable[[], object]) -> None:
        self.is_draining = False
        self.servers: list[Server] = []
        self._config = config
        self._end = end
        self._on_lost = on_lost
        self._numbers = itertools.count()
        self._transport = AiohttpTransport(Settings())
        self._upstreams: dict[tuple[str, str, str], HostClient] = {}
        self._architectures: dict[HostClient, dict[str, str]] = {}
        self._link: Link

    async def start(self) -> None:
        """Connect to the hub."""
        (server,) = self.servers
        functions: dict[str, Callable[..., Any]] = {"state": server.state, "cancel": server.cancel, "use": self._use}
        self._link = await Link.open(self._end, functions, self._on_lost)

    async def aclose(self) -> None:
        """Close all connections."""
        self._link.close()
        await self._transport.aclose()

    async def _use(self, config: Config) -> None:
        self._config = config
        self._upstreams.clear()
        self._architectures.clear()
        for server in self.servers:
            await server.use(config)

    # --- routing ---

    async def acquire(self, wanted: SlotRequest) -> _RemoteSlot:
        """Wait for a slot on a host.

        Raises:
            LMStudioError: No host has a model, the queue is full, or the wait was too long.
        """
        number = next(self._numbers)
        try:
            grant: _Grant = await self._link.call("acquire", number, wanted)
            return _RemoteSlot(self._link, number, self._upstream(grant), grant)
        except LMStudioError:
            raise
        except BaseException:  # it may have been granted at the moment when the client left
            self._link.notify("release", number)
            raise

    async def has_other(self, wanted: SlotRequest) -> bool:
        """Whether a host that is not avoided may answer."""
        return bool(await self._link.call("has_other", wanted))

    def bind_response(self, response: bytes, host: str) -> None:
        """Record which host stores a response."""
        self._link.notify("bind_response", response, host)

    def _upstream(self, grant: _Grant) -> HostClient:
        address = (grant.name, grant.url, grant.token_env)
        upstream = self._upstreams.get(address)
        if upstream is None:
            host = HostConfig(name=grant.name, url=grant.url, token_env=grant.token_env)
            upstream = self._upstreams[address] = HostClient(host, self._config, self._transport)
        if upstream.session.models.facts(grant.model).architecture != grant.architecture:
            known = self._architectures.setdefault(upstream, {})
            known[grant.model] = grant.architecture
            upstream.session.learn([ModelInfo(key=key, architecture=each) for key, each in known.items()])
        return upstream

    # --- other calls ---

    def note_ready(self) -> None:
        """Report to the parent that this process is ready to serve."""
        self._link.notify("ready")

    async def routes(self) -> Sequence[tuple[str, str, Access]]:
        """Return the endpoints that the hub answers."""
        routes: Sequence[tuple[str, str, Access]] = await self._link.call("routes")
        return routes

    async def answer(self, incoming: HTTPRequest) -> HTTPAnswer:
        """Answer a request for one of them."""
        scope = {name: incoming.scope.get(name) for name in ("method", "path", "raw_path", "query_string", "headers")}
        answer: HTTPAnswer = await self._link.call("answer", scope, await incoming.body(), incoming.principal)
        return answer

    async def default_model(self, principal: Principal) -> str:
        """Return the model of a request that names none."""
        return str(await self._link.call("default_model", principal))

    async def capacity(self) -> Capacity:
        """Return how many answers the hosts generate at once."""
        capacity: Capacity = await self._link.call("capacity")
        return capacity

    async def variants(self, model: str) -> set[str] | None:
        """Return the variants of a requested model on the usable hosts; None if they are not known."""
        variants: set[str] | None = await self._link.call("variants", model)
        return variants

    async def overview(self, range_name: str) -> tuple[dict[str, Any], list[Bucket]]:
        """Return the status, and the history of a range."""
        overview: tuple[dict[str, Any], list[Bucket]] = await self._link.call("overview", range_name)
        return overview

    def note(self, outcome: RequestOutcome) -> None:
        """Record a request that has ended."""
        failure = outcome.failure
        self._link.notify("note", outcome if failure is None else replace(outcome, failure=_without_partial(failure)))


class WorkerProcess:
    """A serving process, as seen by the hub.

    `on_ready` is called when it serves. When it ends, its slots are released.
    """

    def __init__(self, hub: Hub, on_ready: Callable[[], object]) -> None:
        self._hub = hub
        self._on_ready = on_ready
        self._slots: dict[int, LocalSlot] = {}
        self._link: Link

    async def connect(self, end: socket.socket) -> None:
        """Answer the calls of the process over its end of a connection."""
        hub = self._hub
        functions: dict[str, Callable[..., Any]] = {
            "acquire": self._acquire,
            "answered": lambda number: self._slots[number].note_first_byte(),
            "failed": lambda number, error: self._slots[number].note_failure(error),
            "release": self._release,
            "answer": self._answer,
            "has_other": hub.has_other,
            "bind_response": hub.bind_response,
            "routes": hub.routes,
            "ready": self._on_ready,
            "default_model": hub.default_model,
            "capacity": hub.capacity,
            "overview": hub.overview,
            "variants": hub.variants,
            "note": hub.note,
        }
        self._link = await Link.open(end, functions, self._lost)
        hub.servers.append(self)

    async def state(self) -> ServerState:
        """Return the open requests of the process."""
        try:
            state: ServerState = await self._link.call("state")
        except LMStudioError:  # it has just ended
            return ServerState(requests=0, live=())
        return state

    async def cancel(self, request_id: str) -> bool:
        """End an open request of the process; return whether it has one of this id."""
        try:
            return bool(await self._link.call("cancel", request_id))
        except LMStudioError:
            return False

    async def use(self, config: Config) -> None:
        """Apply another configuration in the process; if it has ended, its successor uses it."""
        try:
            await self._link.call("use", config)
        except LMStudioError:
            return

    async def _acquire(self, number: int, wanted: SlotRequest) -> _Grant:
        slot = self._slots[number] = await self._hub.acquire(wanted)
        host = slot.host.config
        return _Grant(
            name=host.name,
            url=host.url,
            token_env=host.token_env,
            model=slot.model,
            variant=slot.variant,
            architecture=slot.host.session.models.facts(slot.model).architecture,
        )

    def _release(self, number: int) -> None:
        slot = self._slots.pop(number, None)
        if slot is not None:
            slot.release()

    async def _answer(self, scope: dict[str, Any], body: bytes, principal: Principal) -> HTTPAnswer:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        incoming = HTTPRequest({"type": "http", **scope}, receive, self._hub.config.limits)
        incoming.principal = principal
        return await self._hub.answer(incoming)

    def _lost(self) -> None:
        self._hub.servers.remove(self)
        for slot in self._slots.values():
            slot.release()
        self._slots.clear()


def _without_partial(error: LMStudioError) -> LMStudioError:
    """Return an error without its partial answer, which the other process does not need."""
    error = copy.copy(error)
    error.partial = None
    return error
