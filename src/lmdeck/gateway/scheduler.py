"""The scheduler: which host gets a request, and when a host loads or swaps a model.

A request goes to a host that has its model loaded: the one that it is bound to, or the least busy one. If none has, one
host loads it while all other requests for it wait. Each model has its own fair queue. All decisions are made in the
event loop.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Any

from lmdeck.errors import LMStudioError, ModelNotFoundError, ServerError
from lmdeck.gateway.config import Config
from lmdeck.gateway.errors import no_host_available
from lmdeck.gateway.fair_queue import FairQueue
from lmdeck.gateway.hosts import Host

__all__ = ["LocalSlot", "Scheduler", "Ticket"]

SHOWN_WAITING = 100
SHOWN_MODELS = 20
UNKNOWN_MODEL = (
    "Name one of them, download the model on a host with `lms get`, or set an alias in the gateway's configuration."
)
FIRST_ESTIMATE = 10.0  # seconds that an answer is assumed to take before one was measured
SMOOTHING = 0.2
MAX_LANES = 1000
LOAD_PAUSE = 10.0  # seconds after which a failed load is tried again


class Ticket:
    """A request that waits for a host.

    It has a key, a cost in tokens, the host that it is bound to, and the hosts that have failed to answer it.

    A background ticket is served after all others, waits without a limit, and does not take the last slot of a host.
    """

    __slots__ = ("cost", "enqueued_at", "excluded", "future", "is_background", "key", "request_id", "sticky")

    def __init__(
        self,
        request_id: str,
        key: str,
        cost: int,
        sticky: str | None,
        excluded: Collection[str] = (),
        *,
        is_background: bool = False,
    ) -> None:
        self.request_id = request_id
        self.key = key
        self.cost = cost
        self.sticky = sticky
        self.excluded = excluded
        self.is_background = is_background
        self.enqueued_at = 0.0
        self.future: asyncio.Future[LocalSlot] | None = None


class LocalSlot:
    """The right to run one request on a host.

    `on_answer` is called when the first byte has come.
    """

    def __init__(self, scheduler: Scheduler, host: Host, model: str) -> None:
        self.host = host
        self.model = model
        self.is_released = False
        self.on_answer: Callable[[], object] | None = None
        self._scheduler = scheduler
        self._started = scheduler.clock()
        self._key = host.key_of(model)
        host.note_sent(self._key, id(self))
        host.granted_at = self._started
        host.breaker.note_sent()

    @property
    def variant(self) -> str:
        """The key, variant and quantization of the model, as far as the host lists them."""
        return self.host.variant_of(self.model)

    def note_first_byte(self) -> None:
        """Record that the model has answered.

        It is therefore loaded, and the requests that waited for it may be sent.
        """
        self.host.breaker.note_success()
        if self.on_answer is not None:
            self.on_answer()
        if self.model:
            self.host.note_loaded(self.model)
            self._scheduler.wake()

    def note_failure(self, error: LMStudioError) -> None:
        """Record what a failure says about the host."""
        self.host.note_failure(self.model, error)

    def release(self) -> None:
        """Release the slot; a second call does nothing."""
        if self.is_released:
            return
        self.is_released = True
        self.host.note_ended(self._key, id(self))
        self.host.breaker.note_abandoned()
        if self.model:
            self._scheduler.note_service(self.model, self._scheduler.clock() - self._started)
        self._scheduler.wake()


class _Lane:
    """The queue of one model, and how long its answers take."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.queue: FairQueue[Ticket] = FairQueue()
        self.service_seconds = FIRST_ESTIMATE
        self.is_measured = False

    @property
    def oldest(self) -> float | None:
        """The arrival time of the entry that has waited longest."""
        return min((ticket.enqueued_at for ticket in self.queue), default=None)


class Scheduler:
    """The queues of all models in front of all hosts.

    `start_load(host, model, victim)` is called when a host is to load a model explicitly, after unloading `victim` if there is
    one; it must end in a call of `note_load_ended`. `poll(host)` is called when a decision needs a new list of its models.
    """

    def __init__(
        self,
        config: Config,
        hosts: list[Host],
        start_load: Callable[[Host, str, str | None], object],
        poll: Callable[[Host], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.hosts = hosts
        self.clock = clock
        self._start_load = start_load
        self._poll = poll
        self._lanes: dict[str, _Lane] = {}

    # --- requests ---

    async def acquire(self, model: str, ticket: Ticket) -> LocalSlot:
        """Wait for a host with a free slot for a model.

        Raises:
            LMStudioError: No host has the model, the queue is full, or the wait was too long.
        """
        lane = self._lane(model)
        limits = self.config.queue
        if len(lane.queue) >= limits.max_waiting and not ticket.is_background:
            raise self._busy(
                lane, f"{limits.max_waiting} requests are already waiting for the model {model!r}.", "max_waiting"
            )
        ticket.enqueued_at = self.clock()
        ticket.future = asyncio.get_running_loop().create_future()
        lane.queue.push(ticket)
        self._serve(lane)
        try:
            if ticket.future.done():
                return ticket.future.result()
            async with asyncio.timeout(None if ticket.is_background else limits.max_wait):
                return await ticket.future
        except TimeoutError:
            message = f"The model {model!r} was busy for {limits.max_wait:g} s."
            raise self._busy(lane, message, "max_wait") from None
        except asyncio.CancelledError:
            if ticket.future.done() and not ticket.future.cancelled() and ticket.future.exception() is None:
                ticket.future.result().release()  # granted at the moment when the client left
            raise
        finally:
            lane.queue.remove(ticket)
            if not (len(lane.queue) or any(host.has(model) for host in self.hosts)):
                self._lanes.pop(model, None)  # clients may name any number of unknown models

    def note_service(self, model: str, seconds: float) -> None:
        """Record how long an answer took, for estimates of waits."""
        lane = self._lane(model)
        weight = SMOOTHING if lane.is_measured else 1.0
        lane.service_seconds += weight * (seconds - lane.service_seconds)
        lane.is_measured = True

    def wake(self) -> None:
        """Serve all queues again, since something has changed."""
        for lane in list(self._lanes.values()):
            if len(lane.queue):
                self._serve(lane)

    def usable_model(self, models: Iterable[str], excluded: Collection[str] = ()) -> str:
        """Return the first of the models that a usable host has, else the first one."""
        names = list(models)
        for name in names:
            if any(host.is_usable and host.has(name) and host.name not in excluded for host in self.hosts):
                return name
        return next((name for name in names if any(host.has(name) for host in self.hosts)), names[0])

    def note_load_ended(self, host: Host, model: str, error: LMStudioError | None) -> None:
        """Record the end of an explicit load.

        After a failure, the host pauses before the next attempt.
        """
        host.loading = host.unloading = None
        if host.reserved_for == host.key_of(model):
            host.reserved_for = None
        host.changes += 1
        if error is None:
            host.note_loaded(model)
        else:
            host.load_errors[host.key_of(model)] = (error, self.clock() + LOAD_PAUSE)
        self.wake()

    # --- decisions ---

    def _serve(self, lane: _Lane) -> None:
        """Send waiting requests to the free slots."""
        while len(lane.queue):
            granted = self._serve_one(lane)
            if not granted:
                return

    def _serve_one(self, lane: _Lane) -> bool:
        for ticket in lane.queue.heads():
            usable = [host for host in self.hosts if host.is_usable and host.has(lane.model)]
            allowed = [host for host in usable if host.name not in ticket.excluded]
            if not allowed:
                lane.queue.remove(ticket)
                _fail(ticket, self._unavailable(lane.model))
                return True
            try:
                slot = self._place(lane, ticket, allowed)
            except LMStudioError as error:
                lane.queue.remove(ticket)
                _fail(ticket, error)
                return True
            if slot is not None:
                lane.queue.take(ticket)
                _grant(ticket, slot)
                return True
        return False

    def _place(self, lane: _Lane, ticket: Ticket, hosts: list[Host]) -> LocalSlot | None:
        """Return a slot for a request, or None if it has to wait."""
        model = lane.model
        ready = [host for host in hosts if host.is_loaded(model)]
        free = [host for host in ready if host.free_slots(model) > _reserved_slots(host, ticket, model)]
        if free:
            bound = next((host for host in free if host.name == ticket.sticky), None)
            chosen = bound or min(free, key=lambda host: (host.utilization(model), host.granted_at))
            return self._place_on(chosen, model)
        if ready or any(_is_loading(host, model) for host in hosts):
            return None
        return self._load_somewhere(lane, hosts)

    def _place_on(self, host: Host, model: str) -> LocalSlot | None:
        """Return a slot on a host that has listed a model as loaded.

        If nothing runs there, the model may have been unloaded since, and this request loads it again; others wait for its
        first byte. A model with a profile must not be loaded this way, so its list is fetched first.
        """
        may_load = not host.running[host.key_of(model)] and not host.was_just_loaded(model)
        if host.may_be_loading(model) or (may_load and self._loads_explicitly(host, model)):
            self._request_poll(host)
            return None
        return LocalSlot(self, host, model)

    def _request_poll(self, host: Host) -> None:
        if host.needs_poll():
            self._poll(host)

    def _load_somewhere(self, lane: _Lane, hosts: list[Host]) -> LocalSlot | None:
        """Choose the host that loads a model; return a slot if the request itself loads it.

        Raises:
            LMStudioError: Every host has failed to load it.
        """
        model = lane.model
        able = [host for host in hosts if host.load_error(model) is None]
        if not able:
            raise _load_failed(hosts[0].load_error(model))
        idle = [host for host in able if host.loading is None and not host.may_be_loading_any]
        for host in sorted(idle, key=lambda host: (not self._has_room(host), host.utilization(model))):
            victim = None
            if not self._has_room(host):
                victim = self._victim(host, lane)
                if victim is None:
                    continue
            if victim is None and not self._loads_explicitly(host, model):
                return LocalSlot(self, host, model)
            host.loading, host.unloading = host.key_of(model), victim
            self._start_load(host, model, victim)
            return None
        return None

    def _loads_explicitly(self, host: Host, model: str) -> bool:
        """Whether the gateway loads a model by a separate request.

        Otherwise the first request for the model loads it.
        """
        if host.api != "v1":
            return False
        has_profile = self.config.profile_of(host.key_of(model)) is not None
        return host.loads_explicitly or has_profile or host.config.max_models is not None

    @staticmethod
    def _has_room(host: Host) -> bool:
        return host.config.max_models is None or len(host.loaded_keys()) < host.config.max_models

    def _victim(self, host: Host, lane: _Lane) -> str | None:
        """Return the model that a host unloads for another one; None if that has to wait.

        Requests for loaded models go first for `queue.collate` seconds, so that the host does not swap to and fro; then it
        takes no new ones until a model is idle.
        """
        oldest = lane.oldest
        is_overdue = oldest is not None and self.clock() - oldest >= self.config.queue.collate
        if is_overdue and host.reserved_for is None:
            host.reserved_for = host.key_of(lane.model)
        wanted = {host.key_of(each.model) for each in self._lanes.values() if len(each.queue)}
        idle = [
            key
            for key in host.loaded_keys()
            if not host.running[key] and (key not in wanted or host.reserved_for == host.key_of(lane.model))
        ]
        return min(idle, key=lambda key: host.last_used.get(key, 0.0), default=None)

    # --- errors and figures ---

    def _unavailable(self, model: str) -> LMStudioError:
        """Return the error for a model that no usable host has."""
        if not any(host.has(model) for host in self.hosts) and any(host.is_up for host in self.hosts):
            names = sorted({info.key for host in self.hosts for info in host.models.values()})
            shown = ", ".join(names[:SHOWN_MODELS]) or "none"
            message = f"No host has the model {model!r}. The models are: {shown}."
            return ModelNotFoundError(message, available=names, status=404, hint=UNKNOWN_MODEL)
        states = ", ".join(f"{host.name} {_state(host)}" for host in self.hosts if host.has(model) or not host.models)
        message = f"No host with the model {model!r} can answer now ({states})."
        return no_host_available(message, max(1.0, self.config.routing.probe))

    def _busy(self, lane: _Lane, message: str, setting: str) -> LMStudioError:
        return ServerError(
            f"{message} The limit is the setting queue.{setting}.",
            status=503,
            code="queue_full" if setting == "max_waiting" else "queue_timeout",
            hint="Send the request again after the seconds in the header `Retry-After`.",
            retry_after=float(max(1, round(self.expected_wait(lane.model, len(lane.queue))))),
        )

    def expected_wait(self, model: str, position: int) -> float:
        """Return the estimated wait in seconds at a position in the queue, counted from 0."""
        lane = self._lane(model)
        slots = sum(host.parallel(model) for host in self.hosts if host.is_usable and host.is_loaded(model))
        return (position + 1) * lane.service_seconds / max(slots, 1)

    def status(self) -> dict[str, Any]:
        """Return the queues for `/gateway/status`."""
        now = self.clock()
        return {
            lane.model: {
                "waiting": len(lane.queue),
                "running": sum(host.running[host.key_of(lane.model)] for host in self.hosts if host.has(lane.model)),
                "oldest_wait": round(now - lane.oldest, 3) if lane.oldest is not None else None,
                "service_seconds": round(lane.service_seconds, 3) if lane.is_measured else None,
                "requests": [self._place_of(lane, ticket, now) for ticket in islice(lane.queue, SHOWN_WAITING)],
            }
            for lane in self._lanes.values()
        }

    def _place_of(self, lane: _Lane, ticket: Ticket, now: float) -> dict[str, Any]:
        position = lane.queue.position(ticket)
        return {
            "request_id": ticket.request_id,
            "key": ticket.key,
            "position": position,
            "waited": round(now - ticket.enqueued_at, 3),
            "expected_wait": round(self.expected_wait(lane.model, position), 3),
        }

    def _lane(self, model: str) -> _Lane:
        lane = self._lanes.get(model)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                self._lanes = {name: each for name, each in self._lanes.items() if len(each.queue)}
            lane = self._lanes[model] = _Lane(model)
        return lane


def _reserved_slots(host: Host, ticket: Ticket, model: str) -> int:
    """Return how many slots of a host a request must leave free.

    That is one for a background request, if there are several.
    """
    return int(ticket.is_background and host.parallel(model) > 1)


def _is_loading(host: Host, model: str) -> bool:
    key = host.key_of(model)
    return host.loading == key or host.may_be_loading(model)


def _grant(ticket: Ticket, slot: LocalSlot) -> None:
    if ticket.future is None or ticket.future.done():
        slot.release()
    else:
        ticket.future.set_result(slot)


def _fail(ticket: Ticket, error: LMStudioError) -> None:
    if ticket.future is not None and not ticket.future.done():
        ticket.future.set_exception(error)


def _load_failed(error: LMStudioError | None) -> LMStudioError:
    """Return a copy of the error, since each request adds its own traceback."""
    return copy.copy(error) if error is not None else ServerError("The model could not be loaded.", status=503)


def _state(host: Host) -> str:
    if not host.is_up:
        return "is down"
    if host.config.drain:
        return "is draining"
    return "is failing" if not host.breaker.allows else "has failed to answer this request"
