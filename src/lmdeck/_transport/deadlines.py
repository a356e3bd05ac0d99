"""Which time limit an answer is under, and how much of it is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from lmdeck._transport import Timeouts
from lmdeck.errors import RequestTimeoutError, TimeoutPhase

__all__ = ["Deadlines"]


class Deadlines:
    """The limits of one request, counted from its sending: first byte, silence, total.

    While `is_patient`, a silence may be as long as the wait for the first byte.
    """

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeouts = timeouts
        self._clock = clock
        start = clock()
        self._first_byte_by = start + timeouts.first_token
        self.all_by = None if timeouts.total is None else start + timeouts.total
        self._has_bytes = False
        self.is_patient = False

    def note_bytes(self) -> None:
        """Note that the body has begun: from here on silence counts from byte to byte."""
        self._has_bytes = True

    def remaining(self) -> tuple[float, TimeoutPhase]:
        """Give how long the next byte may take, in seconds, and which limit that is.

        Raises:
            RequestTimeoutError: A limit has run out.
        """
        phase: TimeoutPhase = "idle" if self._has_bytes else "first_token"
        now = self._clock()
        left = self._silence if self._has_bytes else self._first_byte_by - now
        if self.all_by is not None and self.all_by - now < left:
            left, phase = self.all_by - now, "total"
        if left <= 0:
            raise self.expired(phase)
        return left, phase

    @property
    def _silence(self) -> float:
        """How long the silence between two bytes may be: longer while a call is written, which may come in one piece."""
        return max(self._timeouts.idle, self._timeouts.first_token) if self.is_patient else self._timeouts.idle

    def expired(self, phase: TimeoutPhase) -> RequestTimeoutError:
        """Make the error of a limit that ran out."""
        seconds = {
            "connect": self._timeouts.connect,
            "first_token": self._timeouts.first_token,
            "idle": self._silence,
            "total": self._timeouts.total or 0.0,
        }[phase]
        words = {
            "connect": "The server did not take the connection within",
            "first_token": "The server sent no first byte of its answer within",
            "idle": "The server fell silent in the middle of its answer for",
            "total": "The answer was not whole within",
        }
        return RequestTimeoutError(f"{words[phase]} {seconds:g} s.", phase=phase, seconds=seconds)
