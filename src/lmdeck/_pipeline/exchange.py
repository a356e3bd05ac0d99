"""The innermost handler: send a request, read its response up to the first chunks, log both.

Until the first chunks, the caller has received nothing, so an outer handler may still send the request again. Requests and
answers are logged on `lmdeck.http`, chunks on `lmdeck.stream`. Bodies are shortened, and secrets in them removed. The token is
never logged: in a `WireRequest`, it is separate from the headers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._pipeline.calls import Call, R, ResponseStream, locate
from lmdeck._pipeline.effects import Plan, Read, Send
from lmdeck._transport import Response
from lmdeck.errors import APIError, LMStudioError, MalformedStreamError, TransportError

MAX_BODY_CHARS = 2000
_http = logging.getLogger("lmdeck.http")
_stream = logging.getLogger("lmdeck.stream")


class Exchange:
    """A handler that sends a request and reads its response up to the first chunks."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of one attempt.

        Raises:
            LMStudioError: The error that prevented the answer.
        """
        is_logged = _http.isEnabledFor(logging.DEBUG) or _stream.isEnabledFor(logging.DEBUG)
        if is_logged:
            _log_request(call)
        try:
            answer: ResponseStream[R] | Response = yield Send(call.request, partial(self._begin, call, self._clock()))
            if not isinstance(answer, ResponseStream):
                raise (yield from _refusal(call, answer))
        except LMStudioError as error:
            locate(error, call, 1)
            _http.debug("%s ! %s: %s", call.request_id, type(error).__name__, error.message)
            raise
        if is_logged:
            _log_answer(answer)
        return answer

    def _begin(self, call: Call[R], started: float, response: Response) -> ResponseStream[R] | None:
        """Return the stream of a response, or None if it is an error.

        Raises:
            MalformedStreamError: The body has a content coding that was not decoded.
        """
        call.peer.read_headers(response.headers)
        if not 200 <= response.status < 300:
            return None
        if response.undecoded:
            raise MalformedStreamError(
                f"The answer's body has the content coding {response.undecoded!r}, which was not requested and cannot be "
                "decoded.",
                hint="Disable compression in the proxy in front of the server.",
            )
        reader = call.make_reader(response.status, response.headers)
        return ResponseStream(call, response, reader, self._clock, started)


def _refusal(call: Call[R], response: Response) -> Plan[APIError]:
    """Read the body of an error response, up to a limit, and return the error it means."""
    from lmdeck._responses.api_errors import api_error  # imported late: few answers are errors

    pieces: list[bytes] = []
    size = 0
    try:
        while not response.undecoded and size < DEFAULT_LIMITS.error_body_bytes and (data := (yield Read(response))):
            pieces.append(data)
            size += len(data)
    except (TransportError, MalformedStreamError) as error:
        # the status is enough
        _stream.debug("%s the body of an error response was not read: %s", call.request_id, error.message)
    finally:
        response.close()
    path = urlsplit(call.request.url).path
    return api_error(response.status, b"".join(pieces), response.headers, path=path)


def _log_request(call: Call[R]) -> None:
    request = call.request
    _http.debug("%s > %s %s %s", call.request_id, request.method, request.url, _shortened(request.body))


def _log_answer(answer: ResponseStream[R]) -> None:
    seconds = answer.measured().total_time
    _http.debug("%s < %d, started after %.3f s", answer.call.request_id, answer.response.status, seconds)
    if _stream.isEnabledFor(logging.DEBUG):
        from lmdeck._pipeline.chunk_log import ChunkLog  # imported late: only debug logs need it

        answer.observe(ChunkLog(answer))


def _shortened(body: bytes | None) -> str:
    if not body:
        return ""
    from lmdeck._redaction.exchange import redacted_beginning  # imported late: only debug logs need it

    text = redacted_beginning(body, MAX_BODY_CHARS)
    return text if len(body) <= MAX_BODY_CHARS else f"{text}… ({len(body)} bytes)"


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
