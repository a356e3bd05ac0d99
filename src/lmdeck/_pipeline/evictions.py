"""Notice models that unload each other.

LM Studio keeps only one of the models that it loads on demand. When a client returns to a model that it used before another
one, the server's list shows whether it is still loaded. The list is looked at once a minute at most. Source: LM Studio docs,
`ttl-and-auto-evict.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.exchange import Call, Handler, R, ResponseStream
from lmdeck._pipeline.loading import ModelUse
from lmdeck.events import ModelEvicted
from lmdeck.model_info import ModelInfo

SECONDS_BETWEEN_LOOKS = 60.0


class WatchEvictions:
    """A handler that reports models that were unloaded between two of their requests.

    `last_use` returns the last request for a model; `look_up` is a plan of the server's list, None where there is none.
    """

    def __init__(
        self,
        inner: Handler,
        make_lock: Callable[[], AbstractContextManager[Any]],
        clock: Callable[[], float],
        last_use: Callable[[str], ModelUse | None],
        look_up: Callable[[], Plan[list[ModelInfo] | None]],
        report: Callable[[ModelEvicted], object],
    ) -> None:
        self._inner = inner
        self._make_lock = make_lock
        self._clock = clock
        self._last_use = last_use
        self._look_up = look_up
        self._report = report
        self.after_fork()

    def after_fork(self) -> None:
        """Start without what the parent process knows."""
        self._lock = self._make_lock()
        self._last = ""
        self._looked_at = -math.inf

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return the plan of the next handler, with a look at the list before it if one is due.

        Raises:
            LMStudioError: What the next handler raises.
        """
        if call.model == self._last:
            return self._inner(call)
        earlier = self._switch(call.model)
        return self._inner(call) if earlier is None else self._look_first(call, earlier)

    def _switch(self, model: str) -> ModelUse | None:
        """Return the earlier use of another model than the last one, if the list is to be looked at."""
        with self._lock:
            self._last = model
            if self._clock() - self._looked_at < SECONDS_BETWEEN_LOOKS:
                return None
            earlier = self._last_use(model)
            if earlier is not None:
                self._looked_at = self._clock()
            return earlier

    def _look_first(self, call: Call[R], earlier: ModelUse) -> Plan[ResponseStream[R]]:
        yield from self._look(call.model, earlier)
        return (yield from self._inner(call))

    def _look(self, model: str, earlier: ModelUse) -> Plan[None]:
        models = yield from self._look_up()
        named = [each for each in models or () if model in (each.key, *(one.id for one in each.instances))]
        if not named or any(each.instances for each in named):
            return
        idle = self._clock() - earlier.at
        self._report(ModelEvicted(model=model, loaded=_loaded(models or ()), idle=idle, ttl=earlier.ttl))


def _loaded(models: Sequence[ModelInfo]) -> list[str]:
    return [one.id for model in models for one in model.instances]
