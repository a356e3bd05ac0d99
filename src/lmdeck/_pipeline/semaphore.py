"""A fair semaphore that threads and tasks share, and a latch that they wait for.

The semaphore is first come, first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from msgspec import Struct


class Slot(Struct, eq=False):
    """A place in the queue; `wake` is called once, from the thread that freed a slot."""

    wake: Callable[[], object]
    owner: object
    is_granted: bool = False


class Latch:
    """Opens once; everyone who waits for it is then granted a slot. Thread-safe."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._waiting: deque[Slot] = deque()
        self._is_open = False

    def enqueue(self, wake: Callable[[], object]) -> Slot:
        """Return a place among those that wait; `is_granted` is True at once if the latch is open."""
        slot = Slot(wake, None)
        with self._lock:
            slot.is_granted = self._is_open
            if not self._is_open:
                self._waiting.append(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Leave the waiting ones."""
        with self._lock:
            if slot in self._waiting:
                self._waiting.remove(slot)

    def open(self) -> None:
        """Grant the slots of all that wait."""
        with self._lock:
            self._is_open = True
            waiting, self._waiting = self._waiting, deque()
            for slot in waiting:
                slot.is_granted = True
        for slot in waiting:
            slot.wake()


class FairSemaphore:
    """A semaphore of `limit` slots, granted in the order of the requests; thread-safe.

    `owner` identifies the calling thread or task. An owner that already holds every running slot (streams that it has not
    closed) is granted another in spite of the limit, because it would wait for itself. A limit of None is
    unknown: then one slot is granted.
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
        """Start empty in a forked process: the slots and the lock belong to threads of the parent."""
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
        """Return a place at the end of the queue; `is_granted` is True at once if a slot is free."""
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
