"""What happens in an answer, as server-sent events."""

from __future__ import annotations

from typing import Any

import msgspec

from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent, Chunk, ToolCallInvalid, ToolDone, ToolErrored, ToolRunning
from lmdeck.messages import Reply
from lmdeck.sansio.sse import encode_comment, encode_event

__all__ = ["BEAT", "encoded"]

BEAT = encode_comment("beat")


def encoded(event: AgentEvent | Reply | LMStudioError) -> bytes:
    """Encode what happened; nothing where a browser need not know."""
    return b"".join(encode_event(msgspec.json.encode(shown)) for shown in _shown(event))


def _shown(event: object) -> list[dict[str, Any]]:
    match event:
        case Chunk():
            pieces = (("content", event.content), ("reasoning", event.reasoning))
            return [{"type": kind, "text": text} for kind, text in pieces if text]
        case ToolRunning():
            return [{"type": "tool", "name": event.call.name, "arguments": event.call.arguments}]
        case ToolDone() | ToolErrored():
            return [{"type": "result", "id": event.result.call.id, "content": event.result.content}]
        case ToolCallInvalid():
            return [{"type": "result", "id": event.call.id, "content": event.error.message}]
        case LMStudioError():
            return [{"type": "error", "message": event.message, "hint": event.hint}]
        case Reply():
            return [{"type": "done", **event.to_dict()}]
    return []
