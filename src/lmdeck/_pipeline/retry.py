"""Try again where it can help: before anything of an answer was handed on, never after."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from lmdeck._event_bus import EventBus
from lmdeck._pipeline import Call, Handler, Plan, Sleep
from lmdeck._pipeline.exchange import Answer
from lmdeck._pipeline.retry_policy import RetryPolicy, may_have_begun
from lmdeck._responses.api_errors import is_loading
from lmdeck.errors import LMStudioError
from lmdeck.events import RequestFailed, RequestRetried, RequestStarted

__all__ = ["Retry"]

_log = logging.getLogger("lmdeck.http")
STILL_LOADING = "The server is still loading its model: wait, or raise `first_token_timeout`."
NOT_REPEATED = (
    "The server may have begun the work, so the request was not sent again: look at what it did before you repeat it."
)


class Retry:
    """Run the next handler, and again after a wait, as the policy says."""

    def __init__(
        self, inner: Handler, policy: RetryPolicy, rng: Callable[[], float] = random.random, bus: EventBus | None = None
    ) -> None:
        self._bus = EventBus() if bus is None else bus
        self._inner = inner
        self._policy = policy
        self._rng = rng

    def __call__(self, call: Call) -> Plan[Answer]:
        """Plan the attempts.

        Raises:
            LMStudioError: The last attempt's error; its `attempts` says how many there were.
        """
        if self._bus.hears(RequestStarted):
            self._bus.tell(RequestStarted(request_id=call.request_id, method=call.request.method, url=call.request.url))
        delays = self._policy.delays(self._rng)
        loading = self._policy.waits_while_loading(call.request.timeouts.total)
        attempt = 1
        while True:
            try:
                answer = yield from self._inner(call)
            except LMStudioError as error:
                error.attempts = attempt
                if is_loading(error):
                    wait = next(loading, None)
                else:
                    delay = next(delays, None)
                    wait = None if delay is None else self._policy.wait(delay, error, has_effects=call.has_effects)
                if wait is None:
                    _explain(error, call)
                    self._bus.tell(RequestFailed(request_id=call.request_id, error=error))
                    raise
                self._bus.tell(RequestRetried(request_id=call.request_id, attempt=attempt, wait=wait, error=error))
                _log.info("%s attempt %d failed, again in %.2f s: %s", call.request_id, attempt, wait, error.message)
            else:
                answer.attempts = attempt
                return answer
            yield Sleep(wait)
            attempt += 1


def _explain(error: LMStudioError, call: Call) -> None:
    """Say in the hint why a request that might have succeeded later was not sent again."""
    if is_loading(error):
        error.hint = STILL_LOADING
    elif call.has_effects and error.retryable and may_have_begun(error):
        error.hint = f"{error.hint} {NOT_REPEATED}"
