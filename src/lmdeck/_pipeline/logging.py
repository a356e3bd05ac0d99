"""A handler that logs requests and answers on `lmdeck.http`, chunks on `lmdeck.stream`.

Bodies are shortened. The token is never logged: `WireRequest` holds it apart from the headers.
"""

from __future__ import annotations

import logging
from typing import Any

from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.exchange import Call, Handler, R, ResponseStream, StreamObserver
from lmdeck.errors import LMStudioError
from lmdeck.events import Chunk

SHOWN_BODY = 2000
_http = logging.getLogger("lmdeck.http")
_stream = logging.getLogger("lmdeck.stream")


class LogTraffic:
    """Logs each request and its answer."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            LMStudioError: What the next handler raises.
        """
        return (
            self._log_call(call)
            if _http.isEnabledFor(logging.DEBUG) or _stream.isEnabledFor(logging.DEBUG)
            else self._inner(call)
        )

    def _log_call(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        request = call.request
        _http.debug("%s > %s %s %s", call.request_id, request.method, request.url, _shortened(request.body))
        try:
            stream = yield from self._inner(call)
        except LMStudioError as error:
            _http.debug("%s ! %s: %s", call.request_id, type(error).__name__, error.message)
            raise
        seconds = stream.measured().total_time
        _http.debug("%s < %d, started after %.3f s", call.request_id, stream.response.status, seconds)
        if _stream.isEnabledFor(logging.DEBUG):
            stream.observe(_ChunkLog(stream))
        return stream


class _ChunkLog(StreamObserver):
    """Logs each chunk of one response and its duration."""

    def __init__(self, stream: ResponseStream[Any]) -> None:
        self._stream = stream

    def on_chunks(self, chunks: list[Chunk]) -> None:
        """Log each chunk."""
        for chunk in chunks:
            _stream.debug("%s %s", self._stream.call.request_id, chunk)

    def on_finished(self) -> None:
        """Log the duration."""
        _stream.debug("%s finished after %.3f s", self._stream.call.request_id, self._stream.measured().total_time)


def _shortened(body: bytes | None) -> str:
    if not body:
        return ""
    text = body[:SHOWN_BODY].decode("utf-8", "replace")
    return text if len(body) <= SHOWN_BODY else f"{text}… ({len(body)} bytes)"


def log_to_stderr() -> None:
    """Turn on debug logging, as for `debug=True`.

    It goes to the existing handlers, or to standard error if there are none.
    """
    logger = logging.getLogger("lmdeck")
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        logger.addHandler(handler)
