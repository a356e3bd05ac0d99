"""The writer for `/v1/messages`.

Text, thinking and calls are written as new blocks; other blocks are passed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lmdeck._chunks import Chunk
from lmdeck._encoders.blocks import Blocks
from lmdeck._encoders.common import item_id, named_event
from lmdeck._encoders.messages import (
    STOP_REASONS,
    begin_frame,
    block_frame,
    content_block,
    end_frames,
)
from lmdeck.messages import Reply
from lmdeck.relay.writing import HEARTBEAT, decoded, events_of, receipt, writable

__all__ = ["MessagesWriter"]

_READ = {"text", "thinking", "redacted_thinking", "tool_use"}
_SAME_REASON = {("stop_sequence", "stop")}


class MessagesWriter:
    """The writer of an answer of `/v1/messages`, as events or as one message."""

    around_text = None

    def __init__(self, *, streams: bool, model: str) -> None:
        self._streams = streams
        self._head: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._foreign: dict[object, tuple[int, dict[str, Any]]] = {}
        self._blocks = Blocks()
        self._has_begun = False
        self._model = model
        self._out: list[bytes] = []

    def observe(self, data: bytes, chunks: Sequence[Chunk]) -> None:
        """Process an event's data, or a complete body, and the chunks read from it."""
        event = decoded(data)
        before = len(self._out)
        is_passed = event is not None and self._note(event)
        for chunk in writable(chunks):
            self._begin()
            for each in events_of(chunk):
                self._out += [block_frame(event) for event in self._blocks.feed(each)]
        if data and self._has_begun and len(self._out) == before and not is_passed:
            self._out.append(HEARTBEAT)

    def end(self, reply: Reply) -> None:
        """Write the end of the stream: of the last block, the stop reason, and the usage."""
        self._begin()
        self._out += [block_frame(event) for event in self._blocks.finish()]
        delta = {**self._last, **self._stop(reply)}
        self._out.append(end_frames(delta, self._counted(reply), lmdeck=receipt(reply)))

    def body(self, reply: Reply) -> bytes:
        """Return the complete message."""
        foreign = [block for _, block in self._foreign.values()]
        content = [content_block(block) for block in self._blocks.all if block.kind != "text" or block.text.strip()]
        self._fill_head()
        body = {**self._head, "content": [*foreign, *content], **self._last, **self._stop(reply)}
        return msgspec.json.encode({**body, "usage": self._counted(reply), "lmdeck": receipt(reply)})

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """Return the event of a stream that failed."""
        return named_event("error", error)

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _note(self, event: dict[str, Any]) -> bool:
        """Store what the end needs, and pass on blocks of other types.

        Return whether the event was passed on.
        """
        match event.get("type"):
            case "message_start":
                self._take_head(event.get("message") or {})
                self._begin()
            case "message":
                self._take_head(event)
                for index, block in enumerate(event.get("content") or ()):
                    if isinstance(block, dict) and block.get("type") not in _READ:
                        self._foreign[index] = (index, block)
            case "message_delta":
                self._last = dict(event.get("delta") or {})
                self._usage |= event.get("usage") or {}
            case "content_block_start" | "content_block_delta" | "content_block_stop":
                return self._pass_block(event)
            case "message_stop" | "error":
                pass
            case kind:
                self._out.append(named_event(str(kind), event))
                return True
        return False

    def _take_head(self, message: Mapping[str, Any]) -> None:
        own = {"content", "stop_reason", "stop_sequence", "usage"}
        self._head = {name: value for name, value in message.items() if name not in own}
        self._last = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
        self._usage = dict(message.get("usage") or {})

    def _pass_block(self, event: dict[str, Any]) -> bool:
        """Pass on a block of another type with its new index.

        An example is the result of a tool that the server ran.
        """
        place = event.get("index")
        block = event.get("content_block")
        if isinstance(block, dict) and block.get("type") not in _READ:
            self._begin()
            self._out += [block_frame(event) for event in self._blocks.finish()]
            self._foreign[place] = (self._blocks.skip(), block)
        elif event["type"] == "content_block_start":
            self._foreign.pop(place, None)
        if place not in self._foreign:
            return False
        self._out.append(named_event(event["type"], {**event, "index": self._foreign[place][0]}))
        return True

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._fill_head()
            self._out.append(begin_frame({**self._head, **({"usage": self._usage} if self._usage else {})}))

    def _fill_head(self) -> None:
        self._head = {"id": item_id("msg"), "type": "message", "role": "assistant", "model": self._model, **self._head}

    def _stop(self, reply: Reply) -> dict[str, Any]:
        """Return the stop reason; the server's own if it has the same meaning."""
        reason = self._last.get("stop_reason")
        own = STOP_REASONS.get(reply.finish_reason, reply.finish_reason)
        is_same = reason == own or (reason, reply.finish_reason) in _SAME_REASON
        return {"stop_reason": reason if is_same else own, "stop_sequence": self._last.get("stop_sequence")}

    def _counted(self, reply: Reply) -> dict[str, Any]:
        counts = reply.usage
        known = {"input_tokens": counts.prompt_tokens, "output_tokens": counts.completion_tokens} if counts else {}
        return {"input_tokens": 0, "output_tokens": 0, **self._usage, **known}
