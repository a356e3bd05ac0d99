"""Load each model once, and detect models that evict each other.

LM Studio loads a model once per concurrent request (bug #1751). The first request for a model is sent at once. A second one
before the first byte of that answer triggers a look-up in the server's list: if the model is not loaded, this request and all
further ones wait for that byte; otherwise none waits. Sequential requests do not cause look-ups.

The first requests of separate clients take turns by claims: the one that finds a claim waits until it ends or the list shows
the model.

LM Studio keeps only one of the models that it loads on demand. When a client returns to a model that it used before another
one, the server's list shows whether it is still loaded. The list is requested at most once a minute.

Source: LM Studio docs, `ttl-and-auto-evict.md`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct

from lmdeck._event_bus import EventBus
from lmdeck._pipeline.calls import Call, Handler, R, ResponseStream
from lmdeck._pipeline.effects import Acquire, Plan, Sleep
from lmdeck._pipeline.latch import Latch

if TYPE_CHECKING:
    from lmdeck.events import ModelEvicted
    from lmdeck.model_info import ModelInfo

READY_SECONDS = 30.0
MAX_MODELS = 64
LOOK_UP_INTERVAL = 60.0
MIN_POLL, MAX_POLL = 0.05, 1.0  # seconds between two looks at another client's claim
TTL_EXPIRED = "Its `ttl` of {:g} s had passed: set a longer one."
EVICTED = (
    "Loaded now: {}. LM Studio unloads a model that it loaded on demand when it loads another one: load both with "
    "`lm.models.load`, which it keeps, or turn off auto-evict in its server settings."
)
_log = logging.getLogger("lmdeck.http")
T = TypeVar("T")


class ModelUse(Struct, frozen=True):
    """The time of the last answered request for a model, and its `ttl`."""

    at: float
    ttl: float | None


class ModelWait(Latch):
    """The requests that wait for one model, for which the first request was sent."""

    was_checked = False
    is_cold = False


class Claim(Protocol):
    """The right of one client to load a model; see `lmdeck._plans.load_claims`."""

    def release(self) -> None:
        """End the claim."""
        ...


class Claims(Protocol):
    """The claims that the clients of one server make."""

    def try_claim(self, model: str, *, between_processes: bool) -> Claim | None:
        """Return a claim, or None if another client has one."""
        ...


class LoadOnce:
    """A handler that sends one request for a model that is not loaded; the others wait for it.

    `is_loaded` is a plan that checks the server's list; `on_loaded` is called after a model was loaded for a request. The wait
    for the claim of another client takes at most `patience` seconds.
    """

    def __init__(
        self,
        inner: Handler,
        make_lock: Callable[[], AbstractContextManager[Any]],
        clock: Callable[[], float],
        is_loaded: Callable[[str], Plan[bool]],
        on_loaded: Callable[[], object],
        claims: Claims,
        patience: float,
    ) -> None:
        self._inner = inner
        self._claims = claims
        self._patience = patience
        self._make_lock = make_lock
        self._clock = clock
        self._is_loaded = is_loaded
        self._on_loaded = on_loaded
        self.after_fork()

    def after_fork(self) -> None:
        """Discard the waiting requests, which in a forked process are those of the parent."""
        self._lock = self._make_lock()
        self._loading: dict[str, ModelWait] = {}
        self._ready_until: dict[str, float] = {}
        self._uses: dict[str, ModelUse] = {}

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return the plan of the next handler.

        If the model may not be loaded, the plan waits for the request that loads it.

        Raises:
            LMStudioError: What the next handler raises.
        """
        if self._ready_until.get(call.model, 0.0) - self._clock() <= READY_SECONDS / 2:
            return self._send_once_ready(call)
        self._note_use(call)
        return self._inner(call)

    def last_use(self, model: str) -> ModelUse | None:
        """Return the last request for a model that has answered."""
        return self._uses.get(model)

    def _send_once_ready(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        while self._ready_until.get(call.model, 0.0) <= self._clock():
            is_first, loading = self._begin(call.model)
            if is_first:
                return (yield from self._go_first(call, loading))
            yield from self._check_loaded(call.model, loading)
            yield Acquire(loading)
        stream = yield from self._inner(call)
        self.note_loaded([call.model])
        self._note_use(call)
        return stream

    def exclusively(self, model: str, make: Callable[[], Plan[T]]) -> Plan[T]:
        """Return a plan that loads a model while no other plan, client or process does.

        They, and the requests of this process, wait until it has ended. `make` must first check whether the model is loaded,
        since another one may have loaded it meanwhile.
        """
        while True:
            is_first, loading = self._begin(model)
            if is_first:
                break
            yield Acquire(loading)
        loading.was_checked = loading.is_cold = True  # requests wait without a look-up
        try:
            result = yield from self._while_claimed(model, make)
            self._note_ready(model, loading)
        finally:
            self._end(model, loading)
        return result

    def note_loaded(self, models: Iterable[str]) -> None:
        """Record models that are loaded, according to an answer or a list."""
        self._ready_until |= dict.fromkeys(models, self._clock() + READY_SECONDS)

    def _begin(self, model: str) -> tuple[bool, ModelWait]:
        """Return whether this is the first request for the model, and its `ModelWait`."""
        with self._lock:
            loading = self._loading.get(model)
            if loading is not None:
                return False, loading
            loading = self._loading[model] = ModelWait(self._make_lock())
            return True, loading

    def _go_first(self, call: Call[R], loading: ModelWait) -> Plan[ResponseStream[R]]:
        def look_up() -> Plan[bool]:
            is_loaded = yield from self._is_loaded(call.model)
            loading.was_checked, loading.is_cold = True, not is_loaded
            return is_loaded

        try:
            stream = yield from self._while_claimed(call.model, lambda: self._inner(call), look_up)
            self._note_ready(call.model, loading)
            self._note_use(call)
        finally:  # after a failure the next request goes first
            self._end(call.model, loading)
        return stream

    def _while_claimed(
        self, model: str, make: Callable[[], Plan[T]], is_needless: Callable[[], Plan[bool]] | None = None
    ) -> Plan[T]:
        """Run a plan under a claim.

        If another client has it, wait until it is free, `is_needless` returns True, or the patience ends. A plan without
        `is_needless` also waits for other processes.
        """
        latest, pause = self._clock() + self._patience, MIN_POLL
        while (claim := self._claims.try_claim(model, between_processes=is_needless is None)) is None:
            if self._clock() >= latest or (is_needless is not None and (yield from is_needless())):
                return (yield from make())
            yield Sleep(pause)
            pause = min(2 * pause, MAX_POLL)
        try:
            return (yield from make())
        finally:
            claim.release()

    def _end(self, model: str, loading: ModelWait) -> None:
        with self._lock:
            if self._loading.get(model) is loading:
                del self._loading[model]
        loading.open()

    def _check_loaded(self, model: str, loading: ModelWait) -> Plan[None]:
        """Check once whether the model is loaded; if it is, end the wait."""
        with self._lock:
            was_checked, loading.was_checked = loading.was_checked, True
        if was_checked:
            return
        loading.is_cold = not (yield from self._is_loaded(model))
        if not loading.is_cold:
            self._note_ready(model, loading)
            loading.open()

    def _note_use(self, call: Call[R]) -> None:
        if len(self._uses) >= MAX_MODELS and call.model not in self._uses:
            self._uses.clear()
        self._uses[call.model] = ModelUse(self._clock(), call.ttl)

    def _note_ready(self, model: str, loading: ModelWait) -> None:
        with self._lock:
            if loading.is_cold:  # LM Studio may have unloaded other models for it
                self._ready_until.clear()
            self._ready_until[model] = self._clock() + READY_SECONDS
        if loading.is_cold:
            self._on_loaded()


class WatchEvictions:
    """A handler that reports models that were unloaded between two of their requests.

    `look_up` is a plan that returns the server's list, or None.
    """

    def __init__(
        self,
        inner: LoadOnce,
        make_lock: Callable[[], AbstractContextManager[Any]],
        clock: Callable[[], float],
        look_up: Callable[[], Plan[list[ModelInfo] | None]],
        bus: EventBus,
    ) -> None:
        self._inner = inner
        self._make_lock = make_lock
        self._clock = clock
        self._look_up = look_up
        self._bus = bus
        self._reported: set[str] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """Discard the state of the parent process."""
        self._lock = self._make_lock()
        self._last = ""
        self._looked_up_at = -math.inf

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return the plan of the next handler, after a look at the server's list if that is due.

        Raises:
            LMStudioError: What the next handler raises.
        """
        if call.model == self._last:
            return self._inner(call)
        earlier = self._switch(call.model)
        return self._inner(call) if earlier is None else self._check_first(call, earlier)

    def _switch(self, model: str) -> ModelUse | None:
        """Record a change of the model; return its earlier use if the list must be checked."""
        with self._lock:
            self._last = model
            if self._clock() - self._looked_up_at < LOOK_UP_INTERVAL:
                return None
            earlier = self._inner.last_use(model)
            if earlier is not None:
                self._looked_up_at = self._clock()
            return earlier

    def _check_first(self, call: Call[R], earlier: ModelUse) -> Plan[ResponseStream[R]]:
        yield from self._check(call.model, earlier)
        return (yield from self._inner(call))

    def _check(self, model: str, earlier: ModelUse) -> Plan[None]:
        models = yield from self._look_up()
        named = [each for each in models or () if model in (each.key, *(one.id for one in each.instances))]
        if not named or any(each.instances for each in named):
            return
        from lmdeck.events import ModelEvicted  # imported late: few models are unloaded

        idle = self._clock() - earlier.at
        self._report(ModelEvicted(model=model, loaded=_loaded(models or ()), idle=idle, ttl=earlier.ttl))

    def _report(self, event: ModelEvicted) -> None:
        self._bus.emit(event)
        if event.model in self._reported:
            return
        self._reported.add(event.model)
        has_expired = event.ttl is not None and event.idle >= event.ttl
        _log.warning(
            "%s was unloaded and is loaded again for this request; its last request was %.0f s ago. %s "
            "This warning appears once for each model; `ModelEvicted` reports each case.",
            event.model,
            event.idle,
            TTL_EXPIRED.format(event.ttl) if has_expired else EVICTED.format(", ".join(event.loaded) or "none"),
        )


def _loaded(models: Sequence[ModelInfo]) -> list[str]:
    return [one.id for model in models for one in model.instances]
