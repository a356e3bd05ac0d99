"""Translate the other chat endpoints into chunks of `/v1/chat/completions`.

Both their events and their bodies are translated. One assembler reads the chunks, so content, reasoning, calls, embedded markup
and errors are handled in the same way for every endpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from lmdeck._responses.figures import with_openai_names
from lmdeck._streaming.wire_chunks import Choice, Delta, FunctionDelta, ToolDelta, WireCompletion
from lmdeck.messages import ServerCall
from lmdeck.native_events import ServerEvent, StreamEvent

Json = Mapping[str, Any]


class Translator(Protocol):
    """A translator of the events and the body of one endpoint."""

    is_done: bool
    is_in_call: bool  # whether a call is being written or run that the server runs itself
    server_calls: list[ServerCall]

    def event(self, data: Json) -> Iterator[WireCompletion]:
        """Yield the chunks that an event means."""
        ...

    def typed(self, data: dict[str, Any]) -> StreamEvent:
        """Return the event as a public value."""
        ...

    def failure(self, data: Json) -> object:
        """Return the error object of an event that reports a failure; otherwise None."""
        ...

    def body(self, body: Json) -> WireCompletion | None:
        """Return the chunk that a whole body means; None if it is not a body of this endpoint."""
        ...


def untyped(data: dict[str, Any]) -> ServerEvent:
    """Return an event under the server's own name."""
    return ServerEvent(str(data.get("type") or ""), data)


def completion(
    delta: Delta | None = None, logprobs: object = None, **head: Any
) -> WireCompletion:  # the fields of WireCompletion
    """Return a chunk with one choice, or without choices if there is no delta."""
    return WireCompletion(choices=None if delta is None else [Choice(delta=delta, logprobs=logprobs)], **head)


def finished(reason: str, **head: Any) -> WireCompletion:  # the fields of WireCompletion
    """Return a chunk that ends the answer."""
    return WireCompletion(choices=[Choice(finish_reason=reason)], **head)


def call_delta(index: int | None, id_: object = None, name: str | None = None, arguments: object = None) -> ToolDelta:
    """Return a delta of a tool call; `arguments` is an object or a fragment of JSON text."""
    text = arguments if isinstance(arguments, (str, dict)) else None
    return ToolDelta(
        index=index,
        id=id_ if isinstance(id_, (str, int)) else None,
        function=FunctionDelta(name=name, arguments=text),
    )


def as_raw(value: object) -> Raw:
    """Return an object as JSON; anything else as empty bytes."""
    return Raw(msgspec.json.encode(value)) if isinstance(value, Mapping) else Raw()


def token_usage(usage: object) -> Raw:
    """Return token counts under OpenAI's names as JSON; empty bytes if there are none."""
    return as_raw(with_openai_names(usage) if isinstance(usage, Mapping) else None)


def entries(value: object) -> list[Json]:
    """Return the objects in a list; other values are left out."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return text, or the joined texts of a list of parts; otherwise `""`."""
    if isinstance(value, str):
        return value
    return "".join(text_of(part.get("text", part.get("content"))) for part in entries(value))
