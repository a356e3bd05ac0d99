"""`/v1/chat/completions`: events as LM Studio's chunks, or as the message of a whole body.

The format follows captured answers: every text delta repeats the role; a tool call starts with its id, its name and empty
arguments and continues with `"name": ""` and fragments; the last chunk has an empty delta and the finish reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from lmdeck._encoders.backend_events import (
    ModelOutput,
    ReasoningTextDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallOpened,
)
from lmdeck._encoders.common import data_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def choice(part: str, value: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    """Return the choice of a chunk (`part` is `"delta"`) or of a whole body (`"message"`)."""
    return {"index": 0, part: value, "logprobs": None, "finish_reason": reason}


def chunk_frame(head: Mapping[str, Any], delta: Mapping[str, Any], reason: str | None = None, **more: object) -> bytes:
    """Return one chunk; `more` are fields beside its choices."""
    return data_event({**head, "choices": [choice("delta", delta, reason)], **more})


def delta_of(event: ModelOutput, index: int) -> dict[str, Any]:
    """Return an event as a delta; `index` is that of the current tool call, from 0."""
    match event:
        case TextDelta(text=text):
            return {"role": "assistant", "content": text}
        case ReasoningTextDelta(text=text):
            return {"role": "assistant", "reasoning_content": text}
        case ToolCallOpened(id=call_id, name=name):
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
    """Return the message of a whole body.

    As in LM Studio, it has no `content` if there are only calls.
    """
    entries = list(calls)
    message: dict[str, Any] = {"role": "assistant"}
    if content or not entries:
        message["content"] = content
    if reasoning:
        message["reasoning_content"] = reasoning
    if entries:
        message["tool_calls"] = entries
    return message
