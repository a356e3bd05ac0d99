"""`/v1/responses`: the blocks of an answer as OpenAI's events or as a whole response.

The blocks are the output of that response.

Source: LM Studio's docs, `3_openai-compat/responses.md`; OpenAI's Responses API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck._encoders.blocks import BlockDelta, BlockEnd, Blocks, BlockStart
from lmdeck._encoders.common import item_id, named_event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from lmdeck._encoders.blocks import BlockEvent, OutputBlock

_PREFIXES = {"text": "msg", "reasoning": "rs", "call": "fc"}


class ResponseEncoder:
    """An encoder of one response.

    `blocks` reads the back end's events, `frames` encodes the block events.

    `template` holds the constant fields of the response object. Calls of the tools named in `custom` are encoded as
    `custom_tool_call`, whose input is the text of their single argument `input`.
    """

    def __init__(self, template: Mapping[str, Any], custom: Collection[str] = ()) -> None:
        self.blocks = Blocks()
        self.template = dict(template)
        self._custom = custom
        self._items: dict[int, dict[str, Any]] = {}
        self._sequence = -1

    def begin(self) -> bytes:
        """Return the two events at the start of a response."""
        response = self.body("in_progress", output=[])
        return self.event("response.created", response=response) + self.event("response.in_progress", response=response)

    def frames(self, event: BlockEvent) -> bytes:
        """Return the frames of a block event."""
        return b"".join(self._frames(event))

    def insert(self, index: int, item: Mapping[str, Any]) -> None:
        """Insert an item that is not a block into the output."""
        self._items[index] = dict(item)

    def end(self, body: Mapping[str, Any]) -> bytes:
        """Return the last event of a response, named after its status."""
        return self.event(f"response.{body['status']}", response=body)

    def failure(self, code: str, message: str) -> bytes:
        """Return the last event of a failed response."""
        return self.end(self.body("failed", error={"code": code, "message": message}))

    def body(self, status: str, **fields: Any) -> dict[str, Any]:  # fields of the response object
        """Return the response object with the blocks so far as its output."""
        return {**self.template, "status": status, "output": self.output(), **fields}

    def output(self) -> list[dict[str, Any]]:
        """Return the items of the output so far."""
        for block in self.blocks.all:
            self._assign_id(block)
        items = {block.index: self._item(block) for block in self.blocks.all}
        return [items.get(index, item) for index, item in sorted(self._items.items())]

    def event(self, kind: str, **fields: object) -> bytes:
        """Return an event with the next sequence number."""
        self._sequence += 1
        return named_event(kind, {"type": kind, **fields, "sequence_number": self._sequence})

    def _assign_id(self, block: OutputBlock) -> None:
        """Assign an item id to the block, at its index in the output."""
        if block.index not in self._items:
            self._items[block.index] = {"id": item_id("ctc" if self._is_custom(block) else _PREFIXES[block.kind])}

    def _is_custom(self, block: OutputBlock) -> bool:
        return block.kind == "call" and block.name in self._custom

    def _item(self, block: OutputBlock, status: str = "completed") -> dict[str, Any]:
        base = {"id": self._items[block.index]["id"], "status": status}
        is_empty = status == "in_progress"
        match block.kind:
            case "text":
                content = [] if is_empty else [_part(block)]
                return {**base, "type": "message", "role": "assistant", "content": content}
            case "reasoning":
                content = [] if is_empty else [_part(block)]
                return {**base, "type": "reasoning", "summary": [], "content": content}
        if self._is_custom(block):
            text = "" if is_empty else custom_input(block)
            return {**base, "type": "custom_tool_call", "call_id": block.id, "name": block.name, "input": text}
        if block.provider is None:
            arguments = "" if is_empty else block.text
            return {**base, "type": "function_call", "call_id": block.id, "name": block.name, "arguments": arguments}
        return {
            "id": base["id"],
            "type": "mcp_call",
            "name": block.name,
            "arguments": block.text,
            "server_label": block.provider.server_label or block.provider.plugin_id,
            "output": block.outcome.output if block.outcome else None,
            "error": block.outcome.reason if block.outcome else None,
        }

    def _frames(self, event: BlockEvent) -> Iterator[bytes]:
        match event:
            case BlockStart(block=block):
                self._assign_id(block)
                item = self._item(block, "in_progress")
                yield self.event("response.output_item.added", output_index=block.index, item=item)
                if block.kind != "call":
                    part = {**_part(block), "text": ""}
                    yield self.event("response.content_part.added", **self._position(block), part=part)
            case BlockDelta(block=block, text=text) if not self._is_custom(block):
                yield self.event(f"{_name(block)}.delta", **self._position(block), **_logprobs(block), delta=text)
            case BlockEnd(block=block):
                yield from self._end_frames(block)

    def _end_frames(self, block: OutputBlock) -> Iterator[bytes]:
        position = self._position(block)
        if self._is_custom(block):
            text = custom_input(block)
            yield self.event("response.custom_tool_call_input.delta", **position, delta=text)
            yield self.event("response.custom_tool_call_input.done", **position, input=text)
        elif block.kind == "call":
            yield self.event(f"{_name(block)}.done", **position, name=block.name, arguments=block.text)
        else:
            yield self.event(f"{_name(block)}.done", **position, **_logprobs(block), text=block.text)
            yield self.event("response.content_part.done", **position, part=_part(block))
        yield self.event("response.output_item.done", output_index=block.index, item=self._item(block))

    def _position(self, block: OutputBlock) -> dict[str, Any]:
        position = {"item_id": self._items[block.index]["id"], "output_index": block.index}
        return position if block.kind == "call" else {**position, "content_index": 0}


def custom_input(block: OutputBlock) -> str:
    """Return the input of a custom tool call.

    It is the argument `input`, or else the text of all arguments.
    """
    text = block.arguments.get("input")
    return text if isinstance(text, str) else block.text


def _name(block: OutputBlock) -> str:
    if block.provider is not None:
        return "response.mcp_call_arguments"
    names = {"text": "output_text", "reasoning": "reasoning_text", "call": "function_call_arguments"}
    return f"response.{names[block.kind]}"


def _logprobs(block: OutputBlock) -> dict[str, list[object]]:
    return {"logprobs": []} if block.kind == "text" else {}


def _part(block: OutputBlock) -> dict[str, Any]:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}
