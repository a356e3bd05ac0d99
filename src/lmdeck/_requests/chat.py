"""The request body of a chat, made acceptable to LM Studio.

Each change is an `adjusted` problem of the reply.

The requirements come from LM Studio's docs (`3_openai-compat`) and its bug tracker: content must not be null, `tool_choice` is
one of three strings, every tool has `{"type": "object", "properties": {…}}`, `response_format` is `text` or `json_schema`,
call ids are present and unique.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.history import normal_messages
from lmdeck.errors import ConfigurationError, UnknownToolError
from lmdeck.messages import Message

if TYPE_CHECKING:
    from lmdeck.tools.tool import Tool

TOOL_CHOICES = ("auto", "none", "required")
CLIENT_TOOL_TYPES = ("function", "custom")  # OpenAI's and Anthropic's types of tools that the caller runs
OWN_METHODS = {
    "messages": "with_messages",
    "model": "lm.chat(model)",
    "tools": "with_tools",
    "tool_choice": "with_tool_choice",
    "stream": "send() or stream()",
}
WITH_USAGE = {"include_usage": True}
RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's seed for "choose at random", which -1 also means (`LLAMA_DEFAULT_SEED`)."""
ANY_OBJECT = {"type": "object", "additionalProperties": True}
ANY_JSON = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "strict": False, "schema": ANY_OBJECT},
}


class ChatSpec(Struct, frozen=True, kw_only=True):
    """The content of a chat request, as collected by the builder."""

    model: str | None = None
    messages: tuple[Message | Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    handlers: tuple[Tool[..., Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    options: Mapping[str, Any] = {}
    strict: bool = False
    reasoning: str | None = None
    context_guard: Literal["trim", "raise", "summarise"] | None = None
    without_rules: tuple[str, ...] = ()
    cache_control: str = ""


def build_chat(spec: ChatSpec, model: str | None, fixes: CompatibilityFixes, *, stream: bool) -> dict[str, Any]:
    """Build the body of `POST /v1/chat/completions`, and record the changes in `fixes`.

    Raises:
        ConfigurationError: There is no message, or a message that cannot be sent.
        UnknownToolError: `tool_choice` names a tool that is not offered.
    """
    if not spec.messages:
        raise ConfigurationError("The chat has no message.", hint="Add one: `lm.chat().user('Hello').send()`.")
    body: dict[str, Any] = {"model": model} if model else {}
    body["messages"] = normal_messages(spec.messages, fixes)
    if spec.options:
        body.update(_adjusted_options(spec.options, fixes))
    if spec.tools or spec.tool_choice is not None:
        tools = [_adjusted_tool(tool, fixes) for tool in spec.tools]
        choice, tools = _adjusted_choice(spec.tool_choice, tools, fixes)
        if tools:
            body["tools"] = tools
            if choice is not None:
                body["tool_choice"] = choice
    body["stream"] = stream
    if stream and fixes.is_enabled("include_usage"):
        own = body.get("stream_options")
        body["stream_options"] = {**own, **WITH_USAGE} if own else WITH_USAGE
    return body


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON.

    Raises:
        ConfigurationError: The body has a value that JSON cannot represent.
    """
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeError) as error:
        raise ConfigurationError(
            f"The request cannot be written as JSON: {error}.", hint="Pass plain data: text, numbers, lists, dicts."
        ) from error


def runs_tools_on_server(body: Mapping[str, Any]) -> bool:
    """Whether the server runs tools for a request, so that repeating it would run them again.

    Sources: LM Studio docs `2_rest/chat.md` (`integrations`), `3_openai-compat/responses.md` (tools of the type `mcp`), and
    Anthropic's `mcp_servers` and server tools.
    """
    if body.get("integrations") or body.get("mcp_servers"):
        return True
    tools = body.get("tools")
    offered = tools if isinstance(tools, (list, tuple)) else ()
    return bool(offered) and any(
        isinstance(tool, Mapping) and (tool.get("type") or "function") not in CLIENT_TOOL_TYPES for tool in offered
    )


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return request options with checked names; values are checked by the server.

    Raises:
        ConfigurationError: The builder has a separate method for a name.
    """
    for name in options:
        if name in OWN_METHODS:
            raise ConfigurationError(
                f"{name!r} cannot be set with with_options.", hint=f"Use {OWN_METHODS[name]} instead."
            )
    return dict(options)


def checked_tool(tool: object) -> dict[str, Any]:
    """Return a tool in OpenAI's format, `{"type": "function", "function": {"name": …, …}}`.

    `tool` is a `Tool`, a dict in that format, or its inner part.

    Raises:
        ConfigurationError: The tool is not a mapping, or has no name.
    """
    fields = tool.to_dict() if hasattr(tool, "to_dict") else tool
    function = fields.get("function", fields) if isinstance(fields, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ConfigurationError(
            f"A tool needs a name; got {str(tool)[:120]!r}.",
            hint='Pass {"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}.',
        )
    return {"type": "function", "function": dict(function)}


def demands_call(choice: object) -> bool:
    """Whether a tool choice, in OpenAI's or Anthropic's format, demands a call."""
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return kind in {"required", "any", "tool", "function"}


def expects_one_call(body: Mapping[str, Any]) -> bool:
    """Whether a response may have only one tool call, by OpenAI's or Anthropic's option."""
    choice = body.get("tool_choice")
    is_disabled = isinstance(choice, Mapping) and choice.get("disable_parallel_tool_use") is True
    return body.get("parallel_tool_calls") is False or is_disabled


def tool_name(tool: Mapping[str, Any]) -> str:
    """Return the name of a checked tool."""
    return str(tool["function"]["name"])


def _adjusted_tool(tool: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return a tool whose parameters LM Studio's schema check accepts."""
    from lmdeck._requests.schemas import plain_schema  # imported late: most chats have no schema

    function = without_nulls(tool["function"])
    declared = function.get("parameters")
    parameters = dict(declared) if isinstance(declared, Mapping) else {}
    if parameters.get("type") != "object" or not isinstance(parameters.get("properties"), Mapping):
        if parameters.get("type", "object") != "object":
            raise ConfigurationError(
                f"The parameters of the tool {function['name']!r} must be of type object, not {parameters['type']!r}.",
                hint='Use {"type": "object", "properties": {…}}.',
            )
        if fixes.apply(
            "tool_parameters", f"The tool {function['name']!r} got the object schema that LM Studio requires."
        ):
            function["parameters"] = {**parameters, "type": "object", "properties": parameters.get("properties") or {}}
    sent = function.get("parameters", {})
    plain = plain_schema(sent) if isinstance(sent, Mapping) else sent
    if plain != sent and fixes.apply(
        "schemas", f"The schema of the tool {function['name']!r} was sent without references and type lists."
    ):
        function["parameters"] = plain
    return {"type": "function", "function": function}


def _adjusted_choice(
    choice: str | Mapping[str, Any] | None, tools: list[dict[str, Any]], fixes: CompatibilityFixes
) -> tuple[str | Mapping[str, Any] | None, list[dict[str, Any]]]:
    """Return the tool choice and the tools to send.

    If the choice is a tool's name or OpenAI's object for it, that is `required` with only this tool.
    """
    if choice is None or choice in TOOL_CHOICES:
        if choice == "required" and not tools:
            raise ConfigurationError(
                "tool_choice is 'required', but no tool is offered.", hint="Add tools with with_tools."
            )
        return choice, tools
    name = choice if isinstance(choice, str) else _chosen_name(choice)
    chosen = [tool for tool in tools if tool_name(tool) == name]
    if not chosen:
        offered = ", ".join(tool_name(tool) for tool in tools) or "none"
        raise UnknownToolError(f"tool_choice names {name!r}, but the offered tools are: {offered}.")
    if fixes.apply("tool_choice", f"tool_choice {name!r} was sent as 'required' with only that tool."):
        return "required", chosen
    return ({"type": "function", "function": {"name": name}} if isinstance(choice, str) else choice), tools


def _chosen_name(choice: Mapping[str, Any]) -> str:
    function = choice.get("function", choice)
    return str(function.get("name")) if isinstance(function, Mapping) else str(function)


def _adjusted_options(options: Mapping[str, Any], fixes: CompatibilityFixes) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if value is None:
            continue
        if name == "response_format" and isinstance(value, Mapping) and value.get("type") == "json_object":
            detail = "response_format json_object was sent as a json_schema that allows any object."
            yield name, ANY_JSON if fixes.apply("json_object", detail) else value
        elif name == "response_format" and isinstance(value, Mapping):
            yield name, _plain_format(value, fixes)
        elif name == "stop" and isinstance(value, Sequence) and not isinstance(value, str):
            yield name, list(value)
        else:
            yield name, value


def without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without its null fields, which may be refused (`strict: null`)."""
    return {name: value for name, value in fields.items() if value is not None}


def _plain_format(response_format: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return a response format with a schema that the engines support."""
    from lmdeck._requests.schemas import plain_schema

    named = response_format.get("json_schema")
    if isinstance(named, Mapping):
        response_format = {**response_format, "json_schema": (named := without_nulls(named))}
    schema = named.get("schema") if isinstance(named, Mapping) else None
    if not isinstance(named, Mapping) or not isinstance(schema, Mapping):
        return dict(response_format)
    plain = plain_schema(schema)
    detail = "The schema of response_format was sent without references and type lists."
    if plain == schema or not fixes.apply("schemas", detail):
        return dict(response_format)
    return {**response_format, "json_schema": {**named, "schema": plain}}
