"""From an answer's bytes to chunks and reply: the one road that streamed and whole answers take.

What came is told by its first bytes, not by its content type: LM Studio answers a streamed request with a JSON error and
status 200, and proxies rename content types. Errors that arrive inside a good status are raised as what they mean, with the
reply so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeAlias

import msgspec
from msgspec.structs import replace

from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._responses.api_errors import api_error, decoded_or_text, is_error_body
from lmdeck._responses.json_reader import DECODE_ERRORS, Body, refuse_body
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.sse import BOM, ServerSentEvent, SSEDecoder
from lmdeck._streaming.wire_chunks import Completion, without_lone_surrogates
from lmdeck.errors import (
    APIError,
    IncompleteStreamError,
    LMStudioError,
    MalformedStreamError,
    TransportError,
    describe,
)
from lmdeck.events import Chunk
from lmdeck.messages import Problem, Reply

__all__ = ["ChatReader", "Observer"]

DONE = b"[DONE]"
BLANKS = b" \t\r\n"
SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
Observer: TypeAlias = Callable[[bytes, Sequence[Chunk]], None]
_decode_completion = msgspec.json.Decoder(Completion).decode


class ChatReader:
    """Read an answer of `/v1/chat/completions`, streamed or not.

    `observe` is called with the data of each event, or with a whole body, and the chunks that came of it; last, with no data,
    with the chunks that the end of the answer brought.
    """

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
        self._sse = SSEDecoder(limits)
        self._body = Body(limits.answer_bytes)
        self._take: Callable[[bytes], list[Chunk]] = self._sniff
        self._bytes = 0
        self._raw: list[bytes] = []
        self._raw_left = limits.raw_bytes
        self._raw_is_short = False
        self._events = 0
        self.failure: LMStudioError | None = None

    @property
    def is_streamed(self) -> bool:
        """Tell whether the answer came as events rather than as one body."""
        return self._take == self._read_events

    @property
    def is_done(self) -> bool:
        """Tell whether `[DONE]` was read."""
        return self._assembler.is_done

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being written, whose arguments may come in one piece after minutes of silence.

        LM Studio is reported to send them so (bug tracker #1868, #1881).
        """
        return self._assembler.is_in_call

    def is_whole_without_end(self, error: TransportError) -> bool:
        """Tell whether the finish reason was read before the connection broke, and note that it did."""
        if not self._assembler.is_complete:
            return False
        self._assembler.note(Problem("end_missing", f"The connection broke after the finish reason: {error.message}"))
        return True

    def feed(self, data: bytes) -> list[Chunk]:
        """Read some bytes and give what happened in them.

        An error behind something that happened is kept as `failure`, so that what came in the same read is not lost.

        Raises:
            MalformedStreamError: The bytes are neither server-sent events nor JSON, or over a limit.
            APIError: The server reported an error in its stream.
        """
        self._check_failure()
        self._bytes += len(data)
        if self._bytes > self._limits.answer_bytes:
            raise MalformedStreamError(f"The answer is larger than {self._limits.answer_bytes} bytes.")
        return self._take(data)

    def finish(self) -> list[Chunk]:
        """Read the end of the bytes; a last event without its blank line counts.

        Raises:
            IncompleteStreamError: The answer was cut.
            MalformedStreamError: It was no answer at all.
            EmptyReplyError: It was whole and empty.
            APIError: The server reported an error in its last event or in a body with a good status.
        """
        self._check_failure()
        if not self.is_streamed:
            return self._finish_body()
        chunks: list[Chunk] = []
        try:
            for event in self._sse.finish():
                self._read_observed(event, chunks)
        except MalformedStreamError as error:
            raise IncompleteStreamError(
                "The stream was cut in the middle of an event.", partial=self.partial()
            ) from error
        if not (self._events or self._assembler.is_complete):
            raise MalformedStreamError(f"The stream of {self._bytes} bytes held no event.")
        return chunks + self._closed()

    def _closed(self) -> list[Chunk]:
        closing = self._assembler.close()
        self._tell(b"", closing)
        return closing

    def partial(self) -> Reply:
        """Give the reply as far as it has come."""
        return self._with_raw(self._assembler.partial())

    def reply(self) -> Reply:
        """Give the whole reply, after `finish`."""
        return self._with_raw(self._assembler.reply())

    def _with_raw(self, reply: Reply) -> Reply:
        if not self.is_streamed:
            return replace(reply, raw=self._body.whole())
        if not self._raw_is_short:
            return replace(reply, raw=list(self._raw))
        shortened = Problem(
            "raw_shortened", f"raw holds about the first {self._limits.raw_bytes} bytes of the stream only."
        )
        return replace(reply, raw=list(self._raw), problems=[*reply.problems, shortened])

    def _sniff(self, data: bytes) -> list[Chunk]:
        """Wait for the first bytes that tell events from a body."""
        self._body.add(data)
        start = self._body.whole().removeprefix(BOM).lstrip(BLANKS)
        if not start:
            self._body = Body(self._limits.answer_bytes)  # blanks before an answer are a heartbeat, not kept
        elif start[:1] in {b"{", b"["}:
            self._body = Body(self._limits.answer_bytes)  # without blanks and BOM, however they were cut
            self._take = self._read_body
            return self._read_body(start)
        elif start.startswith(SSE_FIELDS) or (self._says_events and not BOM.startswith(start)):
            self._take = self._read_events
            return self._read_events(start)
        elif not any(known.startswith(start) for known in (*SSE_FIELDS, BOM)):
            self._refuse_start(start)
        return []

    @property
    def _says_events(self) -> bool:
        return "event-stream" in self._headers.get("content-type", "")

    def _refuse_start(self, start: bytes) -> NoReturn:
        kind = self._headers.get("content-type", "nothing")
        shown = describe(start[:400].decode("utf-8", "replace"))
        raise MalformedStreamError(f"The server answered with {kind}, neither events nor JSON: {shown}")

    def _read_body(self, data: bytes) -> list[Chunk]:
        self._body.add(data)
        return []

    def _read_events(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        read = self._read_event if self._observe is None else self._read_observed
        for event in self._sse.feed(data):
            try:
                read(event, chunks)
            except LMStudioError as error:
                if not chunks:
                    raise
                self.failure = error
                break
        return chunks

    def _check_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _read_observed(self, event: ServerSentEvent, chunks: list[Chunk]) -> None:
        first = len(chunks)
        self._read_event(event, chunks)
        self._tell(event.data, chunks[first:])

    def _tell(self, data: bytes, chunks: list[Chunk]) -> None:
        if self._observe is not None:
            self._observe(data, chunks)

    def _read_event(self, event: ServerSentEvent, chunks: list[Chunk]) -> None:
        """Decode an event, whose mark may also be the end's or nothing at all, and take what it says."""
        data = event.data
        if data[:1] != b"{":
            data = data.strip()
            if data == DONE:
                self._assembler.done()
            if data == DONE or not data:
                return
        self._keep_raw(data)
        try:
            completion = _decode_completion(data)
        except DECODE_ERRORS as error:
            completion = self._mend(data) or self._refuse_event(event, error)
        if not completion.choices or event.event:
            self._check_event(event, completion)
        self._assembler.feed(completion, chunks)

    def _keep_raw(self, data: bytes) -> None:
        """Count an event and keep it as it came, up to a limit."""
        self._events += 1
        if self._raw_left > 0:
            self._raw_left -= len(data)
            self._raw.append(data)
        else:
            self._raw_is_short = True

    def _mend(self, data: bytes) -> Completion | None:
        """Decode what cannot be decoded for half a surrogate pair, which a server that cuts UTF-16 text sends."""
        mended = without_lone_surrogates(data)
        if mended == data:
            return None
        try:
            completion = _decode_completion(mended)
        except DECODE_ERRORS:
            return None
        self._assembler.note(Problem("text_mended", "Half a surrogate pair was replaced by U+FFFD."))
        return completion

    def _check_event(self, event: ServerSentEvent, completion: Completion) -> None:
        """Tell an error, or an object that is no chunk, from a chunk without choices, such as one with usage only."""
        decoded = decoded_or_text(event.data)
        if event.event == "error" or is_error_body(decoded):
            error = api_error(self._status, decoded, self._headers)
            error.partial = self.partial()
            raise error
        if completion.choices is None and not (completion.object or completion.id or completion.usage):
            self._refuse_event(event, "it has neither choices nor usage")

    def _refuse_event(self, event: ServerSentEvent, error: object) -> NoReturn:
        shown = describe(event.data[:400].decode("utf-8", "replace"))
        reported = self._error_in(event.data)
        if event.event == "error":
            reported = reported or api_error(self._status, event.data, self._headers)
        cause = error if isinstance(error, BaseException) else None
        if reported is not None:
            reported.partial = self.partial()
            raise reported from cause
        raise MalformedStreamError(
            f"Event {self._events} of the stream is no chunk ({error}): {shown}", partial=self.partial()
        ) from cause

    def _finish_body(self) -> list[Chunk]:
        body = self._body.whole()
        try:
            completion = _decode_completion(body)
        except DECODE_ERRORS as error:
            completion = self._mend(body) or self._refuse_body(body, error)
        if completion.choices:
            chunks: list[Chunk] = []
            self._assembler.feed(completion, chunks)
            self._tell(body, chunks)
            return chunks + self._closed()
        problem = self._error_in(body)
        raise problem or MalformedStreamError(
            f"The body is no chat completion: {describe(body[:400].decode('utf-8', 'replace'))}"
        )

    def _refuse_body(self, body: bytes, error: Exception) -> NoReturn:
        refuse_body(body, error, self._error_in(body))

    def _error_in(self, body: bytes) -> APIError | None:
        """Give the error that a body with a good status reports, if it does."""
        decoded = decoded_or_text(body)
        return api_error(self._status, decoded, self._headers) if is_error_body(decoded) else None
