"""The encoding of lmdeck's own page.

Its events are JSON objects with a `type`: `content` and `reasoning` have new `text`; `call` is a piece of a tool call
(`index`, `id`, `name`, `arguments`), `running` a call whose tool was started, `result` its outcome; `round` ends an answer with
tool calls, `approval` a run whose `calls` wait for a decision (`run` is its id), `done` the whole run; `error` has `message`,
`hint` and `request_id`, the number of its log entry.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lmdeck._encoders.event_stream import encode_event
from lmdeck.errors import LMStudioError
from lmdeck.events import (
    Chunk,
    RoundFinished,
    RunPaused,
    ToolCallInvalid,
    ToolExecutionFailed,
    ToolFinished,
    ToolServerLost,
    ToolStarted,
)
from lmdeck.messages import Reply, ToolResult
from lmdeck.web.encodings.base import STREAM_HEADERS, AnswerEvent, Encoding


class _PageEncoder:
    """An encoder for lmdeck's own page."""

    def encode(self, event: AnswerEvent) -> bytes:
        """Return the bytes for an event."""
        return b"".join(encode_event(msgspec.json.encode(fields)) for fields in _events(event))


PAGE = Encoding(name="lmdeck", encoder=_PageEncoder, headers=STREAM_HEADERS)


def _events(event: AnswerEvent) -> list[dict[str, Any]]:
    match event:
        case Chunk():
            return _chunk_events(event)
        case ToolStarted():
            call = event.call
            return [{"type": "running", "id": call.id, "name": call.name, "arguments": call.arguments}]
        case ToolFinished() | ToolExecutionFailed():
            return [_result_event(event.result)]
        case ToolCallInvalid():
            return [_result_event(ToolResult(call=event.call, content=event.error.message, error=event.error))]
        case ToolServerLost():
            return []  # the results of the affected calls report it
        case RoundFinished():
            return [{"type": "round", "round": event.round}] if event.reply.tool_calls else []
        case RunPaused():
            waiting = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in event.calls]
            return [{"type": "approval", "run": event.id, "calls": waiting}]
        case LMStudioError():
            fields = {"type": "error", "message": event.message, "hint": event.hint}
            return [fields if event.request_id is None else {**fields, "request_id": event.request_id}]
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


def _chunk_events(chunk: Chunk) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    if chunk.reasoning:
        events.append({"type": "reasoning", "text": chunk.reasoning})
    if chunk.content:
        events.append({"type": "content", "text": chunk.content})
    if delta := chunk.tool_call_delta:
        events.append(
            {"type": "call", "index": delta.index, "id": delta.id, "name": delta.name, "arguments": delta.arguments}
        )
    return events


def _result_event(result: ToolResult) -> dict[str, Any]:
    call = result.call
    return {
        "type": "result",
        "id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "content": result.content,
        "failed": result.error is not None,
    }
