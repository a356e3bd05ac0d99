"""The reader of LM Studio's other chat endpoints: their events and bodies, translated, take the one road to the reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._responses.api_errors import api_error, is_error_body
from lmdeck._responses.json_reader import DECODE_ERRORS
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import DONE, ChatReader, Observer
from lmdeck._streaming.sse import ServerSentEvent
from lmdeck._streaming.translator import Translator
from lmdeck._streaming.wire_chunks import without_lone_surrogates
from lmdeck.errors import MalformedStreamError, describe
from lmdeck.events import Chunk
from lmdeck.messages import Reply

__all__ = ["TranslatedReader"]


class TranslatedReader(ChatReader):
    """Read an answer of `/api/v1/chat`, `/v1/responses` or `/v1/messages`, streamed or not."""

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
        """Give the reply as far as it has come."""
        return replace(super().partial(), server_calls=list(self._translator.server_calls))

    def reply(self) -> Reply:
        """Give the whole reply, after `finish`."""
        return replace(super().reply(), server_calls=list(self._translator.server_calls))

    def _read_event(self, event: ServerSentEvent, chunks: list[Chunk]) -> None:
        data = event.data.strip()
        if data == DONE or not data:
            return
        self._keep_raw(data)
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
            self._assembler.done()

    def _refuse_failure(self, event: ServerSentEvent, decoded: dict[str, Any]) -> None:
        failure = self._translator.failure(decoded)
        if failure is None and (event.event == "error" or is_error_body(decoded)):
            failure = decoded
        if failure is not None:
            error = api_error(self._status, failure, self._headers)
            error.partial = self.partial()
            raise error

    def _finish_body(self) -> list[Chunk]:
        body = self._body.whole()
        try:
            decoded = _decode(body)
        except DECODE_ERRORS as error:
            self._refuse_body(body, error)
        if is_error_body(decoded):
            raise api_error(self._status, decoded, self._headers)
        completion = self._translator.body(decoded)
        if completion is None:
            raise MalformedStreamError(
                f"The body is no answer of this endpoint: {describe(body[:400].decode('utf-8', 'replace'))}"
            )
        chunks: list[Chunk] = []
        self._assembler.feed(completion, chunks)
        self._tell(body, chunks)
        return chunks + self._closed()


def _decode(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except DECODE_ERRORS:
        return msgspec.json.decode(without_lone_surrogates(data), type=dict[str, Any])
