"""What the contenders without a client library share: the request, typed answers by msgspec, and events from bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

QUESTION = "Count the sheep."
PATH = "/v1/chat/completions"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "write",
        "description": "Write a text.",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
}


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    index: int = 0


class Usage(Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Answer(Struct, gc=False):
    """A chunk or a whole answer, with the fields that a client needs."""

    choices: list[Choice]
    id: str = ""
    model: str = ""
    usage: Usage | None = None


decode = msgspec.json.Decoder(Answer).decode


def request_body(model: str, *, stream: bool, tools: list[dict[str, Any]] | None = None) -> bytes:
    """Write the same request that a client writes."""
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if tools:
        body["tools"] = tools
    return msgspec.json.encode(body)


def whole(body: bytes) -> str:
    """Give the content of a whole answer."""
    message = decode(body).choices[0].message
    if message is None or message.content is None:
        raise ValueError("the answer has no content")
    return message.content


class Events:
    """The events of a stream, however its bytes are cut; `done` after the end mark."""

    def __init__(self) -> None:
        self._rest = b""
        self.done = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the content, or the arguments of a call, of each whole event in the bytes."""
        events = (self._rest + data).split(b"\n\n")
        self._rest = events.pop()
        for event in events:
            if event == b"data: [DONE]":
                self.done = True
            elif event.startswith(b"data: "):
                choices = decode(event[6:]).choices
                if choices and (delta := choices[0].delta):
                    if delta.content:
                        yield delta.content
                    elif delta.tool_calls and (function := delta.tool_calls[0].function) and function.arguments:
                        yield function.arguments


class Chunked:
    """A chunked body, however its bytes are cut; `done` after its last chunk."""

    def __init__(self) -> None:
        self._rest = b""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Take the framing off the chunks that are whole."""
        data = self._rest + data
        pieces = []
        position = 0
        while (line_end := data.find(b"\r\n", position)) >= 0:
            size = int(data[position:line_end], 16)
            start = line_end + 2
            if start + size + 2 > len(data):
                break
            position = start + size + 2
            if not size:
                self.done = True
                break
            pieces.append(data[start : start + size])
        self._rest = data[position:]
        return b"".join(pieces)
