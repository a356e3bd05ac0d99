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

    Source: MCP specification, `CallToolResult`.

    Raises:
        ToolFailed: The tool failed, with the server's message.
    """
    parts = [_part(part) for part in result.content]
    if result.is_error:
        message = "\n".join(part for part in parts if isinstance(part, str) and part)
        raise ToolFailed(message or _structured(result) or f"The tool {name!r} failed.")
    if not any(parts) and (structured := _structured(result)):
        return structured
    if any(isinstance(part, Image) for part in parts):
        return parts
    return "\n".join(str(part) for part in parts)


def _structured(result: CallToolResult) -> str:
    """Return the structured content as JSON, or `""`."""
    return "" if result.structured_content is None else msgspec.json.encode(result.structured_content).decode()


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
