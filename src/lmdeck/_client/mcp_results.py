"""Conversion of an MCP tool's result into the text and images that a handler returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck.images import Image
from lmdeck.tools.tool import ToolFailed

if TYPE_CHECKING:
    from mcp.types import CallToolResult


def read_tool_result(result: CallToolResult, name: str) -> object:
    """Return a result's text, or the list of its texts and images.

    Structured content is added as JSON, unless the texts repeat it.

    Source: MCP specification, `CallToolResult`.

    Raises:
        ToolFailed: The tool failed, with the server's message.
    """
    parts = [part for part in map(_part, result.content) if part]
    texts = [part for part in parts if isinstance(part, str)]
    if result.structured_content is not None and not _repeats(texts, result.structured_content):
        texts.append(msgspec.json.encode(result.structured_content).decode())
        parts.append(texts[-1])
    if result.is_error:
        raise ToolFailed("\n".join(texts) or f"The tool {name!r} failed.")
    return parts if len(texts) < len(parts) else "\n".join(texts)


def _repeats(texts: list[str], structured: dict[str, Any]) -> bool:
    """Whether texts have the structured content, as the specification recommends.

    A value that is not an object is sent as `{"result": value}`, and a list as one text for each item.
    """
    decoded = [_decoded(text) for text in texts]
    shown = [texts, decoded, *texts, *decoded]
    return structured in shown or (list(structured) == ["result"] and structured["result"] in shown)


def _decoded(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _part(part: Any) -> str | Image:  # one of MCP's content blocks, possibly of a later version
    match part.type:
        case "text":
            return str(part.text)
        case "image":
            return Image(f"data:{part.mime_type};base64,{part.data}")
        case "resource_link":
            details = (f"{part.name!r}", str(part.uri), part.mime_type or "", part.description or "")
            return f"[resource link: {', '.join(word for word in details if word)}]"
        case "resource":
            return _resource(part.resource)
        case "audio":
            return f"[audio, {part.mime_type}: it cannot be shown]"
        case _:
            return f"[{part.type}]"


def _resource(resource: Any) -> str | Image:  # text or base64, by its fields
    text = getattr(resource, "text", None)
    if text is not None:
        return str(text)
    kind = str(resource.mime_type or "")
    if kind.startswith("image/") and kind != "image/svg+xml":
        return Image(f"data:{kind};base64,{resource.blob}")
    return f"[resource: {resource.uri}, {kind or 'binary'}: it cannot be shown]"
