"""The debug log of the chunks of an answer, on `lmdeck.stream`.

A chunk is logged as JSON with the fields that it has. Servers divide words, and with them secrets, over chunks. Therefore the
chunks of a word are logged together, after the word has ended, and a secret is overwritten in all of them.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import msgspec

from lmdeck._chunks import Chunk
from lmdeck._pipeline.calls import ResponseStream, StreamObserver, redaction_of
from lmdeck.errors import LMStudioError

MAX_HELD_CHUNKS = 200
MAX_SEEN_CHUNKS = 60
"""How many chunks before a word are searched for the name of a secret: `the password is …`."""

_BETWEEN = "\n\n"
_PREFIX = "data: "
_EMPTY = Chunk()
_log = logging.getLogger("lmdeck.stream")


class ChunkLog(StreamObserver):
    """A log of the chunks of one response, without secrets, and of its duration."""

    def __init__(self, stream: ResponseStream[Any]) -> None:
        self._stream = stream
        self._redaction = redaction_of(stream.call.request)
        self._seen: deque[str] = deque(maxlen=MAX_SEEN_CHUNKS)
        self._held: list[str] = []
        stream.when_closed(self._log_held)

    def on_chunks(self, chunks: list[Chunk]) -> None:
        """Log the chunks of the words that have ended."""
        for chunk in chunks:
            if _text_of(chunk)[:1].isspace() or len(self._held) >= MAX_HELD_CHUNKS:
                self._log_held()
            self._held.append(_PREFIX + _written(chunk))

    def on_finished(self) -> None:
        """Log the rest and the duration."""
        self._log_held()
        _log.debug("%s finished after %.3f s", self._stream.call.request_id, self._stream.measured().total_time)

    def on_failed(self, error: LMStudioError) -> None:
        """Log the rest; the error is logged elsewhere."""
        self._log_held()

    def _log_held(self) -> None:
        if not self._held:
            return
        events = self._redaction.quoting(_BETWEEN.join([*self._seen, *self._held])).overwritten().split(_BETWEEN)
        for event in events[len(self._seen) :]:
            _log.debug("%s %s", self._stream.call.request_id, event.removeprefix(_PREFIX))
        self._seen += self._held
        self._held.clear()


def _text_of(chunk: Chunk) -> str:
    arguments = chunk.tool_call_delta.arguments if chunk.tool_call_delta else ""
    return chunk.content or chunk.reasoning or arguments


def _written(chunk: Chunk) -> str:
    fields = {name: getattr(chunk, name) for name in chunk.__struct_fields__}
    shown = {name: value for name, value in fields.items() if value != getattr(_EMPTY, name)}
    return msgspec.json.encode(shown, enc_hook=str).decode()
