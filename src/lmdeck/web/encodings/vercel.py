"""The encoding of Vercel's AI SDK: the UI message stream that `useChat` reads.

Source: ai-sdk.dev, AI SDK UI, "Stream Protocols" (data stream protocol): JSON parts in server-sent events, the header
`x-vercel-ai-ui-message-stream: v1`, `[DONE]` at the end.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from lmdeck._streaming.sse import encode_event
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
from lmdeck.messages import Reply, ToolCall
from lmdeck.web.encodings.base import STREAM_HEADERS, AnswerEvent, Encoding

_DONE = encode_event(b"[DONE]")
_FINISH_REASONS = {"stop": "stop", "length": "length", "tool_calls": "tool-calls", "content_filter": "content-filter"}


class _VercelEncoder:
    """An encoder of one message: parts with a start and an end, grouped in steps."""

    def __init__(self) -> None:
        self._is_started = False
        self._in_step = False
        self._kind = ""  # of the open part: text or reasoning
        self._count = 0
        self._calls: dict[int, str] = {}
        self._inputs: set[str] = set()

    def encode(self, event: AnswerEvent) -> bytes:
        """Return the bytes for an event."""
        parts: list[dict[str, Any]] = []
        if not self._is_started:
            self._is_started = True
            parts.append({"type": "start", "messageId": f"msg-{secrets.token_hex(8)}"})
        parts += self._parts(event)
        written = b"".join(encode_event(msgspec.json.encode(part)) for part in parts)
        return written + _DONE if isinstance(event, Reply | LMStudioError) else written

    def _parts(self, event: AnswerEvent) -> list[dict[str, Any]]:
        match event:
            case Chunk():
                return self._chunk(event)
            case ToolStarted(call=call):
                return self._input(call)
            case ToolFinished(result=result):
                return [{"type": "tool-output-available", "toolCallId": result.call.id, "output": result.content}]
            case ToolExecutionFailed(result=result):
                return [{"type": "tool-output-error", "toolCallId": result.call.id, "errorText": result.content}]
            case ToolCallInvalid(call=call, error=error):
                return [
                    *self._input(call),
                    {"type": "tool-output-error", "toolCallId": call.id, "errorText": error.message},
                ]
            case ToolServerLost():
                return []
            case RoundFinished():
                return self._end_step()
            case RunPaused(calls=calls):
                waiting = [part for call in calls for part in self._approval(event.id, call)]
                return [*waiting, *self._end_step()]
            case Reply() | LMStudioError():
                return [*self._end_step(), _last_part(event)]

    def _chunk(self, chunk: Chunk) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for kind, text in (("reasoning", chunk.reasoning), ("text", chunk.content)):
            if text:
                parts += [*self._open(kind), {"type": f"{kind}-delta", "id": self._id, "delta": text}]
        if delta := chunk.tool_call_delta:
            parts += [*self._start_step(), *self._close()]
            if delta.index not in self._calls:
                self._calls[delta.index] = delta.id
                parts.append({"type": "tool-input-start", "toolCallId": delta.id, "toolName": delta.name})
            if delta.arguments:
                call_id = self._calls[delta.index]
                parts.append({"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta.arguments})
        if call := chunk.tool_call:
            parts += self._input(call)
        return parts

    def _input(self, call: ToolCall) -> list[dict[str, Any]]:
        """Send the complete arguments of a call, once."""
        if call.id in self._inputs:
            return []
        self._inputs.add(call.id)
        part = {"type": "tool-input-available", "toolCallId": call.id, "toolName": call.name, "input": call.arguments}
        return [*self._start_step(), *self._close(), part]

    def _approval(self, run: str, call: ToolCall) -> list[dict[str, Any]]:
        request = {"type": "tool-approval-request", "approvalId": f"{run}:{call.id}", "toolCallId": call.id}
        return [*self._input(call), request]

    @property
    def _id(self) -> str:
        return str(self._count)

    def _start_step(self) -> list[dict[str, Any]]:
        if self._in_step:
            return []
        self._in_step = True
        return [{"type": "start-step"}]

    def _open(self, kind: str) -> list[dict[str, Any]]:
        if self._kind == kind:
            return []
        parts = [*self._start_step(), *self._close()]
        self._kind = kind
        self._count += 1
        return [*parts, {"type": f"{kind}-start", "id": self._id}]

    def _close(self) -> list[dict[str, Any]]:
        kind, self._kind = self._kind, ""
        return [{"type": f"{kind}-end", "id": self._id}] if kind else []

    def _end_step(self) -> list[dict[str, Any]]:
        parts = self._close()
        self._calls.clear()
        if not self._in_step:
            return parts
        self._in_step = False
        return [*parts, {"type": "finish-step"}]


def _last_part(end: Reply | LMStudioError) -> dict[str, Any]:
    if isinstance(end, LMStudioError):
        return {"type": "error", "errorText": str(end)}
    return {"type": "finish", "finishReason": _FINISH_REASONS.get(end.finish_reason, "other")}


VERCEL = Encoding(
    name="vercel", encoder=_VercelEncoder, headers={**STREAM_HEADERS, "x-vercel-ai-ui-message-stream": "v1"}
)
