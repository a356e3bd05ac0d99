"""What happens in an answer, as server-sent events for the page: each is a JSON object with its `type`.

`content` and `reasoning` have new `text`; `call` is a piece of a tool call that is being written (`index`, `id`, `name`,
`arguments`), `running` a call whose tool was started, `result` what came of it; `round` ends an answer that called tools,
`done` the whole run; `error` has `message` and `hint`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent, Chunk, RoundFinished, ToolCallInvalid, ToolDone, ToolErrored, ToolRunning
from lmdeck.messages import Reply, ToolResult
from lmdeck.sansio.sse import encode_comment, encode_event

__all__ = ["BEAT", "encoded"]

BEAT = encode_comment("waiting")


def encoded(event: AgentEvent | Reply | LMStudioError) -> bytes:
    """Encode what happened; nothing where a browser need not know."""
    return b"".join(encode_event(msgspec.json.encode(told)) for told in _told(event))


def _told(event: AgentEvent | Reply | LMStudioError) -> list[dict[str, Any]]:
    match event:
        case Chunk():
            return _told_of_chunk(event)
        case ToolRunning():
            call = event.call
            return [{"type": "running", "id": call.id, "name": call.name, "arguments": call.arguments}]
        case ToolDone() | ToolErrored():
            return [_told_of_result(event.result)]
        case ToolCallInvalid():
            return [_told_of_result(ToolResult(call=event.call, content=event.error.message, error=event.error))]
        case RoundFinished():
            return [{"type": "round", "round": event.round}] if event.reply.tool_calls else []
        case LMStudioError():
            return [{"type": "error", "message": event.message, "hint": event.hint}]
        case Reply():
            usage = event.usage.to_dict() if event.usage else None
            speed = event.stats.tokens_per_second
            return [
                {
                    "type": "done",
                    "finish_reason": event.finish_reason,
                    "model": event.model,
                    "usage": usage,
                    "tokens_per_second": speed,
                }
            ]


def _told_of_chunk(chunk: Chunk) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    if chunk.reasoning:
        told.append({"type": "reasoning", "text": chunk.reasoning})
    if chunk.content:
        told.append({"type": "content", "text": chunk.content})
    if delta := chunk.tool_call_delta:
        told.append(
            {"type": "call", "index": delta.index, "id": delta.id, "name": delta.name, "arguments": delta.arguments}
        )
    return told


def _told_of_result(result: ToolResult) -> dict[str, Any]:
    call = result.call
    return {
        "type": "result",
        "id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "content": result.content,
        "failed": result.error is not None,
    }
