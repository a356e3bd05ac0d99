"""`/v1/messages`: Anthropic's events and body, as LM Studio sends them.

Sources: LM Studio docs `4_anthropic-compat/messages.md`, Anthropic's Messages API reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmdeck._streaming.translator import Json, call_delta, completion, entries, finished, text_of, token_usage, untyped
from lmdeck._streaming.wire_chunks import Choice, Delta, WireCompletion
from lmdeck.messages import ServerCall
from lmdeck.native_events import StreamEvent

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
SERVER_TOOLS = ("server_tool_use", "mcp_tool_use")


class AnthropicTranslator:
    """A translator for `/v1/messages`."""

    def __init__(self) -> None:
        self.is_done = False
        self.is_in_call = False
        self.server_calls: list[ServerCall] = []
        self._usage: dict[str, Any] = {}
        self._inputs: dict[int | None, Json | str] = {}

    def typed(self, data: dict[str, Any]) -> StreamEvent:
        """Return the event under Anthropic's name."""
        return untyped(data)

    def failure(self, data: Json) -> object:
        """Return an `error` event, the only form in which failures come."""
        return data if data.get("type") == "error" else None

    def event(self, data: Json) -> Iterator[WireCompletion]:
        """Yield the chunks that an event means."""
        match data.get("type"):
            case "message_start":
                message = _object(data.get("message"))
                self._usage |= _counts(message.get("usage"))
                yield completion(id=str(message.get("id") or ""), model=str(message.get("model") or ""))
            case "content_block_start":
                yield from self._open(_index(data), _object(data.get("content_block")))
            case "content_block_delta":
                yield from self._delta(_index(data), _object(data.get("delta")))
            case "content_block_stop":
                arguments = self._inputs.pop(_index(data), None)
                if arguments:
                    yield completion(Delta(tool_calls=[call_delta(_index(data), arguments=arguments)]))
            case "message_delta":
                self._usage |= _counts(data.get("usage"))
                reason = _object(data.get("delta")).get("stop_reason")
                if reason:
                    yield finished(REASONS.get(str(reason), str(reason)), usage=token_usage(self._usage))
            case "message_stop":
                self.is_done = True

    def _open(self, index: int | None, block: Json) -> Iterator[WireCompletion]:
        kind = block.get("type")
        self.is_in_call = kind in SERVER_TOOLS
        if kind == "tool_use":
            self._inputs[index] = _input(block)  # already complete if no deltas follow
            yield completion(Delta(tool_calls=[call_delta(index, block.get("id"), str(block.get("name") or ""))]))
        elif kind in SERVER_TOOLS:
            self.server_calls.append(_server_call(block))
        elif delta := _block_delta(block):
            yield completion(delta)

    def _delta(self, index: int | None, delta: Json) -> Iterator[WireCompletion]:
        match delta.get("type"):
            case "input_json_delta" if fragment := delta.get("partial_json"):
                self._inputs.pop(index, None)
                yield completion(Delta(tool_calls=[call_delta(index, arguments=str(fragment))]))
            case "text_delta" if text := text_of(delta.get("text")):
                yield completion(Delta(content=text))
            case "thinking_delta" if text := text_of(delta.get("thinking")):
                yield completion(Delta(reasoning_content=text))

    def body(self, body: Json) -> WireCompletion | None:
        """Return the chunk that a whole body means; None if it is not a body of this endpoint."""
        if not isinstance(body.get("content"), (list, str)):
            return None
        blocks = entries(body["content"])
        self.server_calls = [_server_call(block) for block in blocks if block.get("type") in SERVER_TOOLS]
        deltas = [delta for block in blocks if (delta := _block_delta(block))]
        content = (
            body["content"] if isinstance(body["content"], str) else "".join(_str(each.content) for each in deltas)
        )
        calls = [
            call_delta(index, block.get("id"), str(block.get("name") or ""), _input(block))
            for index, block in enumerate(blocks)
            if block.get("type") == "tool_use"
        ]
        message = Delta(
            content=content,
            reasoning_content="".join(each.reasoning_content or "" for each in deltas),
            tool_calls=calls or None,
        )
        reason = str(body.get("stop_reason") or "end_turn")
        return WireCompletion(
            choices=[Choice(message=message, finish_reason=REASONS.get(reason, reason))],
            id=str(body.get("id") or ""),
            model=str(body.get("model") or ""),
            usage=token_usage(body.get("usage")),
        )


def _block_delta(block: Json) -> Delta | None:
    """Return the delta of a block of text or thinking; None for other blocks."""
    if block.get("type") == "text" and (text := text_of(block.get("text"))):
        return Delta(content=text)
    if block.get("type") == "thinking" and (text := text_of(block.get("thinking"))):
        return Delta(reasoning_content=text)
    return None


def _input(block: Json) -> Json | str:
    """Return the arguments of a call, which some servers send as JSON inside a string."""
    value = block.get("input")
    return value if isinstance(value, str) else _object(value)


def _server_call(block: Json) -> ServerCall:
    return ServerCall(
        id=str(block.get("id") or ""),
        name=str(block.get("name") or ""),
        arguments=_object(block.get("input")),
        provider={"type": str(block.get("type")), "server_label": block.get("server_name")},
    )


def _counts(usage: object) -> dict[str, Any]:
    """Return the token counts of an event.

    Null means that the event has nothing new (Aider-AI/aider#4382).
    """
    return {name: count for name, count in _object(usage).items() if count is not None}


def _index(data: Json) -> int | None:
    index = data.get("index")
    return index if isinstance(index, int) else None


def _object(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""
