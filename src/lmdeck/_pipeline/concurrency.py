"""Limit simultaneous answers.
Further requests wait in a fair queue, first come, first served.

A loaded instance of LM Studio answers `parallel` requests at once, four by default, and queues the rest silently while the
client's time limits run. No time limit applies to a request that waits here, except the caller's. The server's limit is looked
up when two answers are wanted at once for the first time; until then one may run. Four is assumed if LM Studio does not report
its limit; other servers have their own queue.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from lmdeck._pipeline.effects import Acquire, Plan
from lmdeck._pipeline.exchange import Call, Handler, R, ResponseStream
from lmdeck._pipeline.semaphore import FairSemaphore, Slot
from lmdeck.events import RequestQueued

DEFAULT_LIMIT = 4
NO_LIMIT = sys.maxsize
PATIENCE = 10.0
"""Seconds in the queue after which the wait is logged."""


class ConcurrencyLimit:
    """Waits for a slot, runs the next handler, and returns the slot when the response is closed."""

    def __init__(
        self,
        inner: Handler,
        semaphore: FairSemaphore,
        clock: Callable[[], float],
        notify: Callable[[RequestQueued], object],
        look_up_limit: Callable[[], Plan[int | None]] | None = None,
        on_long_wait: Callable[[], object] | None = None,
    ) -> None:
        self._inner = inner
        self._semaphore = semaphore
        self._clock = clock
        self._notify = notify
        self._look_up_limit = look_up_limit
        self._on_long_wait = on_long_wait

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
            acquired = yield Acquire(self._semaphore, PATIENCE, self._on_long_wait)
            waited = self._clock() - queued_at
        slot: Slot = acquired
        try:
            if waited:
                self._notify(RequestQueued(call.request_id, waited, self._semaphore.limit))
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
        """Look the limit up, unless it is known or being looked up; other requests wait meanwhile."""
        if self._look_up_limit is None or not self._semaphore.should_learn_limit():
            return
        limit = None
        try:
            limit = yield from self._look_up_limit()
        finally:
            self._semaphore.resize(limit or DEFAULT_LIMIT)
