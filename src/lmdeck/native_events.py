"""The typed events of `/api/v1/chat`; `ServerEvent` stands for undocumented ones.

Source: LM Studio docs `2_rest/streaming-events.md`. `chunk.event` has them, beside the content or reasoning that they carry.
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
    """An event without a class here: `type` is the server's name for it, `data` its fields."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)


class ChatStart(Struct, frozen=True, tag="chat.start", tag_field="type"):
    """The answer starts; `model_instance_id` generates it."""

    model_instance_id: str = ""


class ModelLoadStart(Struct, frozen=True, tag="model_load.start", tag_field="type"):
    """The server starts to load the model, which was not in memory."""

    model_instance_id: str = ""


class ModelLoadProgressEvent(Struct, frozen=True, tag="model_load.progress", tag_field="type"):
    """The progress of loading the model, from 0 to 1."""

    progress: float
    model_instance_id: str = ""


class ModelLoadEnd(Struct, frozen=True, tag="model_load.end", tag_field="type"):
    """The model is loaded."""

    model_instance_id: str = ""
    load_time_seconds: float | None = None


class PromptProcessingStart(Struct, frozen=True, tag="prompt_processing.start", tag_field="type"):
    """Prompt processing starts."""


class PromptProcessingProgress(Struct, frozen=True, tag="prompt_processing.progress", tag_field="type"):
    """The progress of prompt processing, from 0 to 1."""

    progress: float


class PromptProcessingEnd(Struct, frozen=True, tag="prompt_processing.end", tag_field="type"):
    """Prompt processing has ended."""


class ReasoningStart(Struct, frozen=True, tag="reasoning.start", tag_field="type"):
    """Reasoning starts."""


class ReasoningDelta(Struct, frozen=True, tag="reasoning.delta", tag_field="type"):
    """A piece of reasoning."""

    content: str = ""


class ReasoningEnd(Struct, frozen=True, tag="reasoning.end", tag_field="type"):
    """Reasoning has ended."""


class ToolCallStart(Struct, frozen=True, tag="tool_call.start", tag_field="type"):
    """The model calls a tool that the server runs."""

    tool: str = ""
    provider_info: dict[str, Any] = field(default_factory=dict)


class ToolCallArguments(Struct, frozen=True, tag="tool_call.arguments", tag_field="type"):
    """The arguments of a tool call."""

    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    provider_info: dict[str, Any] = field(default_factory=dict)


class ToolCallSuccess(Struct, frozen=True, tag="tool_call.success", tag_field="type"):
    """The server ran the tool; `output` is its result."""

    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    output: str = ""
    provider_info: dict[str, Any] = field(default_factory=dict)


class ToolCallFailure(Struct, frozen=True, tag="tool_call.failure", tag_field="type"):
    """The tool call was invalid.

    `metadata` has its type, `invalid_name` or `invalid_arguments`, and the name of the tool.
    """

    reason: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class MessageStart(Struct, frozen=True, tag="message.start", tag_field="type"):
    """A message starts; one answer may have several, before and after tool calls."""


class MessageDelta(Struct, frozen=True, tag="message.delta", tag_field="type"):
    """A piece of a message."""

    content: str = ""


class MessageEnd(Struct, frozen=True, tag="message.end", tag_field="type"):
    """A message has ended."""


class ErrorEvent(Struct, frozen=True, tag="error", tag_field="type"):
    """The server reported an error, which the stream raises as an `LMStudioError`."""

    error: dict[str, Any] = field(default_factory=dict)


class ChatEnd(Struct, frozen=True, tag="chat.end", tag_field="type"):
    """The end of the answer, with the complete result as in an answer that is not streamed."""

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
    """Return the typed event.

    One that is unknown, or not as documented, becomes a `ServerEvent`.
    """
    try:
        return msgspec.convert(data, NativeEvent)  # type: ignore[no-any-return, call-overload, unused-ignore]
    except msgspec.ValidationError:
        return ServerEvent(str(data.get("type") or ""), data)
