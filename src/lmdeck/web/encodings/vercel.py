"""The encoding of Vercel's AI SDK: the UI message stream of `useChat`, and its request.

Source: ai-sdk.dev, AI SDK UI, "Stream Protocols" (data stream protocol): JSON parts in server-sent events, the header
`x-vercel-ai-ui-message-stream: v1`, `[DONE]` at the end; "Transport" and the type `UIMessage` for the request.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from lmdeck._encoders.event_stream import encode_event
from lmdeck.errors import LMStudioError
from lmdeck.messages import Reply, ToolCall, ToolResult
from lmdeck.web.encodings.base import STREAM_HEADERS, AnswerEvent, Encoding
from lmdeck.web.encodings.block_encoder import BlockEncoder, Fields, TextKind
from lmdeck.web.encodings.conversation_requests import call_of, question_of, read_conversation
from lmdeck.web.requests import PageDecisions, PageMessage, PageQuestion

_DONE = encode_event(b"[DONE]")
_FINISH_REASONS = {"stop": "stop", "length": "length", "tool_calls": "tool-calls", "content_filter": "content-filter"}


class _VercelEncoder(BlockEncoder):
    """An encoder of one message: parts with a start and an end, grouped in steps."""

    def __init__(self) -> None:
        super().__init__()
        self._texts = 0

    def encode(self, event: AnswerEvent) -> bytes:
        """Return the bytes for an event, after the last one also the end of the stream."""
        written = super().encode(event)
        return written + _DONE if isinstance(event, Reply | LMStudioError) else written

    def start(self) -> list[Fields]:
        return [{"type": "start", "messageId": f"msg-{secrets.token_hex(8)}"}]

    def finish(self, end: Reply | LMStudioError) -> list[Fields]:
        if isinstance(end, LMStudioError):
            return [{"type": "error", "errorText": str(end)}]
        return [{"type": "finish", "finishReason": _FINISH_REASONS.get(end.finish_reason, "other")}]

    def start_step(self) -> list[Fields]:
        return [{"type": "start-step"}]

    def finish_step(self) -> list[Fields]:
        return [{"type": "finish-step"}]

    def open_text(self, kind: TextKind) -> list[Fields]:
        self._texts += 1
        return [{"type": f"{kind}-start", "id": str(self._texts)}]

    def add_text(self, kind: TextKind, delta: str) -> list[Fields]:
        return [{"type": f"{kind}-delta", "id": str(self._texts), "delta": delta}]

    def close_text(self, kind: TextKind) -> list[Fields]:
        return [{"type": f"{kind}-end", "id": str(self._texts)}]

    def open_call(self, call_id: str, name: str) -> list[Fields]:
        return [{"type": "tool-input-start", "toolCallId": call_id, "toolName": name}]

    def add_arguments(self, call_id: str, fragment: str) -> list[Fields]:
        return [{"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": fragment}]

    def close_call(self, call: ToolCall) -> list[Fields]:
        part = {"type": "tool-input-available", "toolCallId": call.id, "toolName": call.name, "input": call.arguments}
        return [part]

    def ask_approval(self, run: str, call: ToolCall) -> list[Fields]:
        return [{"type": "tool-approval-request", "approvalId": f"{run}:{call.id}", "toolCallId": call.id}]

    def result(self, result: ToolResult) -> list[Fields]:
        if result.error is not None:
            return [{"type": "tool-output-error", "toolCallId": result.call.id, "errorText": result.content}]
        output = _output(result.content)
        return [{"type": "tool-output-available", "toolCallId": result.call.id, "output": output}]


def _output(content: str) -> Any:
    """Return a tool's output as a JSON value; text that is not JSON stays text."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return content


def _read(body: bytes, encoding: Encoding) -> tuple[PageQuestion | PageDecisions, Encoding]:
    """Read the request of `useChat`: messages in parts; the last user message is the question."""
    return read_conversation(body, lambda sent: question_of(_messages(sent))), encoding


def _messages(sent: dict[str, Any]) -> Iterator[PageMessage]:
    for message in sent["messages"]:
        step: list[Any] = []
        for part in [*message["parts"], {"type": "step-start"}]:
            if part["type"] != "step-start":
                step.append(part)
            elif step:
                yield _message(message["role"], step)
                step = []


def _message(role: str, parts: list[Any]) -> PageMessage:
    """Return one step of a message.

    Parts that do not concern the model are skipped, such as sources.
    """
    files = (part for part in parts if part["type"] == "file" and part["mediaType"].startswith("image/"))
    return PageMessage(
        role=role,
        content="\n".join(part["text"] for part in parts if part["type"] == "text"),
        images=tuple(part["url"] for part in files),
        calls=tuple(
            call_of(part["toolCallId"], _tool_name(part), part["input"], part.get("output", part.get("errorText")))
            for part in parts
            if part["type"].startswith("tool-") or part["type"] == "dynamic-tool"
            if part.get("state", "").startswith("output-")
        ),
    )


def _tool_name(part: dict[str, Any]) -> str:
    return str(part["toolName"] if part["type"] == "dynamic-tool" else part["type"].removeprefix("tool-"))


VERCEL = Encoding(
    name="vercel",
    encoder=_VercelEncoder,
    headers={**STREAM_HEADERS, "x-vercel-ai-ui-message-stream": "v1"},
    read=_read,
)
