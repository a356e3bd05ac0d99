"""Read the bytes of an answer, streamed or not, and return chunks and the reply.

The first bytes, not the content type, decide between events and a JSON body: LM Studio answers a streamed request with a JSON
error and status 200, and proxies change content types. Errors inside an answer with a successful status are raised as typed
errors with the reply so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeAlias

import msgspec
from msgspec.structs import replace

from lmdeck._chunks import Chunk
from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._responses.json_bodies import DECODE_ERRORS, decoded_or_text, describe_body, is_error_body
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.raw_events import RawEvents
from lmdeck._streaming.sse import BOM, ServerSentEvent, SSEDecoder
from lmdeck._streaming.text_template import TextTemplate
from lmdeck._streaming.wire_chunks import WireCompletion, without_lone_surrogates
from lmdeck.errors import (
    APIError,
    IncompleteStreamError,
    LMStudioError,
    MalformedStreamError,
    TransportError,
    describe,
)
from lmdeck.messages import Problem, Reply

DONE = b"[DONE]"
BLANKS = b" \t\r\n"
HEARTBEATS = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})  # events of proxies during a pause
SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
Observer: TypeAlias = Callable[[bytes, Sequence[Chunk]], None]
_decode_completion = msgspec.json.Decoder(WireCompletion).decode


class ChatReader:
    """A reader of one answer of `/v1/chat/completions`, streamed or not.

    `observe` is called with the data of each event, or with a whole body, and the chunks read from it; at the end of the
    answer, with `b""` and the last chunks. `failure` is an error that follows the chunks returned last.
    """

    _sse: SSEDecoder  # this and the next two are created when the answer turns out to be events
    _template: TextTemplate
    _raw: RawEvents
    _event_kind = "a chat completion chunk"
    __slots__ = (
        "__weakref__", "_assembler", "_body", "_byte_count", "_headers", "_limits", "_observe", "_raw", "_reply", "_sse",
        "_start", "_status", "_template", "failure", "figures", "is_done", "is_streamed",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        assembler: ChatAssembler,
        limits: Limits = DEFAULT_LIMITS,
        observe: Observer | None = None,
    ) -> None:
        self._status = status
        self._headers = headers
        self._limits = limits
        self._observe = observe
        self._assembler = assembler
        self._reply: Reply | None = None  # once the answer is complete
        self._start = b""  # the first bytes, until they show the format
        self._body: list[bytes] = []
        self._byte_count = 0
        self.figures = assembler.figures  # what the server has reported so far: token counts, times
        self.is_streamed = False  # whether the answer arrived as events rather than as one body
        self.is_done = False  # whether the end mark was read
        self.failure: LMStudioError | None = None

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being written.

        Its arguments may arrive in one piece after minutes of silence (LM Studio bug tracker #1868, #1881).
        """
        return self._assembler.is_in_call

    def is_whole_without_end(self, error: TransportError) -> bool:
        """Whether the answer was complete before `error` broke the connection; if so, add a problem."""
        if not self._assembler.is_complete:
            return False
        self._assembler.note(Problem("end_missing", f"The connection broke after the finish reason: {error.message}"))
        return True

    def feed(self, data: bytes) -> list[Chunk]:
        """Read some bytes and return the chunks in them.

        An error after chunks of the same read becomes `failure`, so that these chunks are not lost; the next call raises it.

        Raises:
            MalformedStreamError: The bytes are neither server-sent events nor JSON, or over a limit.
            APIError: The server reported an error in its stream.
        """
        if self.failure is not None:
            raise self.failure
        self._byte_count += len(data)
        if self._byte_count > self._limits.answer_bytes:
            raise MalformedStreamError(f"The answer is larger than {self._limits.answer_bytes} bytes.")
        if self.is_streamed:
            return self._read_events(data)
        if not self._body:
            return self._detect_format(data)
        self._body.append(data)
        return []

    def continue_text(self, data: bytes, around: tuple[bytes, bytes], chunks: list[Chunk]) -> str:
        """Read one event that only continues the text, and return its text.

        It must differ from the last event, and from `around`, only in its text. Its chunks are appended, and not observed.
        Otherwise, `""` is returned, and nothing was read.
        """
        is_over = self._byte_count + len(data) > self._limits.answer_bytes
        if is_over or not self.is_streamed or self.failure is not None or not self._template.is_around(around):
            return ""
        text = self._continue_text(data, chunks)
        if text:
            self._byte_count += len(data)
        return text

    def _continue_text(self, data: bytes, chunks: list[Chunk]) -> str:
        """Read one event that differs from the last one only in its text, and return its text.

        Otherwise, `""` is returned, and nothing was read.
        """
        quoted = self._template.string_in_event(data)
        text = self._template.decoded(quoted) if quoted and self._sse.is_between_events else ""
        if text:
            self._raw.add_text(quoted[1:-1])
            self._assembler.feed_texts([text], chunks)
        return text

    def finish(self) -> list[Chunk]:
        """Read the end of the bytes and return the last chunks.

        A last event without its blank line counts.

        Raises:
            IncompleteStreamError: The answer was cut off.
            MalformedStreamError: The bytes are not an answer of this API.
            EmptyReplyError: The answer is complete and empty.
            APIError: The server reported an error in its last event or in a body with a successful status.
        """
        if self.failure is not None:
            raise self.failure
        chunks: list[Chunk] = []
        if not self.is_streamed:
            body = self._whole_body()
            completion = self._decode_body(body)
            self._assembler.feed(completion, chunks)
            if completion.choices and completion.choices[0].message is not None:
                self._assembler.end()  # a message in one body is whole; some servers send no finish reason with it
            if self._observe is not None:
                self._observe(body, chunks)
        elif not self.is_done:  # what follows the end mark is not part of the answer
            self._finish_events(chunks)
        last: list[Chunk] = []
        self._reply = self._assembler.close(last)
        if self._observe is not None:
            self._observe(b"", last)
        return chunks + last

    def partial(self) -> Reply:
        """Return the reply so far."""
        return self._with_raw(self._reply or self._assembler.partial())

    def cut_off(self) -> Reply:
        """Read the end of an answer that failed, and return the reply so far.

        It has the text that was still held back.
        """
        self._assembler.cut_off()
        return self.partial()

    def reply(self) -> Reply:
        """Return the complete reply; valid after `finish`."""
        return self._with_raw(self._reply or self._assembler.reply())

    def _with_raw(self, reply: Reply) -> Reply:
        if not self.is_streamed:
            return replace(reply, raw=self._whole_body())
        if not self._raw.is_short or not self._limits.raw_bytes:
            return replace(reply, raw=self._raw.events())
        shortened = Problem(
            "raw_shortened", f"raw contains only about the first {self._limits.raw_bytes} bytes of the stream."
        )
        return replace(reply, raw=self._raw.events(), problems=[*reply.problems, shortened])

    def _detect_format(self, data: bytes) -> list[Chunk]:
        """Read the first bytes until they show whether events or a body follow.

        White space before either is a heartbeat.
        """
        start = (self._start + data).removeprefix(BOM).lstrip(BLANKS)
        if start[:1] in {b"{", b"["}:
            self._body.append(start)
        elif start.startswith(SSE_FIELDS) or (start and self._declares_events and not BOM.startswith(start)):
            self.is_streamed = True
            self._sse, self._template = SSEDecoder(self._limits), TextTemplate()
            self._raw = RawEvents(self._limits.raw_bytes, self._template)
            return self._read_events(start)
        else:
            self._start = start
            if not any(known.startswith(start) for known in (*SSE_FIELDS, BOM)):
                self._refuse_start(start)
        return []

    @property
    def _declares_events(self) -> bool:
        return "event-stream" in self._headers.get("content-type", "")

    def _refuse_start(self, start: bytes) -> NoReturn:
        kind = self._headers.get("content-type", "no content type")
        shown = describe_body(start)
        raise MalformedStreamError(f"The server's answer ({kind}) is neither server-sent events nor JSON: {shown}")

    def _whole_body(self) -> bytes:
        if len(self._body) > 1:
            self._body = [b"".join(self._body)]
        return self._body[0] if self._body else self._start

    def _read_events(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self._observe is None and self._continue_text(data, chunks):
            return chunks
        try:
            events = self._sse.feed(data)
            if self._observe is None:
                self._read_batch(events, chunks)
            else:
                self._read_observed(events, chunks)
        except LMStudioError as error:
            if not chunks:
                raise
            self.failure = error
        self._raw.end_read()
        return chunks

    def _read_observed(self, events: list[ServerSentEvent], chunks: list[Chunk]) -> None:
        """Read events one after the other, because `observe` is called with the chunks of each."""
        for event in events:
            first = len(chunks)
            self._read_batch([event], chunks)
            if self._observe is not None:
                self._observe(event.data, chunks[first:])
            if self.is_done:
                break

    def _read_batch(self, events: list[ServerSentEvent], chunks: list[Chunk]) -> None:
        """Decode events up to the end mark and append their chunks.

        The texts of events that contain only text are parsed together.
        """
        assembler, raw, template = self._assembler, self._raw, self._template
        texts: list[str] = []
        for event in events:
            text = "" if event.event else template.text_of(event.data)
            if not text:
                completion = _decoded(event.data)
                text = "" if completion is None or event.event else assembler.text_alone(completion)
                if not text:
                    template.forget()
                    if texts:
                        assembler.feed_texts(texts, chunks)
                        texts = []
                    self._read_event(event, completion, chunks)
                    if self.is_done:
                        return
                    continue
                template.learn(event.data, text, _content_of)
            raw.add(event.data)
            texts.append(text)
        if texts:
            assembler.feed_texts(texts, chunks)

    def _read_event(self, event: ServerSentEvent, completion: WireCompletion | None, chunks: list[Chunk]) -> None:
        """Append the chunks of an event; without a completion, it is the end mark, blank or broken."""
        if event.event in HEARTBEATS or (completion is None and self._is_mark(event.data.strip())):
            return
        self._raw.add(event.data)
        completion = completion or self._decode_repaired(event)
        if not completion.choices or completion.error or event.event:
            self._check_event(event, completion)
        self._assembler.feed(completion, chunks)

    def _is_mark(self, data: bytes) -> bool:
        """Whether the data of an event is blank or the end mark; the end mark ends the answer."""
        if data == DONE:
            self._end()
        return data == DONE or not data

    def _end(self) -> None:
        self.is_done = True
        self._assembler.end()

    def _decode_repaired(self, event: ServerSentEvent) -> WireCompletion:
        """Decode JSON with a lone surrogate, as sent by servers that cut UTF-16 text.

        Raises:
            MalformedStreamError: The JSON is invalid for another reason.
            APIError: It is an error that the server reports.
        """
        try:
            return self._without_lone_surrogates(event.data) or _decode_completion(event.data)
        except DECODE_ERRORS as error:
            self._refuse_event(event, error)

    def _without_lone_surrogates(self, data: bytes) -> WireCompletion | None:
        """Decode JSON with lone surrogates replaced by U+FFFD; return None if that does not help."""
        repaired = without_lone_surrogates(data)
        if repaired == data:
            return None
        try:
            completion = _decode_completion(repaired)
        except DECODE_ERRORS:
            return None
        self._assembler.note(Problem("text_mended", "A lone surrogate was replaced by U+FFFD."))
        return completion

    def _check_event(self, event: ServerSentEvent, completion: WireCompletion) -> None:
        """Raise the error of an event that is an error or not a chunk.

        A chunk without choices may contain only usage.
        """
        decoded = decoded_or_text(event.data)
        if event.event == "error" or is_error_body(decoded):
            error = self._api_error(decoded)
            error.partial = self.cut_off()
            raise error
        if completion.choices is None and not (completion.object or completion.id or completion.usage):
            self._refuse_event(event, "it has neither choices nor usage")

    def _refuse_event(self, event: ServerSentEvent, error: object) -> NoReturn:
        shown = describe(event.data[:400].decode("utf-8", "replace"))
        reported = self._error_in(event.data)
        if event.event == "error":
            reported = reported or self._api_error(event.data)
        cause = error if isinstance(error, BaseException) else None
        if reported is not None:
            reported.partial = self.cut_off()
            raise reported from cause
        raise MalformedStreamError(
            f"Event {self._raw.count} of the stream is not {self._event_kind} ({error}): {shown}",
            partial=self.cut_off(),
        ) from cause

    def _finish_events(self, chunks: list[Chunk]) -> None:
        """Read a last event without its blank line, and check that there was an event."""
        try:
            self._read_observed(self._sse.finish(), chunks)
        except MalformedStreamError as error:
            raise IncompleteStreamError(
                "The stream was cut off in the middle of an event.", partial=self.cut_off()
            ) from error
        if not (self._raw.count or self._assembler.is_complete):
            raise MalformedStreamError(f"The stream of {self._byte_count} bytes contains no event.")

    def _decode_body(self, body: bytes) -> WireCompletion:
        """Decode an answer that arrived as one body."""
        try:
            completion = _decode_completion(body)
        except DECODE_ERRORS as error:
            completion = self._without_lone_surrogates(body) or self._refuse_body(body, error)
        reported = self._error_in(body) if completion.error or not completion.choices else None
        if completion.choices and reported is None:
            return completion
        raise reported or MalformedStreamError(
            f"The body is not a chat completion: {describe(body[:400].decode('utf-8', 'replace'))}"
        )

    def _refuse_body(self, body: bytes, error: Exception) -> NoReturn:
        from lmdeck._responses.json_reader import refuse_body  # imported late, as above

        refuse_body(body, error, self._error_in(body))

    def _error_in(self, body: bytes) -> APIError | None:
        """Return the error that a body with a successful status reports, if any."""
        decoded = decoded_or_text(body)
        return self._api_error(decoded) if is_error_body(decoded) else None

    def _api_error(self, body: bytes | object) -> APIError:
        """Return the typed error for an event or body."""
        from lmdeck._responses.api_errors import api_error  # imported late: few answers are errors

        return api_error(self._status, body, self._headers)


def _decoded(data: bytes) -> WireCompletion | None:
    """Return the completion in the data of an event; None for other data, such as the end mark."""
    try:
        return _decode_completion(data)
    except DECODE_ERRORS:
        return None


def _content_of(data: bytes) -> object:
    """Return the content of the only choice in the data of an event."""
    completion = _decoded(data)
    delta = completion.choices[0].delta if completion is not None and completion.choices else None
    return None if delta is None else delta.content
