"""Functions and the interface shared by the writers of all wire formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from lmdeck._chunks import Chunk
from lmdeck._encoders.backend_events import (
    BackendEvent,
    ReasoningTextDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallOpened,
)
from lmdeck._encoders.event_stream import encode_comment
from lmdeck._streaming.wire_chunks import without_lone_surrogates
from lmdeck.messages import Problem, Reply, ToolCall

__all__ = ["HEARTBEAT", "Writer", "arguments_of", "decoded", "events_of", "receipt", "rules_of", "writable"]

HEARTBEAT = encode_comment()
"""Sent while output is held back, so that the client's read timeout does not expire during a long call."""


class Writer(Protocol):
    """The writer of one answer in its wire format."""

    @property
    def around_text(self) -> tuple[bytes, bytes] | None:
        """The bytes before and after the text of an event that was passed on unchanged.

        The quotation marks belong to it.
        """
        ...

    def observe(self, data: bytes, chunks: Sequence[Chunk]) -> None:
        """Process an event's data, or a complete body, and the chunks read from it.

        `b""` is the end of the answer.
        """
        ...

    def end(self, reply: Reply) -> None:
        """Write the end of a stream."""
        ...

    def body(self, reply: Reply) -> bytes:
        """Return the complete answer as one body."""
        ...

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """Return the event of a failed stream; `error` is an error body of the format."""
        ...

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        ...


def decoded(data: bytes) -> dict[str, Any] | None:
    """Decode an event's data; None for `[DONE]`, an empty event and the end."""
    if data[:1] != b"{":
        data = data.strip()
        if data[:1] != b"{":
            return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = msgspec.json.decode(without_lone_surrogates(data))
    return value if isinstance(value, dict) else None


def writable(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks to write now; a call is written only once it is complete and certain."""
    return [chunk for chunk in chunks if chunk.content or chunk.reasoning or chunk.tool_call is not None]


def events_of(chunk: Chunk) -> list[BackendEvent]:
    """Return a chunk as the events that the server's encoders write."""
    events: list[BackendEvent] = []
    if chunk.reasoning:
        events.append(ReasoningTextDelta(chunk.reasoning))
    if chunk.content:
        events.append(TextDelta(chunk.content))
    if chunk.tool_call is not None:
        events += [
            ToolCallOpened(chunk.tool_call.id, chunk.tool_call.name),
            ToolArgumentsDelta(arguments_of(chunk.tool_call)),
        ]
    return events


def arguments_of(call: ToolCall) -> str:
    """Return a call's arguments as valid JSON text; the model's own text if it is equivalent."""
    try:
        is_equivalent = msgspec.json.decode(call.raw_arguments) == call.arguments
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        is_equivalent = False
    return call.raw_arguments if is_equivalent else msgspec.json.encode(call.arguments).decode()


def rules_of(problems: Sequence[Problem]) -> list[str]:
    """Return the names of the rules that changed the request, each once."""
    return list(dict.fromkeys(problem.rule for problem in problems if problem.rule))


def receipt(reply: Reply) -> dict[str, Any]:
    """Return the report that lmdeck adds to an answer: problems and applied request rules."""
    problems = [
        {name: value for name, value in msgspec.to_builtins(problem).items() if value} for problem in reply.problems
    ]
    return {"problems": problems, "rules": rules_of(reply.problems)}
