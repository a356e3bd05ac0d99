"""`/v1/chat/completions`: events as LM Studio's chunks, or as the one message of a whole body.

The forms are those of captured answers: every text delta repeats the role; a tool call opens with its id and name and empty
arguments and goes on with `"name": ""` and fragments; the last chunk has an empty delta and the finish reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from lmdeck.server.encoders.common import data_event
from lmdeck.server.events import ReasoningDelta, Said, TextDelta, ToolArgumentsDelta, ToolCallStart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["call_entry", "choice", "chunk_frame", "delta_of", "message_of"]


def choice(part: str, said: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    """Return the choice of a chunk (`part` is `"delta"`) or of a whole body (`"message"`)."""
    return {"index": 0, part: said, "logprobs": None, "finish_reason": reason}


def chunk_frame(head: Mapping[str, Any], delta: Mapping[str, Any], reason: str | None = None, **more: object) -> bytes:
    """Write one chunk; `more` are further fields beside its choices."""
    return data_event({**head, "choices": [choice("delta", delta, reason)], **more})


def delta_of(event: Said, index: int) -> dict[str, Any]:
    """Return an event as a delta; `index` is the place of the current tool call, from 0."""
    match event:
        case TextDelta(text=text):
            return {"role": "assistant", "content": text}
        case ReasoningDelta(text=text):
            return {"role": "assistant", "reasoning_content": text}
        case ToolCallStart(id=call_id, name=name):
            return {"role": "assistant", "tool_calls": [{"index": index, **call_entry(call_id, name, "")}]}
        case ToolArgumentsDelta(text=text):
            function = {"name": "", "arguments": text}
            return {"tool_calls": [{"index": index, "type": "function", "function": function}]}
        case _:
            assert_never(event)


def call_entry(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return one tool call of a message; `arguments` is JSON text."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def message_of(content: str, reasoning: str, calls: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the message of a whole body; like LM Studio, without `content` where there are only calls."""
    entries = list(calls)
    message: dict[str, Any] = {"role": "assistant"}
    if content or not entries:
        message["content"] = content
    if reasoning:
        message["reasoning_content"] = reasoning
    if entries:
        message["tool_calls"] = entries
    return message
