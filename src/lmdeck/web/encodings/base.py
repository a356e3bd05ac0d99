"""What happens in an answer, as server-sent events: lmdeck's own for its page, and the two that other pages understand.

The page's events are JSON objects with a `type`: `content` and `reasoning` have new `text`; `call` is a piece of a tool call
that is being written (`index`, `id`, `name`, `arguments`), `running` a call whose tool was started, `result` what came of it;
`round` ends an answer that called tools, `done` the whole run; `error` has `message`, `hint` and `request_id`, under which the
log has it. `vercel` and `ag_ui` beside this module write the same happenings for their own front ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from lmdeck._streaming.sse import encode_comment, encode_event
from lmdeck.errors import ConfigurationError, LMStudioError
from lmdeck.events import (
    AgentEvent,
    Chunk,
    RoundFinished,
    ToolCallInvalid,
    ToolDone,
    ToolErrored,
    ToolRunning,
    ToolServerLost,
)
from lmdeck.messages import Reply, ToolResult

__all__ = ["BEAT", "PAGE", "STREAM_HEADERS", "Encoder", "Encoding", "Happening", "find_encoding"]

BEAT = encode_comment("waiting")
Happening: TypeAlias = AgentEvent | Reply | LMStudioError
"""What is told: the events of a run, then its reply, or the error that ended it."""

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx passes on what it gets
}


class Encoder(Protocol):
    """Writes one answer."""

    def encode(self, event: Happening) -> bytes:
        """Write what happened; nothing where the page need not know."""
        ...


class Encoding(Struct, frozen=True, kw_only=True):
    """One way to write answers: its name, the headers of a response, and what makes an encoder for each."""

    name: str
    encoder: Callable[[], Encoder]
    headers: Mapping[str, str]


class _PageEncoder:
    """Writes for lmdeck's own page."""

    def encode(self, event: Happening) -> bytes:
        """Write what happened."""
        return b"".join(encode_event(msgspec.json.encode(told)) for told in _told(event))


PAGE = Encoding(name="lmdeck", encoder=_PageEncoder, headers=STREAM_HEADERS)


def find_encoding(name: str) -> Encoding:
    """Give an encoding by its name: "lmdeck", "vercel" or "ag-ui".

    Raises:
        ConfigurationError: There is none.
    """
    from lmdeck.web.encodings.ag_ui import AG_UI
    from lmdeck.web.encodings.vercel import VERCEL

    known = {each.name: each for each in (PAGE, VERCEL, AG_UI)}
    if name not in known:
        raise ConfigurationError(f"There is no encoding {name!r}.", hint=f"Choose one of {', '.join(known)}.")
    return known[name]


def _told(event: Happening) -> list[dict[str, Any]]:
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
        case ToolServerLost():
            return []  # the results say what the user has to know
        case RoundFinished():
            return [{"type": "round", "round": event.round}] if event.reply.tool_calls else []
        case LMStudioError():
            told = {"type": "error", "message": event.message, "hint": event.hint}
            return [told if event.request_id is None else {**told, "request_id": event.request_id}]
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
