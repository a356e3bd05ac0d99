"""Writers for `/v1/chat/completions` and `/v1/completions`: the server's chunks, repaired.

A chunk that needs no repair is passed on byte for byte, and unknown fields are unchanged. The chunk with the finish reason is
held back until the end, since calls and problems can follow it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lmdeck._chunks import Chunk
from lmdeck._encoders.chat import call_entry
from lmdeck._encoders.common import DONE, answer_id, data_event
from lmdeck._encoders.event_stream import encode_event
from lmdeck.messages import Reply, ToolCall
from lmdeck.relay.writing import HEARTBEAT, arguments_of, decoded, receipt, writable

__all__ = ["ChatWriter", "CompletionWriter"]

QUOTE = b'"'
_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_DELTA_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")


class ChatWriter:
    """The writer of an answer of `/v1/chat/completions`, as chunks or as one body."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def __init__(self, *, streams: bool, includes_usage: bool, custom: set[str], model: str) -> None:
        self._streams = streams
        self._includes_usage = includes_usage
        self._custom = custom
        self._head: dict[str, Any] = {}
        self._figures: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._place: object = None
        self._calls = 0
        self._model = model
        self._out: list[bytes] = []
        self.around_text: tuple[bytes, bytes] | None = None  # the bytes of the last event before and after its text

    def observe(self, data: bytes, chunks: Sequence[Chunk]) -> None:
        """Process an event's data, or a complete body, and the chunks read from it."""
        if self._has_only_other_text(data, chunks):
            self._out.append(b"data: " + data + b"\n\n")
            return
        body = decoded(data)
        choice = self._note(body) if body is not None else None
        if not self._streams:
            return
        fields = [self._fields_of(chunk) for chunk in writable(chunks)]
        if body is None or choice is None:
            self._out += [self._frame({}, self._choice, each) for each in fields]
        else:
            self._write(data, body, choice, fields)

    def end(self, reply: Reply) -> None:
        """Write the chunk with the finish reason, the usage, and the end mark."""
        figures = self._figures if self._figures.get("usage") else {**self._figures, **_usage(reply)}
        choice = {**self._rest(self._choice), **self._choice_fields({}, {}), "finish_reason": reply.finish_reason}
        last = {"lmdeck": receipt(reply)}
        if self._includes_usage and figures.get("usage"):
            self._out.append(data_event({**self._first_fields(), "choices": [choice]}))
            self._out.append(data_event({**self._first_fields(), "choices": [], **figures, **last}))
        else:
            self._out.append(data_event({**self._first_fields(), "choices": [choice], **figures, **last}))
        self._out.append(DONE)

    def body(self, reply: Reply) -> bytes:
        """Return the complete answer as one body."""
        head = {**self._first_fields(), "object": self.object}
        choice = {**self._rest(self._choice), **self._whole(reply), "finish_reason": reply.finish_reason}
        figures = self._figures if self._figures.get("usage") else {**self._figures, **_usage(reply)}
        return msgspec.json.encode({**head, "choices": [choice], **figures, "lmdeck": receipt(reply)})

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """Return the event of a stream that failed."""
        return data_event(error)

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _note(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Store what the end of the answer needs; return the choice of the event, or None."""
        choices = body.get("choices")
        for name, value in body.items():
            if name in _HEAD:
                self._head.setdefault(name, value)
            elif name != "choices" and value is not None:
                self._figures[name] = value
        if not isinstance(choices, list) or not choices:
            return None
        first = choices[0]
        if not self._choice:
            self._place = first.get("index", 0)
        choice: dict[str, Any] | None = next((each for each in choices if each.get("index", 0) == self._place), None)
        if choice is not None and (not self._choice or choice.get("finish_reason")):
            self._choice = choice
        return choice

    def _write(self, data: bytes, body: dict[str, Any], choice: dict[str, Any], fields: list[dict[str, Any]]) -> None:
        """Write the chunks of one event: the event itself if it needs no repair, else new ones."""
        is_last = bool(choice.get("finish_reason") or "message" in choice)
        if not is_last:
            original = self._original(choice)
            is_same = fields == [original] if original else not fields
            if is_same and body.keys() >= {"id", "object", "created", "model"}:
                self.around_text = _around_text(data, original)
                self._out.append(b"data: " + data + b"\n\n" if b"\n" not in data else encode_event(data))
                return
            if not fields and not self._has_more(choice):
                self._out.append(HEARTBEAT)
                return
            fields = fields or [{}]
        head = {name: value for name, value in body.items() if name in _HEAD} if is_last else body
        for number, each in enumerate(fields):
            self._out.append(self._frame(head, choice if number == 0 else self._rest(choice), each))

    def _has_only_other_text(self, data: bytes, chunks: Sequence[Chunk]) -> bool:
        """Whether an event differs from the last one only in its text, and needs no repair."""
        if self.around_text is None or len(chunks) != 1:
            return False
        [chunk], (head, tail) = chunks, self.around_text
        if chunk.tool_call is not None or not chunk.content:
            return False
        return data == b"".join((head[:-1], msgspec.json.encode(chunk.content), tail[1:]))

    def _frame(self, head: Mapping[str, Any], choice: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
        whole = {**self._first_fields(), **head, "object": self.chunk_object}
        return data_event({
            **whole,
            "choices": [{**self._rest(choice), **self._choice_fields(choice, fields), "finish_reason": None}],
        })  # fmt: skip

    def _first_fields(self) -> dict[str, Any]:
        """Return the fields that every chunk has, with defaults for missing ones."""
        if "id" not in self._head:
            self._head["id"] = answer_id(self.id_prefix)
        self._head.setdefault("created", int(time.time()))
        self._head.setdefault("model", self._model)
        return {**self._head, "object": self.chunk_object}

    def _rest(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a choice other than its output."""
        rest = {name: value for name, value in choice.items() if name not in {"delta", "message", "text"}}
        return {"index": self._place or 0, "logprobs": None, **rest}

    def _has_more(self, choice: Mapping[str, Any]) -> bool:
        """Whether a choice has other fields than its output."""
        delta = choice.get("delta") or {}
        more = any(value is not None for name, value in delta.items() if name not in {*_DELTA_FIELDS, "role"})
        return more or choice.get("logprobs") is not None

    def _original(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return the output of a chunk of the server, in the form of `_fields_of`."""
        delta = choice.get("delta") or {}
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        fields = {"content": delta.get("content"), "reasoning_content": reasoning}
        fields["tool_calls"] = delta.get("tool_calls") or delta.get("refusal")
        return {name: value for name, value in fields.items() if value}

    def _fields_of(self, chunk: Chunk) -> dict[str, Any]:
        """Return the output of a chunk as the fields of a delta."""
        if chunk.tool_call is not None:
            self._calls += 1
            return {"tool_calls": [{"index": self._calls - 1, **self._entry(chunk.tool_call)}]}
        return {"content": chunk.content} if chunk.content else {"reasoning_content": chunk.reasoning}

    def _entry(self, call: ToolCall) -> dict[str, Any]:
        if call.name in self._custom:
            text = call.arguments.get("input")
            value = text if isinstance(text, str) else call.raw_arguments
            return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": value}}
        return call_entry(call.id, call.name, arguments_of(call))

    def _choice_fields(self, choice: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the output fields of a chunk's choice."""
        delta = choice.get("delta") or {}
        others = {name: value for name, value in delta.items() if name not in _DELTA_FIELDS}
        return {"delta": {**({"role": "assistant"} if fields else {}), **others, **fields}}

    def _whole(self, reply: Reply) -> dict[str, Any]:
        """Return the output fields of a complete body's choice."""
        sent = self._choice.get("message") or {}
        message = {name: value for name, value in sent.items() if name not in _DELTA_FIELDS}
        content, reasoning = sent.get("content"), sent.get("reasoning_content") or sent.get("reasoning")
        is_same = isinstance(content, str) and content.strip() == reply.content
        message |= {"role": "assistant", "content": content if is_same else reply.content}
        if reply.reasoning:
            key = "reasoning" if sent.get("reasoning") and not sent.get("reasoning_content") else "reasoning_content"
            is_same = isinstance(reasoning, str) and reasoning.strip() == reply.reasoning
            message[key] = reasoning if is_same else reply.reasoning
        if reply.tool_calls:
            message["tool_calls"] = [self._entry(call) for call in reply.tool_calls]
        return {"message": message}


class CompletionWriter(ChatWriter):
    """The writer of an answer of `/v1/completions`."""

    object = chunk_object = "text_completion"
    id_prefix = "cmpl"

    def _original(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": choice["text"]} if choice.get("text") else {}

    def _fields_of(self, chunk: Chunk) -> dict[str, Any]:
        return {"text": chunk.content}

    def _choice_fields(self, choice: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:  # as above
        return {"text": fields.get("text", "")}

    def _whole(self, reply: Reply) -> dict[str, Any]:
        text = self._choice.get("text")
        is_same = isinstance(text, str) and text.strip() == reply.content
        return {"text": text if is_same else reply.content}


def _around_text(data: bytes, output: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    """Return the bytes of an event before and after its text, each with its quotation mark.

    None if it has other output, or if the position of its text is ambiguous.
    """
    if len(output) != 1 or b"\n" in data or not (text := output.get("content") or output.get("text")):
        return None
    head, found, tail = data.partition(msgspec.json.encode(text))
    return (head + QUOTE, QUOTE + tail) if found and found not in tail else None


def _usage(reply: Reply) -> dict[str, Any]:
    return {"usage": reply.usage.to_dict()} if reply.usage else {}
