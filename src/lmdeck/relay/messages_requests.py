"""Conversion of requests of `/v1/messages` for LM Studio.

Sources: LM Studio's docs, `4_anthropic-compat/messages.md`; what Claude Code and Anthropic's SDK send.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.history import CallIds
from lmdeck._requests.images import checked_url
from lmdeck._requests.other_endpoints import anthropic_body
from lmdeck.relay.tool_conversion import object_schema

__all__ = ["message_body"]

_PASSED = ("text", "thinking", "redacted_thinking")


def message_body(sent: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return the body; unknown fields are unchanged.

    Raises:
        ConfigurationError: There is no message, or an image that cannot be sent.
    """
    body = {name: value for name, value in sent.items() if value is not None}
    blocks = _Blocks(fixes)
    body["messages"] = [blocks.message(each) for each in body.get("messages") or () if isinstance(each, Mapping)]
    if "tools" in body:
        body["tools"] = list(_tools(body["tools"], fixes))
    if not body.get("tools"):
        body.pop("tools", None)
        body.pop("tool_choice", None)
    return anthropic_body(body, fixes)


def _tools(tools: object, fixes: CompatibilityFixes) -> Iterator[dict[str, Any]]:
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, Mapping):
            continue
        kind = tool.get("type", "custom")
        if isinstance(tool.get("function"), Mapping):
            function = dict(tool["function"])
            parameters = object_schema(function.get("name"), function.get("parameters"), fixes)
            yield {"type": "function", "function": {**function, "parameters": parameters}}
        elif kind == "custom" or "input_schema" in tool:
            yield {**tool, "input_schema": object_schema(tool.get("name"), tool.get("input_schema"), fixes)}
        else:
            fixes.apply("server_tools", f"The tool {kind!r}, which only Anthropic's servers run, was removed.")


class _Blocks:
    """The conversion of the messages of one history."""

    def __init__(self, fixes: CompatibilityFixes) -> None:
        self._fixes = fixes
        self._ids = CallIds(fixes)

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message in the form that LM Studio accepts."""
        content = message.get("content")
        if content is None:
            self._fixes.apply("null_content", "A message's null content was sent as an empty string.")
            return {**message, "content": ""}
        if message.get("role") == "system":  # `anthropic_body` moves it to the field `system`
            return {**message, "content": _text(content)}
        if not isinstance(content, list):
            return dict(message)
        return {**message, "content": [block for each in content for block in self._blocks(each)]}

    def _blocks(self, block: object) -> Iterator[dict[str, Any]]:
        """Return a block in the form that LM Studio accepts.

        The images of a tool's result follow it as separate blocks.
        """
        if isinstance(block, str):
            yield {"type": "text", "text": block}
        if not isinstance(block, Mapping):
            return
        kind = block.get("type")
        if kind == "image":
            yield _image(block, self._fixes)
        elif kind == "tool_use":
            id_ = self._ids.unique(block.get("id"), "A tool_use block")
            yield {**block, "id": id_, "input": _input(block.get("input"))}
        elif kind == "tool_result":
            id_ = self._ids.result(block.get("tool_use_id"), "A tool_result block")
            yield from _result({**block, "tool_use_id": id_}, self._fixes)
        elif kind in _PASSED:
            yield dict(block)
        else:
            self._fixes.apply("server_tools", f"A block of the type {kind!r}, unknown to LM Studio, was removed.")


def _input(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            value = {"input": value}
    return dict(value) if isinstance(value, Mapping) else {}


def _result(block: Mapping[str, Any], fixes: CompatibilityFixes) -> Iterator[dict[str, Any]]:
    content = block.get("content")
    if not isinstance(content, list):
        yield {**block, "content": "" if content is None else content}
        return
    texts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    images = [part for part in content if isinstance(part, Mapping) and part.get("type") == "image"]
    if images:
        fixes.apply("content_parts", "The images of a tool's result were sent after it as separate blocks.")
    if len(texts) + len(images) < len(content):
        fixes.apply("content_parts", "Parts of a tool's result that are unknown to LM Studio were removed.")
    yield {**block, "content": texts}
    for image in images:
        yield _image(image, fixes)


def _image(block: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    source = block.get("source")
    if not isinstance(source, Mapping) or not fixes.is_enabled("images"):
        return dict(block)
    url = str(source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}")
    head, _, data = checked_url(url, fixes).partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    return {**block, "source": {"type": "base64", "media_type": media_type, "data": data}}


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n\n".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content)
