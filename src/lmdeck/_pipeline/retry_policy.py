"""When to try again: a pure schedule, which a test can read like a table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from msgspec import Struct

from lmdeck.config import Settings
from lmdeck.errors import APIError, LMStudioError

__all__ = ["RetryPolicy"]


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Exponential backoff with jitter; `attempts` counts the first try, times are seconds.

    A delay is `delay · 2ⁿ`, at most `max_delay`, and up to `jitter` of it longer, so that clients do not come back together.
    """

    attempts: int = 3
    delay: float = 0.1
    max_delay: float = 5.0
    jitter: float = 0.25
    max_retry_after: float = 60.0

    @classmethod
    def from_settings(cls, settings: Settings) -> RetryPolicy:
        """Take attempts and first delay from the settings."""
        return cls(attempts=settings.retry_attempts, delay=settings.retry_delay)

    def delays(self, rng: Callable[[], float] = random.random) -> Iterator[float]:
        """Give the wait before each further attempt."""
        for attempt in range(self.attempts - 1):
            yield min(self.delay * 2 ** min(attempt, 30), self.max_delay) * (1 + self.jitter * rng())

    def wait(self, delay: float, error: LMStudioError) -> float | None:
        """Give the wait that `error` asks for, or None where trying again cannot help.

        A server's `Retry-After` wins over the schedule; one above `max_retry_after` means that the caller should know now.
        """
        if not error.retryable:
            return None
        asked = error.retry_after if isinstance(error, APIError) else None
        if asked is None:
            return delay
        return None if asked > self.max_retry_after else max(asked, delay)
