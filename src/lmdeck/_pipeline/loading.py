"""One request first while its model is not loaded: LM Studio loads a model once for each that comes meanwhile (bug #1751).

The first request for a model goes at once. A second one that comes before the first byte of its answer has the server's list
looked at: where the model is not loaded, it and all the others wait for that byte; else nobody does. Nothing is asked for where
requests come one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from lmdeck._pipeline.effects import Acquire, Plan
from lmdeck._pipeline.exchange import Call, Handler, R, ResponseStream
from lmdeck._pipeline.semaphore import Slot

READY_SECONDS = 30.0


class Loading:
    """Who waits for one model: the first request is on its way, and the list is looked at once."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._waiting: deque[Slot] = deque()
        self._is_over = False
        self.is_looked_at = False
        self.is_cold = False

    def enqueue(self, wake: Callable[[], object]) -> Slot:
        """Wait for the first byte; `is_granted` is True at once where it has come."""
        slot = Slot(wake, None)
        with self._lock:
            slot.is_granted = self._is_over
            if not self._is_over:
                self._waiting.append(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Wait no longer."""
        with self._lock:
            if slot in self._waiting:
                self._waiting.remove(slot)

    def end(self) -> None:
        """Let all who wait go on."""
        with self._lock:
            self._is_over = True
            waiting, self._waiting = self._waiting, deque()
            for slot in waiting:
                slot.is_granted = True
        for slot in waiting:
            slot.wake()


class LoadOnce:
    """Let one request for a model that is not loaded go first, and run the next handler.

    `is_loaded` looks at the server's list; `loaded` is told of a model that was loaded for a request.
    """

    def __init__(
        self,
        inner: Handler,
        make_lock: Callable[[], AbstractContextManager[Any]],
        clock: Callable[[], float],
        is_loaded: Callable[[str], Plan[bool]],
        loaded: Callable[[], object],
    ) -> None:
        self._inner = inner
        self._make_lock = make_lock
        self._clock = clock
        self._is_loaded = is_loaded
        self._loaded = loaded
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with nobody waiting; in a forked process those are the parent's."""
        self._lock = self._make_lock()
        self._loading: dict[str, Loading] = {}
        self._ready_until: dict[str, float] = {}

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Plan the call, after the one that loads its model.

        Raises:
            LMStudioError: What the next handler raises.
        """
        model = call.model
        while not self._is_ready(model):
            first, loading = self._begin(model)
            if first:
                return (yield from self._go_first(call, loading))
            yield from self._look(model, loading)
            yield Acquire(loading)
        stream = yield from self._inner(call)
        self._ready_until[model] = self._clock() + READY_SECONDS
        return stream

    def note_loaded(self, models: Iterable[str]) -> None:
        """Note which models a list just named as loaded."""
        self._ready_until |= dict.fromkeys(models, self._clock() + READY_SECONDS)

    def _is_ready(self, model: str) -> bool:
        return self._clock() < self._ready_until.get(model, 0.0)

    def _begin(self, model: str) -> tuple[bool, Loading]:
        """Join the loading of a model; whether this is its first request is told, too."""
        with self._lock:
            loading = self._loading.get(model)
            if loading is not None:
                return False, loading
            loading = self._loading[model] = Loading(self._make_lock())
            return True, loading

    def _go_first(self, call: Call[R], loading: Loading) -> Plan[ResponseStream[R]]:
        try:
            stream = yield from self._inner(call)
            self._note_ready(call.model, loading)
        finally:  # after a failure the next one goes first
            with self._lock:
                if self._loading.get(call.model) is loading:
                    del self._loading[call.model]
            loading.end()
        return stream

    def _look(self, model: str, loading: Loading) -> Plan[None]:
        """Look once whether the model is loaded: then nobody waits."""
        with self._lock:
            is_mine = not loading.is_looked_at
            loading.is_looked_at = True
        if not is_mine:
            return
        loading.is_cold = not (yield from self._is_loaded(model))
        if not loading.is_cold:
            self._note_ready(model, loading)
            loading.end()

    def _note_ready(self, model: str, loading: Loading) -> None:
        with self._lock:
            if loading.is_cold:  # LM Studio may have unloaded others for it
                self._ready_until.clear()
            self._ready_until[model] = self._clock() + READY_SECONDS
        if loading.is_cold:
            self._loaded()
