"""The writer for `/v1/responses`.

Output is written as new items; items of other types are passed on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lmdeck._chunks import Chunk
from lmdeck._encoders.common import item_id
from lmdeck._encoders.responses import ResponseEncoder
from lmdeck.messages import Reply
from lmdeck.relay.writing import HEARTBEAT, decoded, events_of, receipt, writable

__all__ = ["ResponsesWriter"]

_READ_ITEMS = {"message", "reasoning", "function_call"}
_READ_EVENTS = (
    "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed",
    "response.content_part.", "response.output_text.", "response.refusal.", "response.reasoning_text.",
    "response.reasoning_summary", "response.reasoning.", "response.function_call_arguments.", "error",
)  # fmt: skip
_MADE_AT_THE_END = {"output", "status", "usage", "incomplete_details", "error"}


class ResponsesWriter:
    """The writer of an answer of `/v1/responses`, as events or as one response object."""

    around_text = None

    def __init__(self, *, streams: bool, custom: set[str], model: str) -> None:
        self._streams = streams
        made_up = {"id": item_id("resp"), "object": "response", "created_at": int(time.time()), "model": model}
        self._encoder = ResponseEncoder(
            {"error": None, "incomplete_details": None, "usage": None, **made_up}, custom=custom
        )
        self._final: dict[str, Any] = {}
        self._places: dict[object, int] = {}
        self._has_begun = False
        self._out: list[bytes] = []

    def observe(self, data: bytes, chunks: Sequence[Chunk]) -> None:
        """Process an event's data, or a complete body, and the chunks read from it."""
        event = decoded(data)
        before = len(self._out)
        if event is not None:
            self._note(event)
        for chunk in writable(chunks):
            self._begin()
            for each in events_of(chunk):
                self._out += [self._encoder.frames(event) for event in self._encoder.blocks.feed(each)]
        if data and self._has_begun and len(self._out) == before:
            self._out.append(HEARTBEAT)

    def end(self, reply: Reply) -> None:
        """Write the end of the stream: the end of the last item, then the complete response."""
        self._begin()
        self._out += [self._encoder.frames(event) for event in self._encoder.blocks.finish()]
        self._out.append(self._encoder.end(self._whole(reply)))

    def body(self, reply: Reply) -> bytes:
        """Return the complete response object."""
        return msgspec.json.encode(self._whole(reply))

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """Return the events of a failed stream.

        They are the failed response, and the error that OpenAI's clients raise.
        """
        self._begin()
        fields = error["error"]
        code, message = str(fields.get("code") or "server_error"), str(fields.get("message"))
        failed = self._encoder.failure(code, message)
        flat = {"code": code, "message": message, "param": fields.get("param")}
        return self.take() + failed + self._encoder.event("error", **flat, error=fields)

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _note(self, event: dict[str, Any]) -> None:
        """Store what the end needs, and pass on items of other types."""
        kind = str(event.get("type") or "")
        response = event.get("response") if kind else event
        if isinstance(response, dict):
            self._take_response(response)
        item = event.get("item")
        if kind in {"response.output_item.added", "response.output_item.done"} and isinstance(item, dict):
            self._pass_item(event, item)
        elif kind and not kind.startswith((*_READ_EVENTS, "response.output_item.")):
            self._pass_on(event)
        if not kind:
            for item in event.get("output") or ():
                if isinstance(item, dict) and item.get("type") not in _READ_ITEMS:
                    self._encoder.insert(self._encoder.blocks.skip(), item)

    def _take_response(self, response: dict[str, Any]) -> None:
        self._encoder.template |= {
            name: value for name, value in response.items() if name not in _MADE_AT_THE_END and value is not None
        }
        self._final = response

    def _pass_item(self, event: dict[str, Any], item: dict[str, Any]) -> None:
        """Pass on an item of another type with its new index.

        An example is a call that the server made itself.
        """
        if item.get("type") in _READ_ITEMS:
            return
        self._begin()
        key = item.get("id") or event.get("output_index")
        if key not in self._places:
            self._out += [self._encoder.frames(event) for event in self._encoder.blocks.finish()]
            self._places[key] = self._encoder.blocks.skip()
        self._encoder.insert(self._places[key], item)
        self._pass_on(event)

    def _pass_on(self, event: dict[str, Any]) -> None:
        self._begin()
        fields = {name: value for name, value in event.items() if name not in {"type", "sequence_number"}}
        item = event.get("item")
        named = event.get("item_id") or (item.get("id") if isinstance(item, dict) else None)
        if named in self._places:
            fields["output_index"] = self._places[named]
        self._out.append(self._encoder.event(str(event["type"]), **fields))

    def _begin(self) -> None:
        if self._streams and not self._has_begun:
            self._has_begun = True
            self._out.append(self._encoder.begin())

    def _whole(self, reply: Reply) -> dict[str, Any]:
        """Return the complete response object: the server's, with the repaired output."""
        is_cut = reply.finish_reason in {"length", "content_filter"}
        final = {name: value for name, value in self._final.items() if name not in {"output", "status"}}
        details = {"reason": "max_output_tokens" if reply.finish_reason == "length" else "content_filter"}
        fields = {**final, "incomplete_details": details if is_cut else None, "lmdeck": receipt(reply)}
        if not fields.get("usage") and reply.usage:
            counts = reply.usage
            fields["usage"] = {
                "input_tokens": counts.prompt_tokens,
                "output_tokens": counts.completion_tokens,
                "total_tokens": counts.total_tokens,
            }
        return self._encoder.body("incomplete" if is_cut else "completed", **fields)
