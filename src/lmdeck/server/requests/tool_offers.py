"""Offered tools and the tool choice, in the formats of three endpoints.

The endpoints are chat completions, responses and messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lmdeck.server.errors import invalid, issue, tool_issues
from lmdeck.server.jobs import ChatTool, ToolChoice
from lmdeck.server.requests.body import js_type

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL_CHOICES = ("none", "auto", "required")


def tool_choice(choice: object) -> ToolChoice:
    """Return the `tool_choice` of a chat completion.

    Raises:
        Refusal: It is not one of the three strings.
    """
    supported = "Supported string values: none, auto, required"
    if choice is None:
        return "auto"
    if not isinstance(choice, str):
        raise invalid(f"Invalid tool_choice type: '{js_type(choice)}'. {supported}")
    if choice not in TOOL_CHOICES:
        raise invalid(f"Invalid tool_choice value: '{choice}'. {supported}")
    return cast("ToolChoice", choice)


def chat_tools(tools: object) -> list[ChatTool]:
    """Return the `tools` of a chat completion.

    Raises:
        Refusal: A tool does not match LM Studio's schema.
    """
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise tool_issues([_wrong_type("array", tools, [])])
    issues = [issue for index, tool in enumerate(tools) for issue in _tool_issues(index, tool)]
    if issues:
        raise tool_issues(issues)
    functions = [tool["function"] for tool in tools]
    return [
        ChatTool(name=f["name"], parameters=f["parameters"], description=f.get("description") or "") for f in functions
    ]


def _tool_issues(index: int, tool: object) -> Iterator[dict[str, Any]]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        yield _wrong_type("object", function, [index, "function"])
        return
    if not isinstance(function.get("name"), str) or not function["name"]:
        yield _wrong_type("string", function.get("name"), [index, "function", "name"])
    if not isinstance(function.get("description"), str | None):
        yield _wrong_type("string", function.get("description"), [index, "function", "description"])
    parameters = function.get("parameters")
    path: list[int | str] = [index, "function", "parameters"]
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        yield {
            "code": "invalid_union_discriminator",
            "options": ["object"],
            "path": [*path, "type"],
            "message": "Invalid discriminator value. Expected 'object'",
        }
    elif not isinstance(parameters.get("properties"), dict):
        yield _wrong_type("object", parameters.get("properties"), [*path, "properties"])


def _wrong_type(expected: str, value: object, path: list[int | str]) -> dict[str, Any]:
    received = "array" if isinstance(value, list) else js_type(value)
    message = "Required" if received == "undefined" else f"Expected {expected}, received {received}"
    return {"code": "invalid_type", "expected": expected, "received": received, "path": path, "message": message}


def responses_tools(tools: object) -> list[ChatTool]:
    """Return the functions among the `tools` of `/v1/responses`.

    MCP servers become `integrations`.

    Raises:
        Refusal: A tool has another type, or a function lacks the type of its parameters.
    """
    entries = [] if tools is None else tools
    if not isinstance(entries, list):
        raise issue("Expected array", "tools", "invalid_type")
    read: list[ChatTool] = []
    for index, tool in enumerate(entries):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in {"function", "mcp"}:
            raise issue(
                "Invalid discriminator value. Expected 'function' | 'mcp'",
                f"tools.{index}.type",
                "invalid_union_discriminator",
            )
        if kind == "function":
            parameters = tool.get("parameters")
            if not (isinstance(tool.get("name"), str) and tool["name"]):
                raise issue("Required", f"tools.{index}.name", "invalid_type")
            if not isinstance(parameters, dict) or parameters.get("type") != "object":
                raise issue("Invalid input", f"tools.{index}", "custom")
            read.append(
                ChatTool(name=tool["name"], parameters=parameters, description=str(tool.get("description") or ""))
            )
    return read


def anthropic_tools(tools: object) -> list[ChatTool]:
    """Return the `tools` of `/v1/messages`.

    Raises:
        Refusal: A tool has no name, or no schema of type object.
    """
    entries = [] if tools is None else tools
    if not isinstance(entries, list):
        raise issue("request.tools: Expected array", "tools", "invalid_type")
    read: list[ChatTool] = []
    for index, tool in enumerate(entries):
        match tool:
            case {"name": str(name), "input_schema": {"type": "object"} as schema} if name:
                description = str(tool.get("description") or "")
                read.append(ChatTool(name=name, parameters=schema, description=description))
            case _:
                raise issue(f"request.tools.{index}: Invalid input", f"tools.{index}", "custom")
    return read


def tools_and_choice(choice: object, tools: list[ChatTool]) -> tuple[list[ChatTool], ToolChoice]:
    """Return the tools and the choice of responses and messages.

    The choice is a string, or an object that may name a single tool.

    Raises:
        Refusal: The choice is neither, or names a tool that is not offered.
    """
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind in {"tool", "function"} and isinstance(choice, dict):
        named = [tool for tool in tools if tool.name == choice.get("name")]
        if not named:
            raise issue(f"Tool '{choice.get('name')}' not found in tools.", "tool_choice", "invalid_value")
        return named, "required"
    match kind:
        case None | "auto":
            return tools, "auto"
        case "any" | "required":
            return tools, "required"
        case "none":
            return tools, "none"
        case _:
            raise issue(f"Invalid tool_choice value: {kind!r}.", "tool_choice", "invalid_value")
