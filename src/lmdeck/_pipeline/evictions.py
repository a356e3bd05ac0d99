"""Notice models that unload each other: LM Studio keeps one of the models that it loads on demand.

When a client returns to a model that it used before another one, the server's list tells whether it is still loaded. The list
is looked at once a minute at most. Source: LM Studio docs, `ttl-and-auto-evict.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from msgspec import Struct

from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.exchange import Call, Handler, R, ResponseStream
from lmdeck.events import ModelEvicted
from lmdeck.model_info import ModelInfo

SECONDS_BETWEEN_LOOKS = 60.0
MOST_MODELS = 64


class _Use(Struct, frozen=True):
    """When a model last began to answer, and the `ttl` of that request."""

    at: float
    ttl: float | None


class WatchEvictions:
    """Runs the next handler, and reports models that were unloaded between two of their requests.

    `look_up` is a plan of the server's list, None where there is none.
    """

    def __init__(
        self,
        inner: Handler,
        make_lock: Callable[[], AbstractContextManager[Any]],
        clock: Callable[[], float],
        look_up: Callable[[], Plan[list[ModelInfo] | None]],
        report: Callable[[ModelEvicted], object],
    ) -> None:
        self._inner = inner
        self._make_lock = make_lock
        self._clock = clock
        self._look_up = look_up
        self._report = report
        self.after_fork()

    def after_fork(self) -> None:
        """Start without what the parent process knows."""
        self._lock = self._make_lock()
        self._last = ""
        self._looked_at = -math.inf
        self._used: dict[str, _Use] = {}

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            LMStudioError: What the next handler raises.
        """
        earlier = self._switch(call.model)
        if earlier is not None:
            yield from self._look(call.model, earlier)
        stream = yield from self._inner(call)
        with self._lock:
            if len(self._used) >= MOST_MODELS:
                self._used.clear()
            self._used[call.model] = _Use(self._clock(), call.ttl)
        return stream

    def _switch(self, model: str) -> _Use | None:
        """Return the earlier use of a model if the client returns to it and the list is to be looked at."""
        with self._lock:
            is_return = model != self._last and self._clock() - self._looked_at >= SECONDS_BETWEEN_LOOKS
            self._last = model
            earlier = self._used.get(model) if is_return else None
            if earlier is not None:
                self._looked_at = self._clock()
            return earlier

    def _look(self, model: str, earlier: _Use) -> Plan[None]:
        models = yield from self._look_up()
        named = [each for each in models or () if model in (each.key, *(one.id for one in each.instances))]
        if not named or any(each.instances for each in named):
            return
        idle = self._clock() - earlier.at
        self._report(ModelEvicted(model=model, loaded=_loaded(models or ()), idle=idle, ttl=earlier.ttl))


def _loaded(models: Sequence[ModelInfo]) -> list[str]:
    return [one.id for model in models for one in model.instances]
