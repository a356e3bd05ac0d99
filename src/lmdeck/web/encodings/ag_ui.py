"""The encoding of AG-UI, the Agent User Interaction protocol, which CopilotKit and others read.

Source: docs.ag-ui.com, "Events", "Reasoning" and "Interrupts". Types are in capitals, fields in camel case, and each event is
the data of one server-sent event.
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


class _AGUIEncoder:
    """An encoder of one run of one thread."""

    def __init__(self) -> None:
        self._run = {"threadId": f"thread-{secrets.token_hex(8)}", "runId": f"run-{secrets.token_hex(8)}"}
        self._is_started = False
        self._kind = ""  # of the open message: TEXT or REASONING
        self._message = ""
        self._open_calls: dict[int, str] = {}
        self._ended_calls: set[str] = set()
        self._interrupts: list[dict[str, Any]] = []

    def encode(self, event: AnswerEvent) -> bytes:
        """Return the bytes for an event."""
        events: list[dict[str, Any]] = []
        if not self._is_started:
            self._is_started = True
            events.append({"type": "RUN_STARTED", **self._run})
        events += self._events(event)
        return b"".join(encode_event(msgspec.json.encode(each)) for each in events)

    def _events(self, event: AnswerEvent) -> list[dict[str, Any]]:
        match event:
            case Chunk():
                return self._chunk(event)
            case ToolStarted(call=call):
                return self._end_call(call)
            case ToolFinished(result=result) | ToolExecutionFailed(result=result):
                return [self._result(result.call.id, result.content)]
            case ToolCallInvalid(call=call, error=error):
                return [*self._end_call(call), self._result(call.id, error.message)]
            case ToolServerLost():
                return []
            case RoundFinished():
                return self._end()
            case RunPaused(calls=calls):
                self._interrupts = [_interrupt(event.id, call) for call in calls]
                return [*(each for call in calls for each in self._end_call(call)), *self._end()]
            case Reply():
                outcome = {"type": "interrupt", "interrupts": self._interrupts}
                return [
                    *self._end(),
                    {"type": "RUN_FINISHED", **self._run} | ({"outcome": outcome} if self._interrupts else {}),
                ]
            case LMStudioError():
                return [*self._end(), {"type": "RUN_ERROR", "message": str(event), "code": type(event).__name__}]

    def _chunk(self, chunk: Chunk) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for kind, text in (("REASONING", chunk.reasoning), ("TEXT", chunk.content)):
            if text:
                events += self._open(kind)
                events.append({"type": f"{_name(kind)}_CONTENT", "messageId": self._message, "delta": text})
        if delta := chunk.tool_call_delta:
            events += self._close()
            if delta.index not in self._open_calls:
                self._open_calls[delta.index] = delta.id
                events.append({"type": "TOOL_CALL_START", "toolCallId": delta.id, "toolCallName": delta.name})
            if delta.arguments:
                call_id = self._open_calls[delta.index]
                events.append({"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": delta.arguments})
        if call := chunk.tool_call:
            events += self._end_call(call)
        return events

    def _end_call(self, call: ToolCall) -> list[dict[str, Any]]:
        """End a call, once; a call of which no delta was sent is sent completely."""
        if call.id in self._ended_calls:
            return []
        self._ended_calls.add(call.id)
        end = {"type": "TOOL_CALL_END", "toolCallId": call.id}
        if call.id in self._open_calls.values():
            return [end]
        return [
            *self._close(),
            {"type": "TOOL_CALL_START", "toolCallId": call.id, "toolCallName": call.name},
            {"type": "TOOL_CALL_ARGS", "toolCallId": call.id, "delta": call.raw_arguments},
            end,
        ]

    def _outcome(self) -> dict[str, Any]:
        return {"outcome": {"type": "interrupt", "interrupts": self._interrupts}} if self._interrupts else {}

    def _result(self, call_id: str, content: str) -> dict[str, Any]:
        message = _new_id()
        return {
            "type": "TOOL_CALL_RESULT",
            "messageId": message,
            "toolCallId": call_id,
            "content": content,
            "role": "tool",
        }

    def _open(self, kind: str) -> list[dict[str, Any]]:
        if self._kind == kind:
            return []
        events = self._close()
        self._kind, self._message = kind, _new_id()
        role = "assistant" if kind == "TEXT" else "reasoning"
        if kind == "REASONING":
            events.append({"type": "REASONING_START", "messageId": self._message})
        return [*events, {"type": f"{_name(kind)}_START", "messageId": self._message, "role": role}]

    def _close(self) -> list[dict[str, Any]]:
        kind, self._kind = self._kind, ""
        if not kind:
            return []
        events = [{"type": f"{_name(kind)}_END", "messageId": self._message}]
        return [*events, {"type": "REASONING_END", "messageId": self._message}] if kind == "REASONING" else events

    def _end(self) -> list[dict[str, Any]]:
        self._open_calls.clear()
        return self._close()


def _name(kind: str) -> str:
    return "TEXT_MESSAGE" if kind == "TEXT" else "REASONING_MESSAGE"


def _interrupt(run: str, call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"{run}:{call.id}",
        "reason": "tool_call",
        "message": f"May {call.name} be run?",
        "toolCallId": call.id,
    }


def _new_id() -> str:
    return f"msg-{secrets.token_hex(8)}"


AG_UI = Encoding(name="ag-ui", encoder=_AGUIEncoder, headers=STREAM_HEADERS)
