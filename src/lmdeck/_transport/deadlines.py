"""The time limits of one answer, and how much of them is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from lmdeck._transport import Timeouts
from lmdeck.errors import RequestTimeoutError, TimeoutPhase


class Deadlines:
    """The time limits of one request, measured from its sending: first byte, silence, total."""

    __slots__ = ("_clock", "_first_byte_by", "_silence", "_timeouts", "all_by", "has_bytes")

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeouts = timeouts
        self._clock = clock
        start = clock()
        self._first_byte_by = start + timeouts.first_token
        self.all_by = None if timeouts.total is None else start + timeouts.total
        self.has_bytes = False  # whether bytes of the body were read, so that the limit between two reads applies
        self._silence = timeouts.idle

    def remaining(self) -> tuple[float, TimeoutPhase]:
        """Return the remaining seconds for the next byte, and the limit that they belong to.

        Raises:
            RequestTimeoutError: A limit is exceeded.
        """
        phase: TimeoutPhase = "idle"
        remaining = self._silence
        if not self.has_bytes:
            remaining, phase = self._first_byte_by - self._clock(), "first_token"
        if self.all_by is not None and (rest := self.all_by - self._clock()) < remaining:
            remaining, phase = rest, "total"
        if remaining <= 0:
            raise self.expired(phase)
        return remaining, phase

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or stop allowing them.

        A tool call that is being generated may arrive in one piece.
        """
        limits = self._timeouts
        self._silence = max(limits.idle, limits.first_token) if wanted else limits.idle

    def expired(self, phase: TimeoutPhase) -> RequestTimeoutError:
        """Return the error of an exceeded limit."""
        seconds = {
            "connect": self._timeouts.connect,
            "first_token": self._timeouts.first_token,
            "idle": self._silence,
            "total": self._timeouts.total or 0.0,
        }[phase]
        words = {
            "connect": "The server did not accept the connection within",
            "first_token": "The server did not send the first byte of its answer within",
            "idle": "In the middle of its answer, the server sent nothing for",
            "total": "The answer was not complete within",
        }
        return RequestTimeoutError(f"{words[phase]} {seconds:g} s.", phase=phase, seconds=seconds)
