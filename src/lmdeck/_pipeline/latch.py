"""A latch: requests wait until it opens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from lmdeck._pipeline.effects import Slot


class Latch:
    """A latch that opens once; then all that wait for it are granted a slot. Thread-safe."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._waiting: deque[Slot] = deque()
        self._is_open = False

    def enqueue(self, wake: Callable[[], object]) -> Slot:
        """Return a slot that waits; it is granted at once if the latch is open."""
        slot = Slot(wake, None)
        with self._lock:
            slot.is_granted = self._is_open
            if not self._is_open:
                self._waiting.append(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Stop waiting."""
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
