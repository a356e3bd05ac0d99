"""The hosts behind the gateway: their loaded models, running requests and availability."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from lmdeck._pipeline.run_plan import drive_async
from lmdeck._plans.health import check_health
from lmdeck._plans.model_lists import Listing, ask_listing
from lmdeck._transport import AsyncTransport
from lmdeck.errors import (
    APIError,
    AuthenticationError,
    LMStudioError,
    ModelNotFoundError,
    NoModelLoadedError,
    RequestTimeoutError,
    ServerUnreachableError,
    TransportError,
)
from lmdeck.gateway.breaker import Breaker
from lmdeck.gateway.config import Config, HostConfig
from lmdeck.gateway.host_client import HostClient
from lmdeck.model_info import ModelInfo

__all__ = ["DEFAULT_PARALLEL", "Host"]

DEFAULT_PARALLEL = 4
FRESH_SECONDS = 0.25  # how recently a model must have been listed as loaded to be sent a request without a check
ARRIVAL_SECONDS = 0.05  # the longest time that a request takes to reach the host
MAX_MISSED = 3  # polls in a row that a busy host may leave unanswered
POLL_GAP_SECONDS = 0.1  # the shortest time between two polls for waiting requests
_log = logging.getLogger("lmdeck.gateway")


class Host(HostClient):
    """One LM Studio server, as the scheduler knows it.

    `models` are those of its last list; `running` counts the gateway's requests by model; `is_up`: it answered the last poll.
    """

    def __init__(
        self,
        config: HostConfig,
        gateway: Config,
        transport: AsyncTransport,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config, gateway, transport)
        self.clock = clock
        self.breaker = Breaker(gateway.routing.faults, gateway.routing.fault_window, clock)
        self.models: dict[str, ModelInfo] = {}
        self.entries: dict[str, Mapping[str, Any]] = {}
        self.api = ""
        self.product = ""
        self.version: str | None = None
        self.is_up = False
        self.granted_at = 0.0
        self.first_poll = asyncio.Event()
        self.error = ""
        self.running: Counter[str] = Counter()
        self.last_used: dict[str, float] = {}
        self.loading: str | None = None
        self.unloading: str | None = None
        self.reserved_for: str | None = None
        self.loads_explicitly = False
        self.load_errors: dict[str, tuple[LMStudioError, float]] = {}
        self.is_being_polled = False
        self.changes = 0
        self.polled_at = 0.0
        self._missed = 0
        self._sent: dict[str, dict[int, float]] = {}
        self._assumed_loaded: dict[str, float] = {}
        self._seen_loaded: dict[str, float] = {}

    @property
    def is_usable(self) -> bool:
        """Whether the host may get new requests."""
        return self.is_up and self.breaker.allows and not self.config.drain

    def has(self, model: str) -> bool:
        """Whether the host lists a model, by its key or the id of an instance."""
        return model in self.models

    def key_of(self, model: str) -> str:
        """Return the key of a model, which may be named by the id of an instance."""
        info = self.models.get(model)
        return model if info is None else info.key

    def variant_of(self, model: str) -> str:
        """Return the key, variant and quantization of a model, as far as the host lists them."""
        info = self.models.get(model)
        parts = () if info is None else (info.key, info.selected_variant, info.quantization)
        return " ".join(str(part) for part in parts if part) or model

    def is_loaded(self, model: str) -> bool:
        """Whether a model is loaded, by the last list or by an answer since."""
        info = self.models.get(model)
        return info is not None and (info.loaded or info.key in self._assumed_loaded)

    def parallel(self, model: str) -> int:
        """Return how many answers of a model the host generates at once."""
        if self.config.parallel is not None:
            return self.config.parallel
        info = self.models.get(model)
        instances = () if info is None else info.instances
        named = next((each.parallel for each in instances if each.id == model and each.parallel), None)
        return named or next((each.parallel for each in instances if each.parallel), None) or DEFAULT_PARALLEL

    def free_slots(self, model: str) -> int:
        """Return how many more answers of a loaded model the host can generate now."""
        key = self.key_of(model)
        if self.reserved_for not in (None, key) or key == self.unloading:
            return 0
        return self.parallel(model) - self.running[key]

    def may_be_loading(self, model: str) -> bool:
        """Whether a running request may be loading the model.

        Another request would load it again (LM Studio's bug #1751).

        It is not if the model has answered, or was listed as loaded, since the oldest running request arrived: a model that
        generates is not unloaded, but an idle one may have been, whatever an older list says.
        """
        key = self.key_of(model)
        oldest = next(iter(self._sent.get(key, {}).values()), None)
        return oldest is not None and self._seen_loaded.get(key, -1.0) < oldest

    @property
    def may_be_loading_any(self) -> bool:
        """Whether a running request may be loading a model."""
        return any(map(self.may_be_loading, self._sent))

    def was_just_loaded(self, model: str) -> bool:
        """Whether a model was seen loaded a moment ago."""
        return self.clock() - self._seen_loaded.get(self.key_of(model), -FRESH_SECONDS) < FRESH_SECONDS

    def needs_poll(self) -> bool:
        """Whether a poll is due for the requests that wait for a new list."""
        return not self.is_being_polled and self.clock() - self.polled_at >= POLL_GAP_SECONDS

    def utilization(self, model: str) -> float:
        """Return the running answers divided by the parallelism of a model and the host's weight."""
        return sum(self.running.values()) / (self.parallel(model) * self.config.weight)

    def loaded_keys(self) -> list[str]:
        """Return the keys of the loaded models."""
        return list({info.key: None for info in self.models.values() if self.is_loaded(info.key)})

    def load_error(self, model: str) -> LMStudioError | None:
        """Return the error of the last attempt to load a model, while it is recent; None otherwise."""
        error, until = self.load_errors.get(self.key_of(model), (None, 0.0))
        return error if self.clock() < until else None

    def note_loaded(self, model: str) -> None:
        """Record that a model has answered and is therefore loaded, until the next list says so."""
        key = self.key_of(model)
        self._assumed_loaded[key] = self._seen_loaded[key] = self.clock()
        self.load_errors.pop(key, None)

    def note_sent(self, key: str, request: int) -> None:
        """Record that a request for a model is sent."""
        self.running[key] += 1
        if key:
            self._sent.setdefault(key, {})[request] = self.clock()

    def note_ended(self, key: str, request: int) -> None:
        """Record that a request has ended."""
        self.running[key] -= 1
        self.last_used[key] = self.clock()
        sent = self._sent.get(key, {})
        sent.pop(request, None)
        if not sent:
            self._sent.pop(key, None)

    def note_failure(self, model: str, error: LMStudioError) -> None:
        """Record a failed request: count a fault, or correct what is known about the models."""
        if isinstance(error, ServerUnreachableError):
            self.breaker.note_fault(is_down=True)
            self._note_down(error)
        elif isinstance(error, (TransportError, AuthenticationError)):
            self.breaker.note_fault()
        elif isinstance(error, (ModelNotFoundError, NoModelLoadedError)):
            self.note_unloaded(model)
            self.loads_explicitly = self.api == "v1"
        elif isinstance(error, APIError) and error.status >= 500:
            self.breaker.note_fault()

    def note_unloaded(self, model: str) -> None:
        """Record that a model is no longer loaded, until the next list says so."""
        self.changes += 1
        key = self.key_of(model)
        self._assumed_loaded.pop(key, None)
        self._seen_loaded.pop(key, None)
        for name, info in list(self.models.items()):
            if info.key == key:
                self.models[name] = _without_instances(info)

    async def poll(self) -> bool:
        """Fetch the model list; return whether the host answered."""
        asked_at, changes = self.clock(), self.changes
        self.polled_at = asked_at
        try:
            listing = await drive_async(ask_listing(self.session, self.session.once), self.transport)
            if not self.product:
                health = await drive_async(check_health(self.session), self.transport)
                self.product, self.version = health.product or "", health.version
        except LMStudioError as error:
            self._missed += 1
            is_busy = isinstance(error, RequestTimeoutError) and self.running.total() > 0 and self._missed < MAX_MISSED
            if not (self.is_up and is_busy):
                self._note_down(error)
            return self.is_up
        self._missed = 0
        if changes == self.changes:  # else the list may be older than a change made by the gateway
            self._learn(listing, asked_at)
        if not self.is_up:
            _log.info("host %s is up: %s", self.name, self.product, extra={"host": self.name})
        self.is_up, self.error = True, ""
        self.first_poll.set()
        self.breaker.note_probe()
        return True

    def _note_down(self, error: LMStudioError) -> None:
        if self.is_up or not self.first_poll.is_set():
            _log.warning("host %s is down: %s", self.name, error.message, extra={"host": self.name})
        self.is_up, self.error = False, error.message
        self.first_poll.set()
        self._assumed_loaded.clear()

    def _learn(self, listing: Listing, asked_at: float) -> None:
        self.api = listing.api
        self.models = {
            name: info for info in listing.models for name in (info.key, *(one.id for one in info.instances))
        }
        body = listing.body if isinstance(listing.body, Mapping) else {}
        entries = body.get("models" if listing.api == "v1" else "data") or ()
        self.entries = {
            str(entry.get("key") or entry.get("id")): entry for entry in entries if isinstance(entry, Mapping)
        }
        # Other servers than LM Studio list what they serve.
        loaded = {info.key for info in listing.models if info.loaded or listing.api == "openai"}
        self._seen_loaded |= dict.fromkeys(loaded, asked_at - ARRIVAL_SECONDS)
        # An answer that arrived after the list was requested is newer than the list.
        self._assumed_loaded = {key: at for key, at in self._assumed_loaded.items() if at >= asked_at}
        if listing.api == "openai":  # such a list has no instances, and every listed model can answer
            self._assumed_loaded |= {info.key: asked_at for info in listing.models}

    def status(self) -> dict[str, Any]:
        """Return the host's state for `/gateway/status`."""
        return {
            "name": self.name,
            "url": self.config.url,
            "up": self.is_up,
            "draining": self.config.drain,
            "breaker": self.breaker.state,
            "product": self.product or None,
            "version": self.version,
            "error": self.error or None,
            "weight": self.config.weight,
            "running": sum(self.running.values()),
            "loading": self.loading,
            "models": {
                info.key: {
                    "loaded": self.is_loaded(info.key),
                    "running": self.running[info.key],
                    "parallel": self.parallel(info.key),
                }
                for info in self.models.values()
            },
        }


def _without_instances(info: ModelInfo) -> ModelInfo:
    return replace(info, instances=[])
