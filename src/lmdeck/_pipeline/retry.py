"""Retries: the policy as data, and the handler that follows it.

A request is sent again only if no chunk of its answer has been returned.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator

from msgspec import Struct

from lmdeck._event_bus import EventBus
from lmdeck._pipeline.calls import Call, Handler, R, ResponseStream
from lmdeck._pipeline.effects import Plan, Sleep
from lmdeck.config import Settings
from lmdeck.errors import APIError, LMStudioError, RateLimitError, RequestTimeoutError, ServerUnreachableError

_log = logging.getLogger("lmdeck.http")
STILL_LOADING = "The server is still loading its model: wait, or increase `first_token_timeout`."
NOT_REPEATED = (
    "The server may have started the work, so the request was not sent again: check its effect before you repeat it."
)
MIN_PAUSE, MAX_PAUSE = 0.2, 2.0  # seconds between two requests to a server that is loading
GATEWAY_TIMEOUTS = frozenset({504, 524})  # 524 is Cloudflare's


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Exponential backoff with jitter; `attempts` counts the first try, times are seconds.

    While the server loads its model, the request is repeated for up to `loading` seconds, which does not count as attempts.
    Otherwise a delay is `delay · 2ⁿ`, at most `max_delay`, plus a random fraction of it up to `jitter`.
    """

    attempts: int = 3
    delay: float = 0.1
    max_delay: float = 5.0
    jitter: float = 0.25
    max_retry_after: float = 60.0
    loading: float = 0.0

    @classmethod
    def from_settings(cls, settings: Settings) -> RetryPolicy:
        """Return the policy that the settings describe."""
        return cls(attempts=settings.retry_attempts, delay=settings.retry_delay, loading=settings.first_token_timeout)

    def waits_while_loading(self, total: float | None) -> Iterator[float]:
        """Yield the waits for a server that loads its model.

        Their sum is `loading` seconds, or the call's own limit `total` if that is shorter.
        """
        remaining = self.loading if total is None else min(self.loading, total)
        pause = MIN_PAUSE
        while remaining > 0:
            yield min(pause, remaining)
            remaining -= pause
            pause = min(pause * 1.5, MAX_PAUSE)

    def delays(self, rng: Callable[[], float] = random.random) -> Iterator[float]:
        """Yield the wait before each further attempt."""
        for attempt in range(self.attempts - 1):
            yield min(self.delay * 2 ** min(attempt, 30), self.max_delay) * (1 + self.jitter * rng())

    def wait(self, delay: float, error: LMStudioError, *, has_effects: bool = False) -> float | None:
        """Return the wait after `error`, or None if the request must not be sent again.

        A server's `Retry-After` takes precedence over the schedule; above `max_retry_after`, the error is raised at once.
        A request with effects is sent again only if the server cannot have started its work.
        """
        if isinstance(error, APIError) and error.status in GATEWAY_TIMEOUTS:
            return None  # the model is still working on the first request
        if not error.retryable or (has_effects and may_have_started(error)):
            return None
        retry_after = error.retry_after if isinstance(error, APIError) else None
        if retry_after is None:
            return delay
        return None if retry_after > self.max_retry_after else max(retry_after, delay)


def may_have_started(error: LMStudioError) -> bool:
    """Whether the server may have started the work of a failed request.

    It may if it was reached and did not refuse at once.
    """
    if isinstance(error, RequestTimeoutError):
        return error.phase != "connect"
    refused_at_once = isinstance(error, RateLimitError) and error.status == 429  # 200 if the error came inside a stream
    return not (refused_at_once or isinstance(error, ServerUnreachableError))


class Retry:
    """A handler that runs the next one, and again after a wait according to the policy."""

    def __init__(
        self, inner: Handler, policy: RetryPolicy, rng: Callable[[], float] = random.random, bus: EventBus | None = None
    ) -> None:
        self._bus = EventBus() if bus is None else bus
        self._inner = inner
        self._policy = policy
        self._rng = rng

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the attempts.

        Raises:
            LMStudioError: The error of the last attempt; `attempts` is their number.
        """
        delays: Iterator[float] | None = None
        loading: Iterator[float] | None = None
        attempt = 1
        while True:
            try:
                stream = yield from self._inner(call)
            except LMStudioError as error:
                from lmdeck._responses.api_errors import is_loading  # imported late, as the event: few requests fail
                from lmdeck.events import RequestRetried

                error.attempts = attempt
                if is_loading(error):
                    loading = loading or self._policy.waits_while_loading(call.request.timeouts.total)
                    wait = next(loading, None)
                else:
                    delays = delays or self._policy.delays(self._rng)
                    delay = next(delays, None)
                    wait = None if delay is None else self._policy.wait(delay, error, has_effects=call.has_effects)
                if wait is None:
                    is_late = loading is not None and isinstance(error, RequestTimeoutError)
                    _explain(error, call, still_loading=is_late or is_loading(error))
                    raise
                self._bus.emit(RequestRetried(request_id=call.request_id, attempt=attempt, wait=wait, error=error))
                _log.info("%s attempt %d failed, retrying in %.2f s: %s", call.request_id, attempt, wait, error.message)
            else:
                stream.attempts = attempt
                if stream.failure is not None:
                    stream.failure.attempts = attempt
                return stream
            yield Sleep(wait)
            attempt += 1


def _explain(error: LMStudioError, call: Call[R], *, still_loading: bool) -> None:
    """Explain in the hint why a request that may succeed later was not sent again."""
    if still_loading:
        error.hint = STILL_LOADING
    elif call.has_effects and error.retryable and may_have_started(error):
        error.hint = f"{error.hint} {NOT_REPEATED}"
