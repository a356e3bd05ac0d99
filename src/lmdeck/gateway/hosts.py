"""The hosts behind the gateway: their loaded models, running requests and availability."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from lmdeck._client.plans.health import check_health
from lmdeck._client.plans.model_lists import Listing, ask_listing
from lmdeck._client.session import Session
from lmdeck._pipeline.retry import RetryPolicy
from lmdeck._pipeline.run_plan import drive_async
from lmdeck._transport import AsyncTransport
from lmdeck.config import Settings
from lmdeck.errors import LMStudioError
from lmdeck.gateway.breaker import Breaker
from lmdeck.gateway.config import Config, HostConfig
from lmdeck.model_info import ModelInfo
from lmdeck.observe.failure_recordings import RecordFailures

__all__ = ["DEFAULT_PARALLEL", "Host"]

DEFAULT_PARALLEL = 4
FRESH_SECONDS = 0.25
NO_LIMIT = 1 << 30
_log = logging.getLogger("lmdeck.gateway")


class Host:
    """One LM Studio server.

    `models` are those of its last list, `running` counts the gateway's requests by model. `is_up` is whether it answered the
    last poll. `cold` are the models that a first request may be loading now; others wait for its first byte, or until the
    list says that the model is loaded.
    """

    def __init__(
        self,
        config: HostConfig,
        gateway: Config,
        transport: AsyncTransport,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.clock = clock
        self.transport = transport
        limits = gateway.timeouts
        settings = Settings(
            base_url=config.url,
            api_token=config.token,
            timeout=limits.idle,
            first_token_timeout=limits.first_token,
            connect_timeout=limits.connect,
            total_timeout=limits.total,
            max_concurrency=NO_LIMIT,  # the gateway has its own queue
        )
        recorders = [RecordFailures(gateway.store.recordings)] if gateway.store.recordings else []
        self.session = Session(settings, retry=RetryPolicy(attempts=1, loading=limits.first_token), handlers=recorders)
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
        self.cold: set[str] = set()
        self.loading: str | None = None
        self.unloading: str | None = None
        self.reserved_for: str | None = None
        self.loads_explicitly = False
        self.load_errors: dict[str, tuple[LMStudioError, float]] = {}
        self.is_being_looked_at = False
        self.changes = 0
        self._answering: Counter[str] = Counter()
        self._assumed_loaded: dict[str, float] = {}
        self._seen_loaded: dict[str, float] = {}

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self.config.name

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
        given = () if info is None else (info.key, info.selected_variant, info.quantization)
        return " ".join(str(part) for part in given if part) or model

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
        if self.reserved_for not in (None, key) or key in self.cold or key == self.unloading:
            return 0
        return self.parallel(model) - self.running[key]

    def is_surely_loaded(self, model: str) -> bool:
        """Whether a model generates an answer now, or was seen loaded just now.
        LM Studio unloads idle models on its own.
        """
        key = self.key_of(model)
        return self._answering[key] > 0 or self.clock() - self._seen_loaded.get(key, -FRESH_SECONDS) < FRESH_SECONDS

    def load(self, model: str) -> float:
        """Return how busy the host is with a model: running answers by parallelism and weight."""
        return sum(self.running.values()) / (self.parallel(model) * self.config.weight)

    def loaded_keys(self) -> list[str]:
        """Return the keys of the loaded models."""
        return list({info.key: None for info in self.models.values() if self.is_loaded(info.key)})

    def load_error(self, model: str) -> LMStudioError | None:
        """Return why the host could not load a model recently."""
        error, until = self.load_errors.get(self.key_of(model), (None, 0.0))
        return error if self.clock() < until else None

    def note_loaded(self, model: str) -> None:
        """Record that a model has answered and is therefore loaded, until the next list says so."""
        key = self.key_of(model)
        self._assumed_loaded[key] = self._seen_loaded[key] = self.clock()
        self.load_errors.pop(key, None)

    def note_answering(self, model: str, change: int) -> None:
        """Record that an answer of a model has begun (1) or ended (-1)."""
        self._answering[self.key_of(model)] += change

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
        try:
            listing = await drive_async(ask_listing(self.session, self.session.once), self.transport)
            if not self.product:
                health = await drive_async(check_health(self.session), self.transport)
                self.product, self.version = health.product or "", health.version
        except LMStudioError as error:
            self._note_down(error)
            return False
        if changes == self.changes:  # else the list may be older than what the gateway has done itself
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

    def note_unreachable(self, error: LMStudioError) -> None:
        """Record that nothing listened at the host's address."""
        self.breaker.note_fault(is_down=True)
        self._note_down(error)

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
        loaded = {info.key for info in listing.models if info.loaded}
        self._seen_loaded |= dict.fromkeys(loaded, asked_at)
        self.cold -= loaded
        # An answer that came after the list was asked for knows better.
        self._assumed_loaded = {key: at for key, at in self._assumed_loaded.items() if at >= asked_at}
        if listing.api == "openai":  # lists no instances: what it lists answers
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
