"""What the writers of all wire formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from lmdeck._streaming.sse import encode_comment
from lmdeck._streaming.wire_chunks import without_lone_surrogates
from lmdeck.events import Chunk
from lmdeck.messages import Problem, Reply, ToolCall
from lmdeck.server.events import BackendEvent, ReasoningTextDelta, TextDelta, ToolArgumentsDelta, ToolCallOpened

__all__ = ["HEARTBEAT", "Writer", "arguments_of", "decoded", "events_of", "receipt", "rules_of", "telling"]

HEARTBEAT = encode_comment()
"""Sent in place of what is held back, so that no time limit on silence runs out while a call is being written."""


class Writer(Protocol):
    """Write one answer in the wire format that it came in."""

    def observe(self, data: bytes, chunks: Sequence[Chunk]) -> None:
        """Read an event's data, or a whole body, and the chunks that came of it; `b""` for the end of the answer."""
        ...

    def end(self, reply: Reply) -> None:
        """Write the end of a stream."""
        ...

    def body(self, reply: Reply) -> bytes:
        """Return the whole answer as one body."""
        ...

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """Return the event of a stream that failed; `error` is the format's own error body."""
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


def telling(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks that say something now: a call says it when it is complete, for only then is it sure."""
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
    """Return a call's arguments as valid JSON text: as the model wrote them where that is what they say."""
    try:
        is_right = msgspec.json.decode(call.raw_arguments) == call.arguments
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        is_right = False
    return call.raw_arguments if is_right else msgspec.json.encode(call.arguments).decode()


def rules_of(problems: Sequence[Problem]) -> list[str]:
    """Return the names of the rules that changed the request, each once."""
    return list(dict.fromkeys(problem.rule for problem in problems if problem.rule))


def receipt(reply: Reply) -> dict[str, Any]:
    """Return what lmdeck adds to an answer: the problems, and the rules that changed the request."""
    problems = [
        {name: value for name, value in msgspec.to_builtins(problem).items() if value} for problem in reply.problems
    ]
    return {"problems": problems, "rules": rules_of(reply.problems)}
