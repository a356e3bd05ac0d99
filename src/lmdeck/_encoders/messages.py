"""`/v1/messages`: the blocks of an answer as Anthropic's events or as a whole message.

The blocks are the content of that message.

Source: LM Studio's docs, `4_anthropic-compat/messages.md`; Anthropic's Messages API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck._encoders.blocks import BlockDelta, BlockEnd, BlockStart
from lmdeck._encoders.common import named_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmdeck._encoders.blocks import BlockEvent, OutputBlock

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""OpenAI's finish reasons → Anthropic's stop reasons."""


def message_event(kind: str, **fields: object) -> bytes:
    """Return an event of the stream."""
    return named_event(kind, {"type": kind, **fields})


def begin_frame(head: Mapping[str, Any], input_tokens: int = 0) -> bytes:
    """Return `message_start`; `head` holds the message's id, type, role and model."""
    usage = {"input_tokens": input_tokens, "output_tokens": 0}
    message = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage, **head}
    return message_event("message_start", message=message)


def block_frame(event: BlockEvent) -> bytes:
    """Return the frame of a block event; empty if this format has none for it."""
    match event:
        case BlockStart(block=block):
            return message_event("content_block_start", index=block.index, content_block=_empty_content(block))
        case BlockDelta(block=block, text=text):
            return message_event("content_block_delta", index=block.index, delta=_delta(block, text))
        case BlockEnd(block=block):
            return message_event("content_block_stop", index=block.index)
        case _:
            return b""


def end_frames(delta: Mapping[str, Any], usage: Mapping[str, Any], **more: object) -> bytes:
    """Return `message_delta`, with the fields `more`, and `message_stop`."""
    return message_event("message_delta", delta=delta, usage=usage, **more) + message_event("message_stop")


def content_block(block: OutputBlock) -> dict[str, Any]:
    """Return a complete block as part of a whole message."""
    match block.kind:
        case "text":
            return {"type": "text", "text": block.text}
        case "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}


def _empty_content(block: OutputBlock) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text", "text": ""}
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}


def _delta(block: OutputBlock, text: str) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text_delta", "text": text}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": text}
        case "call":
            return {"type": "input_json_delta", "partial_json": text}
