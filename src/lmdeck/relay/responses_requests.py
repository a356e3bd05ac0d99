"""Conversion of requests of `/v1/responses` for LM Studio.

Sources: LM Studio's docs, `3_openai-compat/responses.md`; what OpenAI's Codex and Agents SDK send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.chat import ANY_OBJECT
from lmdeck._requests.history import CallIds
from lmdeck._requests.images import checked_url
from lmdeck._requests.other_endpoints import responses_body
from lmdeck._requests.schemas import plain_schema
from lmdeck.errors import UnknownToolError
from lmdeck.relay.tool_conversion import ForeignTools, custom_arguments, object_schema, read_tools

__all__ = ["response_body"]


def response_body(sent: Mapping[str, Any], fixes: CompatibilityFixes) -> tuple[dict[str, Any], set[str]]:
    """Return the body and the names of custom tools; unknown fields are unchanged.

    Raises:
        ConfigurationError: There is no input.
        UnknownToolError: `tool_choice` names a tool that is not offered.
    """
    body = {name: value for name, value in sent.items() if value is not None}
    if isinstance(body.get("input"), list):
        body["input"] = list(_items(body["input"], fixes))
    tools = read_tools(body.pop("tools", None), fixes, servers=("mcp",))
    choice, tools = _choice(body.pop("tool_choice", None), tools, fixes)
    functions = [
        {"type": "function", **tool, "parameters": object_schema(tool.get("name"), tool.get("parameters"), fixes)}
        for tool in tools.functions
    ]
    if functions or tools.servers:
        body["tools"] = [*functions, *tools.servers]
        if choice is not None:
            body["tool_choice"] = choice
    if body.get("text"):
        body["text"] = _text(body["text"], fixes)
    return responses_body(body, fixes), tools.custom


def _choice(value: object, tools: ForeignTools, fixes: CompatibilityFixes) -> tuple[object, ForeignTools]:
    """Return the choice as `none`, `auto` or `required`, and the remaining tools."""
    if not isinstance(value, Mapping):
        return value, tools
    kind = value.get("type")
    if kind == "allowed_tools":
        names = [entry.get("name") for entry in value.get("tools") or () if isinstance(entry, Mapping)]
        fixes.apply("tool_choice", "tool_choice allowed_tools was sent as those tools alone.")
        return value.get("mode", "auto"), tools.only(names)
    if kind not in {"function", "custom"}:
        fixes.apply("tool_choice", f"tool_choice {kind!r} names a tool that is not offered, and was removed.")
        return None, tools
    function = value.get("function")
    name = value.get("name") or (function.get("name") if isinstance(function, Mapping) else None)
    chosen = tools.only([name])
    if not chosen.functions:
        offered = ", ".join(tool["name"] for tool in tools.functions) or "none"
        raise UnknownToolError(f"tool_choice names {name!r}, but the offered tools are: {offered}.")
    if fixes.apply("tool_choice", f"tool_choice {name!r} was sent as 'required' with only that tool."):
        return "required", chosen
    return {"type": "function", "name": name}, tools


def _text(text: object, fixes: CompatibilityFixes) -> object:
    """Return `text` with the format that LM Studio requires."""
    if not isinstance(text, Mapping):
        return text
    form = text.get("format")
    if form is None:
        change = "`text` was sent with the format that LM Studio requires."
        return {**text, "format": {"type": "text"}} if fixes.apply("empty_text", change) else text
    if isinstance(form, Mapping) and form.get("type") == "json_object":
        change = "The format json_object was sent as a json_schema that accepts any object."
        any_json = {"type": "json_schema", "name": "answer", "strict": False, "schema": ANY_OBJECT}
        return {**text, "format": any_json} if fixes.apply("json_object", change) else text
    schema = form.get("schema") if isinstance(form, Mapping) else None
    if isinstance(form, Mapping) and isinstance(schema, Mapping):
        plain = plain_schema(schema)
        change = "The schema of the format was written without references and type lists."
        if plain != schema and fixes.apply("schemas", change):
            return {**text, "format": {**form, "schema": plain}}
    return text


def _items(items: Iterable[object], fixes: CompatibilityFixes) -> Iterator[dict[str, Any]]:
    """Return the items of an input in the types that LM Studio supports."""
    ids = CallIds(fixes)
    for item in items:
        if not isinstance(item, Mapping):
            continue
        kind = str(item.get("type") or "message")
        if kind in _READERS:
            yield _READERS[kind](item, fixes, ids)
        else:
            fixes.apply("server_tools", f"An input item of the type {kind!r}, unknown to LM Studio, was removed.")


def _message(item: Mapping[str, Any], fixes: CompatibilityFixes, _: CallIds) -> dict[str, Any]:
    content = item.get("content")
    if content is None:
        fixes.apply("null_content", "A message's null content was sent as an empty string.")
        return {**item, "content": ""}
    if not isinstance(content, list):
        return dict(item)
    text_type = "output_text" if item.get("role") == "assistant" else "input_text"
    return {**item, "content": [_part(part, text_type, fixes) for part in content]}


def _part(part: object, text_type: str, fixes: CompatibilityFixes) -> object:
    """Return a part of a message.

    Parts of chat completions and refusals are renamed, and images are checked.
    """
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    if not isinstance(part, Mapping):
        return part
    match part.get("type"):
        case "text":
            fixes.apply("content_parts", f"A part of the type text was sent as {text_type}.")
            return {**part, "type": text_type}
        case "refusal":
            return {"type": text_type, "text": str(part.get("refusal") or "")}
        case "image_url" | "input_image":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, Mapping) else image
            if fixes.is_enabled("images") and isinstance(url, str):
                url = checked_url(url, fixes)
            return {**part, "type": "input_image", "image_url": url}
    return dict(part)


def _call(item: Mapping[str, Any], _: CompatibilityFixes, ids: CallIds) -> dict[str, Any]:
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments or {}).decode()
    return {**item, "call_id": _call_id(item, ids), "arguments": arguments.strip() or "{}"}


def _custom_call(item: Mapping[str, Any], _: CompatibilityFixes, ids: CallIds) -> dict[str, Any]:
    arguments = custom_arguments(item.get("input"))
    return {
        "type": "function_call",
        "call_id": _call_id(item, ids),
        "name": item.get("name"),
        "arguments": arguments,
    }


def _call_id(item: Mapping[str, Any], ids: CallIds) -> str:
    return ids.unique(item.get("call_id") or item.get("id"), "A call of the input")


def _output(item: Mapping[str, Any], fixes: CompatibilityFixes, ids: CallIds) -> dict[str, Any]:
    output = item.get("output")
    if not isinstance(output, (str, list)):
        fixes.apply("json_text", "A tool's result was sent as JSON text.")
        output = "" if output is None else msgspec.json.encode(output).decode()
    id_ = ids.result(item.get("call_id"), "A tool's result in the input")
    return {**item, "type": "function_call_output", "call_id": id_, "output": output}


def _reasoning(item: Mapping[str, Any], _: CompatibilityFixes, __: CallIds) -> dict[str, Any]:
    return {name: value for name, value in item.items() if value is not None}


_READERS: dict[str, Callable[[Mapping[str, Any], CompatibilityFixes, CallIds], dict[str, Any]]] = {
    "message": _message,
    "function_call": _call,
    "custom_tool_call": _custom_call,
    "function_call_output": _output,
    "custom_tool_call_output": _output,
    "reasoning": _reasoning,
}
