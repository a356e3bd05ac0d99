"""The circuit breaker of a host.

Repeated faults take the host out of rotation until it has answered a probe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

__all__ = ["Breaker", "BreakerState"]

BreakerState: TypeAlias = Literal["closed", "open", "half-open"]


class Breaker:
    """Opens after `faults` faults within `window` seconds, or at once if nothing listens.

    A successful probe makes it half-open: one request is let through, and its result closes or opens the breaker.
    """

    def __init__(self, faults: int, window: float, clock: Callable[[], float]) -> None:
        self._limit = faults
        self._window = window
        self._clock = clock
        self._faults: deque[float] = deque(maxlen=faults)
        self._is_on_trial = False
        self.state: BreakerState = "closed"

    @property
    def allows(self) -> bool:
        """Whether a request may be sent now."""
        return self.state == "closed" or (self.state == "half-open" and not self._is_on_trial)

    def note_sent(self) -> None:
        """Record that a request is sent; in the half-open state it is the trial."""
        self._is_on_trial = self.state == "half-open"

    def note_success(self) -> None:
        """Record an answer."""
        self._is_on_trial = False
        if self.state != "closed":
            self.state = "closed"
            self._faults.clear()

    def note_abandoned(self) -> None:
        """Record that a request ended without a verdict about the host.

        The next one may be the trial.
        """
        self._is_on_trial = False

    def note_fault(self, *, is_down: bool = False) -> None:
        """Record a fault; `is_down` if the host cannot be reached at all."""
        now = self._clock()
        self._faults.append(now)
        is_full = len(self._faults) == self._limit and now - self._faults[0] <= self._window
        if is_down or is_full or self.state == "half-open":
            self.state = "open"
            self._is_on_trial = False

    def note_probe(self) -> None:
        """Record a successful probe."""
        if self.state == "open":
            self.state = "half-open"
            self._is_on_trial = False
