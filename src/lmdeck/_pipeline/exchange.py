"""The innermost handler: one request, and its answer up to the first thing that happened in it.

Until then nothing was handed on, so a handler around this one may still try again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._event_bus import EventBus
from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._pipeline import Call, Open, Plan, Read
from lmdeck._responses.api_errors import api_error
from lmdeck._responses.hints import fit_to_product
from lmdeck._responses.json_reader import Reader
from lmdeck._secret import Secret
from lmdeck._transport import Response
from lmdeck.errors import APIError, LMStudioError, MalformedStreamError, TransportError
from lmdeck.events import (
    Chunk,
    ContentReceived,
    ModelLoadProgress,
    ReasoningReceived,
    RequestFailed,
    RequestFinished,
    StreamEnded,
    StreamStarted,
    ToolCallFinished,
    ToolCallStarted,
)
from lmdeck.native_events import ModelLoadProgressEvent
from lmdeck.stats import Measured

__all__ = ["Answer", "Exchange", "locate"]

_log = logging.getLogger("lmdeck.stream")


class Answer:
    """An answer that has begun: its first chunks are in `first`, the rest comes through `take`."""

    def __init__(
        self,
        call: Call,
        response: Response,
        reader: Reader,
        clock: Callable[[], float],
        started: float,
        bus: EventBus | None = None,
    ) -> None:
        self._bus = EventBus() if bus is None else bus
        self.call = call
        self.response = response
        self.reader = reader
        self.attempts = 1
        self.queue_time = 0.0
        self._callbacks: list[Callable[[], object]] = []
        self.first: list[Chunk] = []
        self.is_finished = False
        self.chunks = 0
        self._log_chunks = _log.isEnabledFor(logging.DEBUG)
        self._clock = clock
        self._started = started
        self._first_at: float | None = None
        self._ended_at: float | None = None
        self._failure: LMStudioError | None = None
        self._is_patient = False

    def take(self, data: bytes) -> list[Chunk]:
        """Read bytes of the body, `b""` at its end, and give what happened in them.

        The answer may finish before its body: `[DONE]` ends it, whatever a server does with the connection then. An error
        behind something that happened is raised by `has_more`, so that what happened is handed on first.

        Raises:
            LMStudioError: What the bytes mean, with the reply so far.
        """
        chunks, is_last, failure = self._read(data)
        if failure is not None:
            self._failure = failure
            self.fail(failure, is_last_try=bool(chunks or self.first))
            if not chunks:
                raise failure
        if self.reader.is_in_call is not self._is_patient:
            self._is_patient = not self._is_patient
            self.response.be_patient(wanted=self._is_patient)
        if chunks and self._first_at is None and any(map(_says_something, chunks)):
            self._first_at = self._clock()
            self._tell(StreamStarted, seconds=self._first_at - self._started)
        self.chunks += len(chunks)
        if self._bus.hears(ContentReceived, ReasoningReceived, ToolCallStarted, ToolCallFinished, ModelLoadProgress):
            self._tell_chunks(chunks)
        if self._log_chunks:
            for chunk in chunks:
                _log.debug("%s %s", self.call.request_id, chunk)
        if is_last:
            self._ended_at = self._clock()
            self.is_finished = True
            self._tell_end(self._ended_at - self._started)
            self._tell_finished()
            if self._log_chunks:
                _log.debug("%s whole after %.3f s", self.call.request_id, self._ended_at - self._started)
        return chunks

    def _read(self, data: bytes) -> tuple[list[Chunk], bool, LMStudioError | None]:
        """Return what happened in some bytes, whether that was all, and what went wrong behind it."""
        chunks: list[Chunk] = []
        try:
            chunks += self.reader.feed(data) if data else ()
            failure = self.reader.failure
            is_last = failure is None and (not data or self.reader.is_done)
            if is_last:
                chunks += self.reader.finish()
        except LMStudioError as error:
            return chunks, False, error
        return chunks, is_last, failure

    def has_more(self) -> bool:
        """Whether the answer goes on.

        Raises:
            LMStudioError: What went wrong behind the chunks that were handed on last.
        """
        if self._failure is not None:
            raise self._failure
        return not self.is_finished

    def when_finished(self, callback: Callable[[], object]) -> None:
        """Call back once the answer is whole: now, if it is."""
        self._callbacks.append(callback)
        if self.is_finished:
            self._tell_finished()

    def _tell_finished(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def take_failure(self, error: TransportError) -> list[Chunk]:
        """Read a broken connection: after its finish reason an answer is whole all the same, before it is not.

        Raises:
            LMStudioError: `error` itself, with the reply so far, or what the end of the bytes means.
        """
        if self.reader.is_whole_without_end(error):
            return self.take(b"")
        self.fail(error, is_last_try=bool(self.first))
        raise error

    def fail(self, error: LMStudioError, *, is_last_try: bool) -> None:
        """Close the connection and tell the error where it happened and how far the reply had come."""
        self.response.close()
        if error.partial is None:
            error.partial = self.reader.partial()
        locate(error, self.call, self.attempts)
        if is_last_try:
            self._tell(RequestFailed, error=error)

    def _tell(self, kind: type[Struct], **fields: object) -> None:
        if self._bus.hears(kind):
            self._bus.tell(kind(request_id=self.call.request_id, **fields))

    def _tell_end(self, seconds: float) -> None:
        if self.chunks:
            self._tell(StreamEnded, chunks=self.chunks, seconds=seconds)
        self._tell(RequestFinished, status=self.response.status, attempts=self.attempts, seconds=seconds)

    def _tell_chunks(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            if chunk.content:
                self._tell(ContentReceived, text=chunk.content)
            if chunk.reasoning:
                self._tell(ReasoningReceived, text=chunk.reasoning)
            delta = chunk.tool_call_delta
            if delta is not None and delta.name:
                self._tell(ToolCallStarted, index=delta.index, id=delta.id, name=delta.name)
            if chunk.tool_call is not None:
                self._tell(ToolCallFinished, call=chunk.tool_call)
            if isinstance(chunk.event, ModelLoadProgressEvent):
                self._bus.tell(ModelLoadProgress(chunk.event.model_instance_id, chunk.event.progress))

    def measured(self) -> Measured:
        """Give the times of this answer; they grow until it is finished."""
        end = self._clock() if self._ended_at is None else self._ended_at
        if self._first_at is None:
            return Measured(total_time=end - self._started)
        return Measured(
            time_to_first_token=self._first_at - self._started,
            generation_time=end - self._first_at,
            total_time=end - self._started,
        )


def _says_something(chunk: Chunk) -> bool:
    """Tell an answer's own chunk from an event that only tells of its making."""
    return bool(
        chunk.content or chunk.reasoning or chunk.tool_call or chunk.tool_call_delta or chunk.finish_reason is not None
    )


class Exchange:
    """Send a request and read its answer until something happens in it."""

    def __init__(self, clock: Callable[[], float], bus: EventBus | None = None) -> None:
        self._clock = clock
        self._bus = EventBus() if bus is None else bus

    def __call__(self, call: Call) -> Plan[Answer]:
        """Plan one attempt.

        Raises:
            LMStudioError: Whatever kept the answer from beginning.
        """
        started = self._clock()
        try:
            response: Response = yield Open(call.request)
        except LMStudioError as error:
            locate(error, call, 1)
            raise
        call.peer.hear(response.headers)
        try:
            if response.status >= 300:
                yield from _refuse(call, response)
            _check_coding(response)
            reader = call.make_reader(response.status, response.headers)
            answer = Answer(call, response, reader, self._clock, started, self._bus)
            while not (answer.first or answer.is_finished):
                answer.first = answer.take((yield Read(response)))
        except BaseException as error:  # a cancelled plan, too, lets go of its connection at once
            response.close()
            if isinstance(error, LMStudioError):
                locate(error, call, 1)
            raise
        return answer


def _check_coding(response: Response) -> None:
    """Refuse a body that nobody decoded: a part of it might be taken for words.

    Raises:
        MalformedStreamError: It is still coded.
    """
    if response.undecoded:
        raise MalformedStreamError(
            f"The answer's body is coded as {response.undecoded!r}, which was not asked for and cannot be decoded.",
            hint="Switch off compression in the proxy between here and the server.",
        )


def _refuse(call: Call, response: Response) -> Plan[None]:
    """Read a refusal's body, up to a limit, and raise what it means."""
    pieces: list[bytes] = []
    size = 0
    try:
        while not response.undecoded and size < DEFAULT_LIMITS.error_body_bytes and (data := (yield Read(response))):
            pieces.append(data)
            size += len(data)
    except TransportError as error:
        _log.debug("%s the refusal's body broke: %s", call.request_id, error.message)  # its status says enough
    finally:
        response.close()
    path = urlsplit(call.request.url).path
    raise api_error(response.status, b"".join(pieces), response.headers, path=path)


def locate(error: LMStudioError, call: Call, attempts: int) -> None:
    """Tell an error which request it belongs to, with a hint that fits the server, and without the token of the request."""
    fit_to_product(error, call.peer.product)
    if call.request.api_token is not None:
        _hide(error, call.request.api_token)
    error.request_id = call.request_id
    error.url = call.request.url
    error.attempts = max(error.attempts, attempts)


def _hide(error: LMStudioError, token: Secret) -> None:
    """Take a token that a server quotes out of an error, which is logged and shown."""
    error.message = str(token.hidden_in(error.message))
    error.args = (error.message,)
    error.hint = str(token.hidden_in(error.hint))
    if error.partial is not None:
        error.partial = replace(error.partial, raw=token.hidden_in(error.partial.raw))
    if isinstance(error, APIError):
        error.body = token.hidden_in(error.body)
        error.param, error.code = token.hidden_in(error.param), token.hidden_in(error.code)
