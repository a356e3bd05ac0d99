"""One call of the server as handlers see it: its request, and its response while it is read.

A handler turns a call into the plan of its response. Until the first chunks nothing was returned, so a handler may still send
the request again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Never, Protocol, TypeAlias, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from lmdeck._chunks import Chunk
from lmdeck._pipeline.effects import Plan
from lmdeck._responses.server_detection import Peer
from lmdeck._secret import Secret
from lmdeck._transport import Response, WireRequest
from lmdeck._transport.traceback_secrets import clear_own_locals
from lmdeck.errors import APIError, LMStudioError, StreamError, TransportError
from lmdeck.stats import Measured

if TYPE_CHECKING:
    from lmdeck._redaction.exchange import Redaction
    from lmdeck._responses.json_reader import Reader

R = TypeVar("R", bound="Reader")
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
MAX_SEARCHED_BYTES = 1 << 20
"""How much of a request is searched for secrets that an error may quote."""


class Call(Struct, Generic[R], frozen=True, kw_only=True):
    """A request, its id in logs, and a factory of its response's reader.

    The factory is called with status and headers. `has_effects` marks a request that changes something on the server, so that
    sending it twice would have the effect twice. `peer` is what is known about the server. `ttl` is the time in seconds after
    which it unloads the idle model, or None.
    """

    request: WireRequest
    request_id: str
    make_reader: Callable[[int, Mapping[str, str]], R]
    has_effects: bool = False
    model: str = ""
    peer: Peer = field(default_factory=Peer)
    ttl: float | None = None

    def without_content(self) -> Call[R]:
        """Return the call without headers, body and reader factory.

        Once the answer has started, only the fields that errors and logs use are needed.
        """
        return replace(
            self, request=replace(self.request, headers=NO_HEADERS, body=None), make_reader=_refuse_second_reader
        )


class StreamObserver:
    """An observer of a response that is being read; its methods do nothing unless overridden."""

    def on_data(self, data: bytes) -> None:
        """Called with bytes of the body as they arrived; with `b""` if its end arrived alone."""

    def on_chunks(self, chunks: list[Chunk]) -> None:
        """Called with the chunks of one read."""

    def on_finished(self) -> None:
        """Called at the end of a complete answer."""

    def on_failed(self, error: LMStudioError) -> None:
        """Called with the error that ended the answer."""


class ResponseStream(Struct, Generic[R], eq=False, weakref=True):
    """A response that is being read.

    Its first chunks are in `first_chunks`; `feed` returns the rest.
    """

    call: Call[R]
    response: Response
    reader: R
    _clock: Callable[[], float]
    _started: float
    attempts: int = 1
    queue_time: float = 0.0
    cache: str | None = None  # "hit", "shared" or "miss", if a cache was used
    first_chunks: list[Chunk] = []
    chunk_count: int = 0
    is_finished: bool = False
    failure: LMStudioError | None = None
    _first_data: list[bytes] | None = []
    _observers: tuple[StreamObserver, ...] = ()
    _when_finished: tuple[Callable[[], object], ...] = ()
    _when_closed: tuple[Callable[[], object], ...] = ()
    _first_at: float | None = None
    _ended_at: float | None = None
    _is_patient: bool = False

    @classmethod
    def replay(cls, call: Call[R], status: int, headers: Mapping[str, str], body: bytes) -> ResponseStream[R]:
        """Return a finished response with recorded bytes, for handlers that answer calls themselves.

        Raises:
            LMStudioError: The error that the bytes mean.
        """
        reader = call.make_reader(status, headers)
        stream = cls(call, _RecordedResponse(status, headers), reader, lambda: 0.0, 0.0)
        pieces = chain((body,), repeat(b""))
        while not stream.feed_first(next(pieces)):
            continue
        while stream.has_more():
            stream.first_chunks += stream.feed(next(pieces))
        return stream

    @property
    def is_live(self) -> bool:
        """Whether the response is read from a connection."""
        return not isinstance(self.response, _RecordedResponse)

    @property
    def first_data(self) -> bytes:
        """The bytes that were read for the first chunks; empty once more have been requested."""
        return b"".join(self._first_data or ())

    def feed_first(self, data: bytes) -> bool:
        """Read bytes of the body like `feed`; return whether there are chunks now, or the end."""
        self.first_chunks = self.feed(data)
        return bool(self.first_chunks) or self.is_finished

    def feed(self, data: bytes) -> list[Chunk]:
        """Read bytes of the body, `b""` at its end, and return their chunks.

        The answer may finish before its body: `[DONE]` ends it, even if the server leaves the connection open. An error after
        chunks is raised by `has_more`, so that the chunks are returned first.

        Raises:
            LMStudioError: The error that the bytes mean, with the reply so far.
        """
        chunks, is_last, failure = self._read(data)
        if self._first_data is not None:
            self._first_data.append(data)
        if chunks:
            self.chunk_count += len(chunks)
            if self._first_at is None and (is_last or _is_output(chunks)):  # the last ones have the finish reason
                self._first_at = self._clock()
        if is_last:
            self._ended_at = self._clock()
            self.is_finished = True
        if self._observers:
            self._report(data, chunks)
        if not is_last and self.reader.is_in_call is not self._is_patient:
            self._is_patient = not self._is_patient
            self.response.be_patient(wanted=self._is_patient)
        if failure is not None:
            self._fail(failure)
            if not chunks:
                raise failure
        if is_last and self._when_finished:
            self._run_when_finished()
        return chunks

    def feed_failure(self, error: TransportError) -> list[Chunk]:
        """Read a broken connection: after the finish reason, the answer is nevertheless complete.

        Raises:
            LMStudioError: `error` itself, with the reply so far, or the error that the end of the bytes means.
        """
        if self.reader.is_whole_without_end(error):
            return self.feed(b"")
        self._fail(error)
        raise error

    def take_first_chunks(self) -> list[Chunk]:
        """Return the first chunks, and discard them and the content of the request.

        Every handler has seen the response by now.
        """
        chunks, self.first_chunks, self._first_data = self.first_chunks, [], None
        self.call = self.call.without_content()
        return chunks

    def has_more(self) -> bool:
        """Whether the answer continues.

        Raises:
            LMStudioError: The error after the chunks that were returned last.
        """
        self._first_data = None
        if self.failure is not None:
            raise self.failure
        return not self.is_finished

    def observe(self, observer: StreamObserver) -> None:
        """Call an observer for everything that is read, including what was read already."""
        for data in self._first_data or ():
            observer.on_data(data)
        if self.first_chunks:
            observer.on_chunks(self.first_chunks)
        if self.is_finished:
            observer.on_finished()
        elif self.failure is not None:
            observer.on_failed(self.failure)
        else:
            self._observers += (observer,)

    def when_finished(self, callback: Callable[[], object]) -> None:
        """Call back when the answer is complete: at once, if it is already."""
        if self.is_finished:
            callback()
        else:
            self._when_finished += (callback,)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call back once, when the response is closed."""
        self._when_closed += (callback,)

    def close(self) -> None:
        """Close the response.

        If its body was not read to the end, the connection is cut, so that the server stops.
        """
        try:
            self.response.close()
        finally:
            callbacks, self._when_closed = self._when_closed, ()
            for callback in callbacks:
                callback()

    def measured(self) -> Measured:
        """Return the times of this answer; they grow until it is finished."""
        end = self._clock() if self._ended_at is None else self._ended_at
        if self._first_at is None:
            return Measured(total_time=end - self._started)
        return Measured(
            time_to_first_token=self._first_at - self._started,
            generation_time=end - self._first_at,
            total_time=end - self._started,
        )

    def _read(self, data: bytes) -> tuple[list[Chunk], bool, LMStudioError | None]:
        """Return the chunks in some bytes, whether they were the last, and the error after them."""
        reader = self.reader
        chunks: list[Chunk] = []
        try:
            if data:
                chunks = reader.feed(data)
            failure = reader.failure
            is_last = failure is None and (not data or reader.is_done or self.response.has_ended)
            if is_last:
                chunks = [*chunks, *reader.finish()]
        except LMStudioError as error:
            return chunks, False, error
        return chunks, is_last, failure

    def _run_when_finished(self) -> None:
        callbacks, self._when_finished = self._when_finished, ()
        for callback in callbacks:
            callback()

    def _report(self, data: bytes, chunks: list[Chunk]) -> None:
        for observer in self._observers:
            observer.on_data(data)
            if chunks:
                observer.on_chunks(chunks)
            if self.is_finished:
                observer.on_finished()

    def _fail(self, error: LMStudioError) -> None:
        """Close the connection, and add the request and the partial reply to the error."""
        self.failure = error
        self.close()
        if error.partial is None:
            error.partial = self.reader.cut_off()
        locate(error, self.call, self.attempts)
        for observer in self._observers:
            observer.on_failed(error)


class Handler(Protocol):
    """A callable that turns a call into the plan of its response.

    A handler factory wraps one around the next.
    """

    def __call__(self, call: Call[R], /) -> Plan[ResponseStream[R]]:
        """Return the plan."""
        ...


HandlerFactory: TypeAlias = Callable[[Handler], Handler]


class _RecordedResponse(Struct, frozen=True):
    """The head of a recorded response."""

    status: int
    headers: Mapping[str, str]
    undecoded: str = ""
    has_ended: bool = False

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def be_patient(self, *, wanted: bool) -> None:
        """Do nothing: there is no time limit."""


def locate(error: LMStudioError, call: Call[R], attempts: int) -> None:
    """Add the request and a hint that fits the server to an error, and hide the secrets in it."""
    from lmdeck._responses.product_hints import adapt_hint  # imported late: few requests fail

    clear_own_locals(error)
    adapt_hint(error, call.peer.product)
    if call.request.api_token is not None:
        _hide(error, call.request.api_token)
    if isinstance(error, APIError | StreamError):
        _hide_quoted(error, call.request)
    error.request_id = call.request_id
    error.url = call.request.url
    error.attempts = max(error.attempts, attempts)


def _hide(error: LMStudioError, token: Secret) -> None:
    """Remove a token that the server quoted from an error, because errors are logged and shown."""
    error.message = str(token.redact(error.message))
    error.args = (error.message,)
    error.hint = str(token.redact(error.hint))
    if error.partial is not None:
        error.partial = replace(error.partial, raw=token.redact(error.partial.raw))
    if isinstance(error, APIError):
        error.body = token.redact(error.body)
        error.param, error.code = token.redact(error.param), token.redact(error.code)


def _hide_quoted(error: APIError | StreamError, request: WireRequest) -> None:
    """Remove other secrets that the server quoted.

    These are the secrets of the request, and what is known by its name or format.
    """
    redaction = redaction_of(request)
    error.message = redaction.text(error.message).removed()
    error.args = (error.message,)
    if isinstance(error, APIError):
        error.body = redaction.json(error.body)
    if error.partial is not None and isinstance(error.partial.raw, list) and error.partial.raw:
        *before, last = error.partial.raw  # the last event is the error
        shown = redaction.text(last.decode("utf-8", "replace")).removed()
        error.partial = replace(error.partial, raw=[*before, shown.encode()])


def redaction_of(request: WireRequest) -> Redaction:
    """Return the redaction of what may quote a request."""
    from lmdeck._redaction.exchange import Redaction  # imported late: only errors and debug logs need it

    redaction = Redaction()
    redaction.headers(request.wire_headers())
    redaction.text((request.body or b"")[:MAX_SEARCHED_BYTES].decode("utf-8", "replace"))
    return redaction


def _refuse_second_reader(*_: object) -> Never:
    raise RuntimeError("the answer is already being read")


def _is_output(chunks: list[Chunk]) -> bool:
    """Whether one of the chunks is part of the answer, and not only an event of the server."""
    for chunk in chunks:
        if (
            chunk.content
            or chunk.reasoning
            or chunk.tool_call
            or chunk.tool_call_delta
            or chunk.finish_reason is not None
        ):
            return True
    return False
