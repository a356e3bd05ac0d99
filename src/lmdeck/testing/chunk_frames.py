"""Changes to single frames of a stream of chat chunks.

Frames of other endpoints stay unchanged.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lmdeck._encoders.event_stream import encode_event
from lmdeck._streaming.sse import SSEDecoder


def is_done(frame: bytes) -> bool:
    """Whether a frame is the end marker of a stream."""
    return frame.strip() == b"data: [DONE]"


def _chunk(frame: bytes) -> dict[str, Any] | None:
    """Return a frame as a chat chunk; None if it is not one."""
    if not frame.startswith(b"data: {"):
        return None
    chunk = msgspec.json.decode(frame[len(b"data: ") :])
    return chunk if isinstance(chunk, dict) and chunk.get("object") == "chat.completion.chunk" else None


def _frame(chunk: dict[str, Any]) -> bytes:
    return encode_event(msgspec.json.encode(chunk))


def opens_or_finishes(frame: bytes) -> bool:
    """Whether a frame starts a tool call or has a finish reason."""
    chunk = _chunk(frame)
    if chunk is None or not chunk["choices"]:
        return False
    choice = chunk["choices"][0]
    calls = choice["delta"].get("tool_calls") or ()
    return choice["finish_reason"] is not None or any(call.get("id") for call in calls)


def empty_like(frame: bytes) -> bytes:
    """Return empty chunks of the same answer."""
    chunk = _chunk(frame)
    if chunk is None:
        return b""
    nothing = {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": None}
    return _frame({**chunk, "choices": []}) + _frame({**chunk, "choices": [nothing]})


def with_odd_indices(frame: bytes) -> bytes:
    """Return the frame with tool-call indices that descend from seven by twos."""
    chunk = _chunk(frame)
    if chunk is None:
        return frame
    for choice in chunk["choices"]:
        for call in choice["delta"].get("tool_calls") or ():
            call["index"] = 7 - 2 * call["index"]
    return _frame(chunk)


def without_role(frame: bytes) -> bytes:
    """Return the frame without the role, and with null for missing fields."""
    chunk = _chunk(frame)
    if chunk is None:
        return frame
    for choice in chunk["choices"]:
        choice["delta"].pop("role", None)
        choice["delta"] = {"reasoning_content": None, "tool_calls": None, **choice["delta"]}
    return _frame({**chunk, "usage": chunk.get("usage")})


def as_body(stream: bytes) -> bytes | None:
    """Return a stream of chat chunks as one body; None for other streams."""
    events = SSEDecoder().feed(stream)
    chunks = [msgspec.json.decode(event.data) for event in events if event.data != b"[DONE]"]
    if not chunks or any(chunk.get("object") != "chat.completion.chunk" for chunk in chunks):
        return None
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: list[dict[str, Any]] = []
    reason, usage = None, None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            reason = choice["finish_reason"] or reason
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] = message.get(name, "") + delta.get(name, "")
            for call in delta.get("tool_calls") or ():
                if call.get("id"):
                    calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
                else:
                    calls[-1]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    head = {name: chunks[0][name] for name in ("id", "created", "model")}
    return msgspec.json.encode({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
