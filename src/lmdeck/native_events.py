"""The events of `/api/v1/chat`, typed: all that LM Studio documents, and `ServerEvent` for the rest.

Source: LM Studio docs `2_rest/streaming-events.md`. They are on `chunk.event`, beside what they mean as content or reasoning.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import Struct, field

__all__ = [
    "ChatEnd",
    "ChatStart",
    "ErrorEvent",
    "MessageDelta",
    "MessageEnd",
    "MessageStart",
    "ModelLoadEnd",
    "ModelLoadProgressEvent",
    "ModelLoadStart",
    "NativeEvent",
    "PromptProcessingEnd",
    "PromptProcessingProgress",
    "PromptProcessingStart",
    "ReasoningDelta",
    "ReasoningEnd",
    "ReasoningStart",
    "ServerEvent",
    "StreamEvent",
    "ToolCallArguments",
    "ToolCallFailure",
    "ToolCallStart",
    "ToolCallSuccess",
    "read_native_event",
]


class ServerEvent(Struct, frozen=True):
    """An event that has no class of its own: `type` is the server's name for it, `data` what it said."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)


class ChatStart(Struct, frozen=True, tag="chat.start", tag_field="type"):
    """The answer begins; `model_instance_id` will write it."""

    model_instance_id: str = ""


class ModelLoadStart(Struct, frozen=True, tag="model_load.start", tag_field="type"):
    """The model is not in memory and is being loaded."""

    model_instance_id: str = ""


class ModelLoadProgressEvent(Struct, frozen=True, tag="model_load.progress", tag_field="type"):
    """How far the load is, from 0 to 1."""

    progress: float
    model_instance_id: str = ""


class ModelLoadEnd(Struct, frozen=True, tag="model_load.end", tag_field="type"):
    """The model is in memory."""

    model_instance_id: str = ""
    load_time_seconds: float | None = None


class PromptProcessingStart(Struct, frozen=True, tag="prompt_processing.start", tag_field="type"):
    """The model begins to read the prompt."""


class PromptProcessingProgress(Struct, frozen=True, tag="prompt_processing.progress", tag_field="type"):
    """How much of the prompt was read, from 0 to 1."""

    progress: float


class PromptProcessingEnd(Struct, frozen=True, tag="prompt_processing.end", tag_field="type"):
    """The prompt was read."""


class ReasoningStart(Struct, frozen=True, tag="reasoning.start", tag_field="type"):
    """Reasoning begins."""


class ReasoningDelta(Struct, frozen=True, tag="reasoning.delta", tag_field="type"):
    """A piece of the reasoning."""

    content: str = ""


class ReasoningEnd(Struct, frozen=True, tag="reasoning.end", tag_field="type"):
    """Reasoning is over."""


class ToolCallStart(Struct, frozen=True, tag="tool_call.start", tag_field="type"):
    """The model calls a tool, which the server runs."""

    tool: str = ""
    provider_info: dict[str, Any] = field(default_factory=dict)


class ToolCallArguments(Struct, frozen=True, tag="tool_call.arguments", tag_field="type"):
    """The arguments of the call."""

    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    provider_info: dict[str, Any] = field(default_factory=dict)


class ToolCallSuccess(Struct, frozen=True, tag="tool_call.success", tag_field="type"):
    """The server ran the tool; `output` is what it gave."""

    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    output: str = ""
    provider_info: dict[str, Any] = field(default_factory=dict)


class ToolCallFailure(Struct, frozen=True, tag="tool_call.failure", tag_field="type"):
    """The call was wrong: `metadata` has its type, `invalid_name` or `invalid_arguments`, and the tool's name."""

    reason: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class MessageStart(Struct, frozen=True, tag="message.start", tag_field="type"):
    """A message begins; there may be several in one answer, before and after tool calls."""


class MessageDelta(Struct, frozen=True, tag="message.delta", tag_field="type"):
    """A piece of the message."""

    content: str = ""


class MessageEnd(Struct, frozen=True, tag="message.end", tag_field="type"):
    """The message is over."""


class ErrorEvent(Struct, frozen=True, tag="error", tag_field="type"):
    """The server failed; a stream raises it as the error that it means."""

    error: dict[str, Any] = field(default_factory=dict)


class ChatEnd(Struct, frozen=True, tag="chat.end", tag_field="type"):
    """The whole answer once more, as an unstreamed one."""

    result: dict[str, Any] = field(default_factory=dict)


NativeEvent: TypeAlias = (
    ChatStart
    | ModelLoadStart
    | ModelLoadProgressEvent
    | ModelLoadEnd
    | PromptProcessingStart
    | PromptProcessingProgress
    | PromptProcessingEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | ToolCallStart
    | ToolCallArguments
    | ToolCallSuccess
    | ToolCallFailure
    | MessageStart
    | MessageDelta
    | MessageEnd
    | ErrorEvent
    | ChatEnd
)
StreamEvent: TypeAlias = NativeEvent | ServerEvent


def read_native_event(data: dict[str, Any]) -> StreamEvent:
    """Give an event its class; one that has none, or that is not as documented, is a `ServerEvent`."""
    try:
        return msgspec.convert(data, NativeEvent)  # type: ignore[no-any-return, call-overload, unused-ignore]
    except msgspec.ValidationError:
        return ServerEvent(str(data.get("type") or ""), data)
