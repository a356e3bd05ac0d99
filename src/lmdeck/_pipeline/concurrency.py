"""Limit simultaneous answers; further requests wait in a queue, first come, first served.

A loaded instance of LM Studio answers `parallel` requests at once, four by default, and queues the rest silently while the
client's time limits run. No time limit applies to a request that waits here, except the caller's. The server's limit is looked
up at the first two simultaneous requests; until then, one may run. If LM Studio does not report its limit, it is assumed to be
four; other servers have their own queue.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from lmdeck._event_bus import EventBus
from lmdeck._pipeline.calls import Call, Handler, R, ResponseStream
from lmdeck._pipeline.effects import Acquire, Plan, Slot

DEFAULT_LIMIT = 4
NO_LIMIT = sys.maxsize
PATIENCE = 10.0
"""Seconds in the queue after which the wait is logged."""

_log = logging.getLogger("lmdeck.http")


class FairSemaphore:
    """A semaphore of `limit` slots, granted in the order of the requests; thread-safe.

    `owner` identifies the calling thread or task. An owner that already holds every running slot (streams that it has not
    closed) is granted another despite the limit, because it would wait for itself. While the limit is unknown (None), one slot
    is granted.
    """

    def __init__(
        self,
        limit: int | None,
        make_lock: Callable[[], AbstractContextManager[Any]],
        owner: Callable[[], object] = object,
    ) -> None:
        self.limit = limit or 1
        """The number of slots that may be held at once; 1 while it is unknown."""
        self._is_known = self._is_fixed = limit is not None
        self._make_lock = make_lock
        self._lock = make_lock()
        self._owner = owner
        self._running: set[Slot] = set()
        self._queue: deque[Slot] = deque()
        self._is_being_learned = False

    def after_fork(self) -> None:
        """Discard the slots and the lock, which in a forked process belong to threads of the parent."""
        self._lock = self._make_lock()
        self._running = set()
        self._queue = deque()
        self._is_being_learned = False

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """The number of slots that are held."""
        return len(self._running)

    def should_learn_limit(self) -> bool:
        """Return True to exactly one caller while the limit is unknown.

        That caller must look it up and call `resize`.
        """
        with self._lock:
            is_first = not (self._is_known or self._is_being_learned)
            self._is_being_learned = self._is_being_learned or is_first
        return is_first

    def resize(self, limit: int) -> None:
        """Set the limit and grant the slots that it frees."""
        with self._lock:
            self.limit, self._is_known = limit, True
            granted = self._grant_waiting()
        for slot in granted:
            slot.wake()

    def forget_limit(self) -> None:
        """Allow the limit to be learned again, unless it is fixed."""
        with self._lock:
            if not self._is_fixed:
                self.limit = 1
                self._is_known = self._is_being_learned = False

    def try_acquire(self) -> Slot | None:
        """Return a slot at once, or None if others are waiting or no slot is free."""
        slot = Slot(_no_wake_up, self._owner())
        with self._lock:
            is_free = not self._queue and len(self._running) < self.limit
            if not is_free and not self._waits_for_itself(slot):
                return None
            slot.is_granted = True
            self._running.add(slot)
        return slot

    def enqueue(self, wake: Callable[[], object]) -> Slot:
        """Return a slot at the end of the queue; it is granted at once if one is free."""
        slot = Slot(wake, self._owner())
        with self._lock:
            self._queue.append(slot)
            granted = self._grant_waiting()
        for other in granted:
            if other is not slot:
                other.wake()
        return slot

    def release(self, slot: Slot) -> None:
        """Return a slot, or leave the queue."""
        with self._lock:
            if slot.is_granted:
                slot.is_granted = False
                self._running.discard(slot)
            elif slot in self._queue:
                self._queue.remove(slot)
            granted = self._grant_waiting() if self._queue else ()
        for other in granted:
            other.wake()

    def _grant_waiting(self) -> list[Slot]:
        granted = []
        while self._queue and len(self._running) < self.limit:
            slot = self._queue.popleft()
            slot.is_granted = True
            self._running.add(slot)
            granted.append(slot)
        return granted

    def _waits_for_itself(self, slot: Slot) -> bool:
        return bool(self._running) and all(other.owner == slot.owner for other in self._running)


def _no_wake_up() -> None:
    """No-op wake-up for a slot that is granted immediately."""


class ConcurrencyLimit:
    """A handler that waits for a slot, and returns it when the response is closed."""

    def __init__(
        self,
        inner: Handler,
        semaphore: FairSemaphore,
        clock: Callable[[], float],
        bus: EventBus,
        look_up_limit: Callable[[], Plan[int | None]] | None = None,
    ) -> None:
        self._inner = inner
        self._semaphore = semaphore
        self._clock = clock
        self._bus = bus
        self._look_up_limit = look_up_limit
        self._has_warned = False

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            LMStudioError: What the next handler raises.
        """
        waited = 0.0
        acquired = self._semaphore.try_acquire()
        if acquired is None:
            queued_at = self._clock()
            yield from self._learn_limit()
            acquired = yield Acquire(self._semaphore, PATIENCE, self._warn)
            waited = self._clock() - queued_at
        slot: Slot = acquired
        try:
            if waited:
                self._publish_wait(call.request_id, waited)
            stream = yield from self._inner(call)
        except BaseException:
            self._semaphore.release(slot)
            raise
        stream.queue_time = waited
        if stream.is_finished:
            self._semaphore.release(slot)
        else:
            stream.when_closed(partial(self._semaphore.release, slot))
        return stream

    def _learn_limit(self) -> Plan[None]:
        """Look up the limit, unless it is known or being looked up; other requests wait meanwhile."""
        if self._look_up_limit is None or not self._semaphore.should_learn_limit():
            return
        limit = None
        try:
            limit = yield from self._look_up_limit()
        finally:
            self._semaphore.resize(limit or DEFAULT_LIMIT)

    def _publish_wait(self, request_id: str, seconds: float) -> None:
        from lmdeck.events import RequestQueued  # imported late: few requests wait

        _log.info("%s waited %.3f s in the queue", request_id, seconds)
        self._bus.emit(RequestQueued(request_id, seconds, self._semaphore.limit))

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "A request has waited in this client's queue for %.0f s: it sends at most %d requests at once, the "
                "number that the model processes in parallel or `max_concurrency`. "
                "This warning appears once; `RequestQueued` reports each wait.",
                PATIENCE,
                self._semaphore.limit,
            )
