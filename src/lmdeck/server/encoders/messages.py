"""`/v1/messages`: an answer's blocks as Anthropic's events, or as the content of a whole message.

Source: LM Studio's docs, `4_anthropic-compat/messages.md`; Anthropic's Messages API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.server.blocks import Begin, End, More
from lmdeck.server.encoders.common import named_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmdeck.server.blocks import Block, Told

__all__ = ["STOP_REASONS", "begin_frame", "block_frame", "content_block", "end_frames", "message_event"]

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""Anthropic's stop reasons by OpenAI's finish reasons."""


def message_event(kind: str, **fields: object) -> bytes:
    """Write an event of the stream."""
    return named_event(kind, {"type": kind, **fields})


def begin_frame(head: Mapping[str, Any], input_tokens: int = 0) -> bytes:
    """Write `message_start`; `head` holds the message's id, type, role and model."""
    usage = {"input_tokens": input_tokens, "output_tokens": 0}
    message = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage, **head}
    return message_event("message_start", message=message)


def block_frame(told: Told) -> bytes:
    """Write what happened to a block; nothing for what this format has no event for."""
    match told:
        case Begin(block=block):
            return message_event("content_block_start", index=block.index, content_block=_opening(block))
        case More(block=block, text=text):
            return message_event("content_block_delta", index=block.index, delta=_delta(block, text))
        case End(block=block):
            return message_event("content_block_stop", index=block.index)
        case _:
            return b""


def end_frames(delta: Mapping[str, Any], usage: Mapping[str, Any], **more: object) -> bytes:
    """Write `message_delta`, with `more` fields, and `message_stop`."""
    return message_event("message_delta", delta=delta, usage=usage, **more) + message_event("message_stop")


def content_block(block: Block) -> dict[str, Any]:
    """Return a finished block as it stands in a whole message."""
    match block.kind:
        case "text":
            return {"type": "text", "text": block.text, "citations": None}
        case "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}


def _opening(block: Block) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text", "text": ""}
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}


def _delta(block: Block, text: str) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text_delta", "text": text}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": text}
        case "call":
            return {"type": "input_json_delta", "partial_json": text}
