"""`/v1/responses`: an answer's blocks as OpenAI's events, or as the output of a whole response.

Source: LM Studio's docs, `3_openai-compat/responses.md`; OpenAI's Responses API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.server.blocks import Begin, Blocks, End, More
from lmdeck.server.encoders.common import item_id, named_event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from lmdeck.server.blocks import Block, Told

__all__ = ["ResponseEncoder"]

_PREFIXES = {"text": "msg", "reasoning": "rs", "call": "fc"}


class ResponseEncoder:
    """Write one response: `blocks` reads the events, `frames` writes what they told.

    `template` holds the fields of the response object that do not change while it is made. Calls of the tools named in
    `custom` are written as `custom_tool_call`, whose input is the text of their one argument, `input`.
    """

    def __init__(self, template: Mapping[str, Any], custom: Collection[str] = ()) -> None:
        self.blocks = Blocks()
        self.template = dict(template)
        self._custom = custom
        self._items: dict[int, dict[str, Any]] = {}
        self._sequence = -1

    def begin(self) -> bytes:
        """Write the two events that open a response."""
        begun = self.body("in_progress", output=[])
        return self.event("response.created", response=begun) + self.event("response.in_progress", response=begun)

    def frames(self, told: Told) -> bytes:
        """Write what happened to a block."""
        return b"".join(self._frames(told))

    def insert(self, index: int, item: Mapping[str, Any]) -> None:
        """Put an item that is not one of the blocks at its place in the output."""
        self._items[index] = dict(item)

    def end(self, body: Mapping[str, Any]) -> bytes:
        """Write the event that ends a response, named after its status."""
        return self.event(f"response.{body['status']}", response=body)

    def failure(self, code: str, message: str) -> bytes:
        """Write the event of a response that failed."""
        return self.end(self.body("failed", error={"code": code, "message": message}))

    def body(self, status: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401  # fields of the response object
        """Return the response object with all blocks so far as its output."""
        return {**self.template, "status": status, "output": self.output(), **fields}

    def output(self) -> list[dict[str, Any]]:
        """Return the items of the output so far."""
        for block in self.blocks.all:
            self._note(block)
        items = {block.index: self._item(block) for block in self.blocks.all}
        return [items.get(index, item) for index, item in sorted(self._items.items())]

    def event(self, kind: str, **fields: object) -> bytes:
        """Write one event with the next sequence number."""
        self._sequence += 1
        return named_event(kind, {"type": kind, **fields, "sequence_number": self._sequence})

    def _note(self, block: Block) -> None:
        """Reserve the block's place in the output and its item's id."""
        if block.index not in self._items:
            self._items[block.index] = {"id": item_id("ctc" if self._is_custom(block) else _PREFIXES[block.kind])}

    def _is_custom(self, block: Block) -> bool:
        return block.kind == "call" and block.name in self._custom

    def _item(self, block: Block, status: str = "completed") -> dict[str, Any]:
        base = {"id": self._items[block.index]["id"], "status": status}
        has_begun_only = status == "in_progress"
        match block.kind:
            case "text":
                content = [] if has_begun_only else [_part(block)]
                return {**base, "type": "message", "role": "assistant", "content": content}
            case "reasoning":
                content = [] if has_begun_only else [_part(block)]
                return {**base, "type": "reasoning", "summary": [], "content": content}
        if self._is_custom(block):
            text = "" if has_begun_only else custom_input(block)
            return {**base, "type": "custom_tool_call", "call_id": block.id, "name": block.name, "input": text}
        if block.provider is None:
            arguments = "" if has_begun_only else block.text
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

    def _frames(self, told: Told) -> Iterator[bytes]:
        match told:
            case Begin(block=block):
                self._note(block)
                item = self._item(block, "in_progress")
                yield self.event("response.output_item.added", output_index=block.index, item=item)
                if block.kind != "call":
                    part = {**_part(block), "text": ""}
                    yield self.event("response.content_part.added", **self._place(block), part=part)
            case More(block=block, text=text) if not self._is_custom(block):
                yield self.event(f"{_name(block)}.delta", **self._place(block), **_logprobs(block), delta=text)
            case End(block=block):
                yield from self._ended(block)

    def _ended(self, block: Block) -> Iterator[bytes]:
        place = self._place(block)
        if self._is_custom(block):
            text = custom_input(block)
            yield self.event("response.custom_tool_call_input.delta", **place, delta=text)
            yield self.event("response.custom_tool_call_input.done", **place, input=text)
        elif block.kind == "call":
            yield self.event(f"{_name(block)}.done", **place, name=block.name, arguments=block.text)
        else:
            yield self.event(f"{_name(block)}.done", **place, **_logprobs(block), text=block.text)
            yield self.event("response.content_part.done", **place, part=_part(block))
        yield self.event("response.output_item.done", output_index=block.index, item=self._item(block))

    def _place(self, block: Block) -> dict[str, Any]:
        place = {"item_id": self._items[block.index]["id"], "output_index": block.index}
        return place if block.kind == "call" else {**place, "content_index": 0}


def custom_input(block: Block) -> str:
    """Return the text that a custom tool is called with: its one argument, or all the arguments as they were written."""
    text = block.arguments.get("input")
    return text if isinstance(text, str) else block.text


def _name(block: Block) -> str:
    if block.provider is not None:
        return "response.mcp_call_arguments"
    names = {"text": "output_text", "reasoning": "reasoning_text", "call": "function_call_arguments"}
    return f"response.{names[block.kind]}"


def _logprobs(block: Block) -> dict[str, list[object]]:
    return {"logprobs": []} if block.kind == "text" else {}


def _part(block: Block) -> dict[str, Any]:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}
