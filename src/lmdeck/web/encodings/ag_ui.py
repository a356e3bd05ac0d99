"""The encoding of AG-UI, the Agent User Interaction protocol, and its request.

CopilotKit and others use it.

Source: docs.ag-ui.com, "Events", "Reasoning", "Interrupts", "Messages", and `RunAgentInput`. Types are in capitals, fields in
camel case, and each event is the data of one server-sent event.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec.structs import replace

from lmdeck.errors import LMStudioError
from lmdeck.messages import Reply, ToolCall, ToolResult
from lmdeck.web.encodings.base import STREAM_HEADERS, Encoding
from lmdeck.web.encodings.block_encoder import BlockEncoder, Fields, TextKind
from lmdeck.web.encodings.conversation_requests import call_of, question_of, read_conversation
from lmdeck.web.requests import PageDecisions, PageMessage, PageQuestion

_NAMES: dict[TextKind, str] = {"text": "TEXT_MESSAGE", "reasoning": "REASONING_MESSAGE"}


class _AGUIEncoder(BlockEncoder):
    """An encoder of one run of one thread."""

    def __init__(self, thread_id: str = "", run_id: str = "") -> None:
        super().__init__()
        self._run = {"threadId": thread_id or _new_id("thread"), "runId": run_id or _new_id("run")}
        self._message = ""
        self._interrupts: list[Fields] = []

    def start(self) -> list[Fields]:
        return [{"type": "RUN_STARTED", **self._run}]

    def finish(self, end: Reply | LMStudioError) -> list[Fields]:
        if isinstance(end, LMStudioError):
            return [{"type": "RUN_ERROR", "message": str(end), "code": type(end).__name__}]
        outcome = {"outcome": {"type": "interrupt", "interrupts": self._interrupts}} if self._interrupts else {}
        return [{"type": "RUN_FINISHED", **self._run, **outcome}]

    def open_text(self, kind: TextKind) -> list[Fields]:
        self._message = _new_id("msg")
        role = "assistant" if kind == "text" else "reasoning"
        start = {"type": f"{_NAMES[kind]}_START", "messageId": self._message, "role": role}
        return [start] if kind == "text" else [{"type": "REASONING_START", "messageId": self._message}, start]

    def add_text(self, kind: TextKind, delta: str) -> list[Fields]:
        return [{"type": f"{_NAMES[kind]}_CONTENT", "messageId": self._message, "delta": delta}]

    def close_text(self, kind: TextKind) -> list[Fields]:
        end = {"type": f"{_NAMES[kind]}_END", "messageId": self._message}
        return [end] if kind == "text" else [end, {"type": "REASONING_END", "messageId": self._message}]

    def open_call(self, call_id: str, name: str) -> list[Fields]:
        return [{"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name}]

    def add_arguments(self, call_id: str, fragment: str) -> list[Fields]:
        return [{"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": fragment}]

    def close_call(self, call: ToolCall) -> list[Fields]:
        return [{"type": "TOOL_CALL_END", "toolCallId": call.id}]

    def ask_approval(self, run: str, call: ToolCall) -> list[Fields]:
        question = f"May {call.name} be run?"
        fields = {"reason": "tool_call", "message": question, "toolCallId": call.id}
        self._interrupts.append({"id": f"{run}:{call.id}", **fields})
        return []

    def result(self, result: ToolResult) -> list[Fields]:
        fields = {"messageId": _new_id("msg"), "toolCallId": result.call.id, "content": result.content, "role": "tool"}
        return [{"type": "TOOL_CALL_RESULT", **fields}]


def ag_ui(thread_id: str = "", run_id: str = "") -> Encoding:
    """Return the encoding of one run, with the ids of the client's `RunAgentInput`."""
    return replace(AG_UI, encoder=partial(_AGUIEncoder, thread_id, run_id))


def _read(body: bytes, _: Encoding) -> tuple[PageQuestion | PageDecisions, Encoding]:
    """Read a `RunAgentInput`.

    It has all messages of the thread; the last user message is the question.
    """
    ids = ("", "")

    def question(sent: dict[str, Any]) -> PageQuestion:
        nonlocal ids
        ids = (str(sent.get("threadId") or ""), str(sent.get("runId") or ""))
        return question_of(_messages(sent))

    request = read_conversation(body, question)
    return request, ag_ui(*ids)


def _messages(sent: dict[str, Any]) -> Iterator[PageMessage]:
    """Yield the messages; the results of tools belong to their calls."""
    results = {one["toolCallId"]: one["content"] for one in sent["messages"] if one["role"] == "tool"}
    for message in sent["messages"]:
        if message["role"] not in {"user", "assistant"}:
            continue  # a front end does not choose the system message
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        yield PageMessage(
            role=message["role"],
            content="\n".join(part["text"] for part in parts if part["type"] == "text"),
            images=tuple(_images(parts)),
            calls=tuple(
                call_of(call["id"], call["function"]["name"], call["function"]["arguments"], results[call["id"]])
                for call in message.get("toolCalls") or ()
                if call["id"] in results
            ),
        )


def _images(parts: list[Any]) -> Iterator[str]:
    """Yield the images of a multimodal message.

    They are `image` parts with a data source, or older `binary` parts.
    """
    for part in parts:
        source = part.get("source", {}) if part["type"] == "image" else part
        data = source.get("value") or source.get("data")
        kind = source.get("mimeType", "")
        if part["type"] in {"image", "binary"} and data and kind.startswith("image/"):
            yield f"data:{kind};base64,{data}"


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(8)}"


AG_UI = Encoding(name="ag-ui", encoder=_AGUIEncoder, headers=STREAM_HEADERS, read=_read)
