"""A handler that logs: each request and answer on `lmdeck.http`, each chunk on `lmdeck.stream`.

Bodies are shortened, and the token is in none of it: it travels beside the headers, never in them.
"""

from __future__ import annotations

import logging

from lmdeck._pipeline import Call, Handler, Plan
from lmdeck._pipeline.exchange import Answer
from lmdeck.errors import LMStudioError

__all__ = ["Trace", "log_to_stderr"]

SHOWN_BODY = 2000
_http = logging.getLogger("lmdeck.http")


class Trace:
    """Log what goes out through the next handler and what comes back."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    def __call__(self, call: Call) -> Plan[Answer]:
        """Plan the call, logged.

        Raises:
            LMStudioError: What the next handler raises.
        """
        request = call.request
        if _http.isEnabledFor(logging.DEBUG):
            _http.debug("%s > %s %s %s", call.request_id, request.method, request.url, _shortened(request.body))
        try:
            answer = yield from self._inner(call)
        except LMStudioError as error:
            _http.debug("%s ! %s: %s", call.request_id, type(error).__name__, error.message)
            raise
        times = answer.measured()
        _http.debug("%s < %d, begun after %.3f s", call.request_id, answer.response.status, times.total_time)
        return answer


def _shortened(body: bytes | None) -> str:
    if not body:
        return ""
    text = body[:SHOWN_BODY].decode("utf-8", "replace")
    return text if len(body) <= SHOWN_BODY else f"{text}… ({len(body)} bytes)"


def log_to_stderr() -> None:
    """Turn lmdeck's logging on, as `debug=True` asks: to the handlers there are, or else to standard error."""
    logger = logging.getLogger("lmdeck")
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        logger.addHandler(handler)
