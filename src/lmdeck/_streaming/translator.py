"""From the events of LM Studio's other chat endpoints to the wire's chunks, which one assembler puts together.

A translator reads decoded events, or a whole body, and gives `Completion` values, so that content, reasoning, calls, embedded
markup and errors are treated alike whatever endpoint they came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from lmdeck._streaming.wire_chunks import Choice, Completion, Delta, FunctionDelta, ToolDelta
from lmdeck.messages import ServerCall
from lmdeck.native_events import ServerEvent, StreamEvent

__all__ = [
    "Json",
    "Translator",
    "as_raw",
    "call_delta",
    "completion",
    "entries",
    "finished",
    "text_of",
    "token_usage",
    "untyped",
]

Json = Mapping[str, Any]


class Translator(Protocol):
    """What knows one endpoint's events and body."""

    is_done: bool
    is_in_call: bool  # a call that the server itself runs is being written or run
    server_calls: list[ServerCall]

    def event(self, data: Json) -> Iterator[Completion]:
        """Give what an event means."""
        ...

    def typed(self, data: dict[str, Any]) -> StreamEvent:
        """Give the event itself, for the user."""
        ...

    def failure(self, data: Json) -> object:
        """Give the error object inside an event that reports a failure; None where it reports none."""
        ...

    def body(self, body: Json) -> Completion | None:
        """Give what a whole body means; None where it is none of this endpoint."""
        ...


def untyped(data: dict[str, Any]) -> ServerEvent:
    """Give an event under the server's own name."""
    return ServerEvent(str(data.get("type") or ""), data)


def completion(delta: Delta | None = None, logprobs: object = None, **head: Any) -> Completion:  # noqa: ANN401  # the fields of Completion
    """Make a chunk with one choice, or with none where nothing was said."""
    return Completion(choices=None if delta is None else [Choice(delta=delta, logprobs=logprobs)], **head)


def finished(reason: str, **head: Any) -> Completion:  # noqa: ANN401  # the fields of Completion
    """Make a chunk that ends the answer."""
    return Completion(choices=[Choice(finish_reason=reason)], **head)


def call_delta(index: int | None, id_: object = None, name: str | None = None, arguments: object = None) -> ToolDelta:
    """Make a piece of a tool call, from an object of arguments or a fragment of their text."""
    text = arguments if isinstance(arguments, (str, dict)) else None
    return ToolDelta(
        index=index,
        id=id_ if isinstance(id_, (str, int)) else None,
        function=FunctionDelta(name=name, arguments=text),
    )


def as_raw(given: object) -> Raw:
    """Return an object as the wire has it, or nothing."""
    return Raw(msgspec.json.encode(given)) if isinstance(given, Mapping) else Raw()


def token_usage(given: object) -> Raw:
    """Return `input_tokens` and `output_tokens` under OpenAI's names, and what of them was cached or reasoning.

    What Anthropic's API counts beside `input_tokens`, as read from the cache, is part of the prompt.
    """
    if not isinstance(given, Mapping):
        return Raw()
    cached = _count(given.get("cache_read_input_tokens"))
    counts = {
        "prompt_tokens": _count(given.get("input_tokens")),
        "completion_tokens": _count(given.get("output_tokens", given.get("total_output_tokens"))),
    }
    known = {name: value for name, value in counts.items() if value is not None}
    if cached is not None and "prompt_tokens" in known:
        known["prompt_tokens"] += cached
    total = _count(given.get("total_tokens"))
    known["total_tokens"] = sum(known.values()) if total is None else total
    read, written = _object(given.get("input_tokens_details")), _object(given.get("output_tokens_details"))
    details = {
        "cached_tokens": _count(read.get("cached_tokens")) if cached is None else cached,
        "reasoning_tokens": _count(written.get("reasoning_tokens", given.get("reasoning_output_tokens"))),
    }
    known |= {name: value for name, value in details.items() if value is not None}
    return Raw(msgspec.json.encode(known))


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def entries(value: object) -> list[Json]:
    """Give the objects of a list; what is none is left out."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Give text, or the texts of a list of parts, or nothing."""
    if isinstance(value, str):
        return value
    return "".join(text_of(part.get("text", part.get("content"))) for part in entries(value))
