"""Read the answers of the other chat endpoints.

Events and bodies are translated into chunks of `/v1/chat/completions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from lmdeck._chunks import Chunk
from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._responses.api_errors import api_error
from lmdeck._responses.json_bodies import DECODE_ERRORS, is_error_body
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import HEARTBEATS, ChatReader, Observer
from lmdeck._streaming.sse import ServerSentEvent
from lmdeck._streaming.translator import Translator
from lmdeck._streaming.wire_chunks import WireCompletion, without_lone_surrogates
from lmdeck.errors import MalformedStreamError, describe
from lmdeck.messages import Reply


class TranslatingReader(ChatReader):
    """A reader of one answer of an endpoint that a translator knows, streamed or not."""

    _event_kind = "an event of this endpoint"

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        assembler: ChatAssembler,
        translator: Translator,
        limits: Limits = DEFAULT_LIMITS,
        observe: Observer | None = None,
    ) -> None:
        super().__init__(status, headers, assembler, limits, observe)
        self._translator = translator

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being written, or run by the server."""
        return super().is_in_call or self._translator.is_in_call

    def partial(self) -> Reply:
        """Return the reply so far."""
        return replace(super().partial(), server_calls=list(self._translator.server_calls))

    def reply(self) -> Reply:
        """Return the complete reply; valid after `finish`."""
        return replace(super().reply(), server_calls=list(self._translator.server_calls))

    def _read_batch(self, events: list[ServerSentEvent], chunks: list[Chunk]) -> None:
        for event in events:
            self._translate(event, chunks)
            if self.is_done:
                return

    def _translate(self, event: ServerSentEvent, chunks: list[Chunk]) -> None:
        data = event.data.strip()
        is_object = data.startswith(b"{")
        if not is_object and (event.event in HEARTBEATS or self._is_mark(data)):
            return
        self._raw.add(data)
        try:
            decoded = _decode(data)
        except DECODE_ERRORS as error:
            self._refuse_event(event, error)
        decoded.setdefault("type", event.event)
        self._refuse_failure(event, decoded)
        first = len(chunks)
        for completion in self._translator.event(decoded):
            self._assembler.feed(completion, chunks)
        typed = self._translator.typed(decoded)
        if len(chunks) > first:
            chunks[first] = replace(chunks[first], event=typed)
        else:
            chunks.append(Chunk(event=typed))
        if self._translator.is_done:
            self._end()

    def _refuse_failure(self, event: ServerSentEvent, decoded: dict[str, Any]) -> None:
        failure = self._translator.failure(decoded)
        if failure is None and (event.event == "error" or is_error_body(decoded)):
            failure = decoded
        if failure is not None:
            error = api_error(self._status, failure, self._headers)
            error.partial = self.cut_off()
            raise error

    def _decode_body(self, body: bytes) -> WireCompletion:
        try:
            decoded = _decode(body)
        except DECODE_ERRORS as error:
            self._refuse_body(body, error)
        if is_error_body(decoded):
            raise api_error(self._status, decoded, self._headers)
        completion = self._translator.body(decoded)
        if completion is None:
            raise MalformedStreamError(
                f"The body is not an answer of this endpoint: {describe(body[:400].decode('utf-8', 'replace'))}"
            )
        return completion


def _decode(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except DECODE_ERRORS:
        return msgspec.json.decode(without_lone_surrogates(data), type=dict[str, Any])
