"""Conversion of other clients' tools to the forms that LM Studio accepts.

OpenAI's custom tools accept free text: they are sent as functions with one text argument, and their calls are converted back
(Codex's `apply_patch` is a custom tool). Tools that OpenAI's or Anthropic's servers run (web search, code interpreter, computer
use) are removed, since they cannot be run locally.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.schemas import plain_schema

__all__ = ["ForeignTools", "custom_arguments", "object_schema", "read_tools"]

INPUT_SCHEMA = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The complete input of the tool, as text."}},
    "required": ["input"],
}


class ForeignTools(Struct):
    """The offered functions, and the names of custom tools.

    Each function is `{"name", "description"?, "parameters"}`.
    """

    functions: list[dict[str, Any]] = field(default_factory=list)
    servers: list[dict[str, Any]] = field(default_factory=list)
    custom: set[str] = field(default_factory=set)

    def only(self, names: Iterable[object]) -> ForeignTools:
        """Return only the named tools."""
        wanted = set(names)
        return ForeignTools([tool for tool in self.functions if tool["name"] in wanted], self.servers, self.custom)


def read_tools(tools: object, fixes: CompatibilityFixes, *, servers: Sequence[str] = ()) -> ForeignTools:
    """Convert tools in OpenAI's forms: nested, flat, custom.

    Types in `servers` are passed on unchanged.
    """
    converted = ForeignTools()
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, Mapping):
            continue
        kind = tool.get("type", "function")
        inner = tool.get(kind) if isinstance(tool.get(kind), Mapping) else tool
        if kind == "function":
            converted.functions.append({name: value for name, value in dict(inner or {}).items() if name != "type"})
        elif kind == "custom":
            converted.functions.append(_custom(dict(inner or {}), fixes))
            converted.custom.add(str((inner or {}).get("name")))
        elif kind in servers:
            converted.servers.append(dict(tool))
        else:
            fixes.apply("server_tools", f"The tool {kind!r}, which only its vendor's servers run, was removed.")
    return converted


def _custom(tool: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    name = str(tool.get("name"))
    fixes.apply("custom_tools", f"The custom tool {name!r} was sent as a function with one text argument.")
    described = [str(tool["description"])] if tool.get("description") else []
    form = tool.get("format")
    if isinstance(form, Mapping) and form.get("definition"):
        described.append(f"The input follows this {form.get('syntax', '')} grammar:\n{form['definition']}")
    return {"name": name, "description": "\n\n".join(described), "parameters": INPUT_SCHEMA}


def custom_arguments(text: object) -> str:
    """Return the input of a custom tool's call as the arguments of its function."""
    return msgspec.json.encode({"input": text if isinstance(text, str) else ""}).decode()


def object_schema(name: object, parameters: object, fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return parameters that pass LM Studio's schema check.

    They are of type object, with properties, and without references.
    """
    schema = dict(parameters) if isinstance(parameters, Mapping) else {}
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), Mapping):
        change = f"The tool {name!r} was sent with the object schema that LM Studio requires."
        if fixes.apply("tool_parameters", change):
            schema = {**schema, "type": "object", "properties": schema.get("properties") or {}}
    plain = plain_schema(schema)
    change = f"The schema of the tool {name!r} was written without references and type lists."
    return dict(plain) if plain != schema and fixes.apply("schemas", change) else schema
