"""The hub of a gateway: the parts that exist once, however many processes serve clients.

These are the hosts with their queues, the history, and the configuration in use. If one process serves, the hub is in it; if
several do, it is in their parent, and they reach it through a `RemoteHub`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from lmdeck._incoming.routes import Routes
from lmdeck._usage_store import GatewayStore
from lmdeck.errors import LMStudioError
from lmdeck.gateway.admission import Principal, RequestOutcome
from lmdeck.gateway.config import Config
from lmdeck.gateway.config_file import read_configuration
from lmdeck.gateway.control import control_routes
from lmdeck.gateway.host_pool import HostPool
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest
from lmdeck.gateway.listings import listing_routes
from lmdeck.gateway.management import management_routes
from lmdeck.gateway.metrics import GatewayMetrics
from lmdeck.gateway.operators import operator_routes
from lmdeck.gateway.request_history import LONGEST, Bucket, RequestHistory
from lmdeck.gateway.routing import Capacity, Router

__all__ = ["AnyHub", "Hub", "Server", "ServerState"]

SHOWN_LIVE = 200
MAX_LOADED = 100_000
_log = logging.getLogger("lmdeck.gateway")


class ServerState(Struct, kw_only=True):
    """The state of a serving process: the number of its open requests, and some of them."""

    requests: int
    live: Sequence[Mapping[str, Any]]


class Server(Protocol):
    """A process that serves clients."""

    def state(self) -> Awaitable[ServerState]:
        """Return its open requests."""
        ...

    def cancel(self, request_id: str) -> Awaitable[bool]:
        """End an open request with an error; return whether it has one of this id."""
        ...

    def use(self, config: Config) -> Awaitable[None]:
        """Use another configuration."""
        ...


class AnyHub(Router, Protocol):
    """The hub, as seen by a serving process."""

    servers: list[Server]
    is_draining: bool

    def start(self) -> Awaitable[None]:
        """Start watching the hosts, or connect to the process that does."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Close all connections."""
        ...

    def routes(self) -> Awaitable[Sequence[tuple[str, str, Access]]]:
        """Return the endpoints that the hub answers: method, path, and who may use them."""
        ...

    def answer(self, incoming: HTTPRequest) -> Awaitable[HTTPAnswer]:
        """Answer a request for one of them."""
        ...

    def default_model(self, principal: Principal) -> Awaitable[str]:
        """Return the model of a request that names none."""
        ...

    def capacity(self) -> Awaitable[Capacity]:
        """Return how many answers the hosts generate at once."""
        ...

    def variants(self, model: str) -> Awaitable[set[str] | None]:
        """Return the variants of a requested model on the usable hosts; None if they are not known."""
        ...

    def overview(self, range_name: str) -> Awaitable[tuple[dict[str, Any], list[Bucket]]]:
        """Return the status, and the history of a range."""
        ...

    def note(self, outcome: RequestOutcome) -> object:
        """Record a request that has ended."""
        ...


class Hub(HostPool):
    """The hub; `servers` are the serving processes."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(config, clock)
        self.history = RequestHistory()
        self.servers: list[Server] = []
        self.is_draining = False
        self._metrics = GatewayMetrics()
        self._reconfiguring = asyncio.Lock()
        self._routes: Routes[Endpoint] = Routes()
        for method, path, endpoint, _ in self._endpoints():
            self._routes.add(method, path, endpoint)

    def _endpoints(self) -> Iterator[tuple[str, str, Endpoint, Access]]:
        yield from listing_routes(self)
        yield from management_routes(self, for_operators=bool(self.config.auth.required))
        yield from operator_routes(self)
        yield from control_routes(self)
        yield "GET", "/metrics", self._metrics_page, "operator"

    async def routes(self) -> Sequence[tuple[str, str, Access]]:
        """Return the endpoints that the hub answers."""
        return [(method, path, access) for method, path, _, access in self._endpoints()]

    async def answer(self, incoming: HTTPRequest) -> HTTPAnswer:
        """Answer a request for one of them, whose access has been checked."""
        found = self._routes.find(incoming.method, incoming.path)
        assert found is not None, incoming.path
        endpoint, incoming.params = found
        return await endpoint(incoming)

    async def load_history(self, store: GatewayStore) -> None:
        """Load the requests that ended before the start from the store, for the dashboard."""
        since = time.time() - LONGEST
        self.history.load(reversed(await asyncio.to_thread(store.requests, since=since, limit=MAX_LOADED)))

    def note(self, outcome: RequestOutcome) -> None:
        """Record a request that has ended."""
        self.history.note(outcome)
        self._metrics.note(outcome)

    async def status(self) -> dict[str, Any]:
        """Return the state of hosts, models, queues and requests, as in `/gateway/status`."""
        states = await asyncio.gather(*(server.state() for server in self.servers))
        live = [one for state in states for one in state.live]
        return {
            "draining": self.is_draining,
            "requests": sum(state.requests for state in states),
            "hosts": [host.status() for host in self.hosts],
            "queues": self.scheduler.status(),
            "live": live[:SHOWN_LIVE],
            **self.history.status(),
        }

    async def overview(self, range_name: str) -> tuple[dict[str, Any], list[Bucket]]:
        """Return the status, and the history of a range."""
        return await self.status(), self.history.series(range_name)

    async def cancel(self, request_id: str) -> bool:
        """End an open request with an error; return whether there is one of this id."""
        return any(await asyncio.gather(*(server.cancel(request_id) for server in self.servers)))

    async def reconfigure(self, config: Config) -> None:
        """Use another configuration everywhere: hosts come and go without losing a request.

        Server and store stay as they are.
        """
        async with self._reconfiguring:
            await super().reconfigure(config)
            await asyncio.gather(*(server.use(config) for server in self.servers))
        _log.info("configuration loaded: hosts %s", ", ".join(host.name for host in self.hosts))

    async def reload(self, path: str | None) -> None:
        """Read the configuration file again; an invalid one changes nothing."""
        if path is None:
            _log.warning("SIGHUP: the gateway was started without a configuration file, so there is nothing to reload")
            return
        try:
            await self.reconfigure(Config.replacement(read_configuration(path), path))
        except LMStudioError as error:
            _log.error("the configuration was not changed: %s", error)

    async def _metrics_page(self, _: HTTPRequest) -> HTTPAnswer:
        return self._metrics.page(await self.status())
