r"""The fallback for tool schemas that the server refuses: name or simplify them.

llama.cpp, LM Studio's engine for GGUF models, compiles the schemas of all tools into one grammar. If it cannot compile one of
them, the whole request fails, usually without naming the tool. Causes are a `pattern` that is not anchored, is nested or
contains `\d`; large length bounds, whose product exceeds the limit on repetitions; and unresolvable references. Sources:
llama.cpp issues #25895, #26930, #27580; lmstudio-bug-tracker #2230. LM Studio's own request validation names the position of a
tool.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._late_patterns import late_pattern
from lmdeck._responses.error_expressions import GRAMMAR_ERRORS
from lmdeck.errors import InvalidRequestError

_REFUSED = late_pattern("|".join(GRAMMAR_ERRORS), re.IGNORECASE)
_POSITION = late_pattern(r"\btools[.\[](\d{1,4})\b|(?<![\w.])(\d{1,4})\.function\b")
_UNANCHORED = late_pattern(r"pattern must start with", re.IGNORECASE)
SUPPORTED_KEYWORDS = frozenset(
    {
        "type", "enum", "const", "required", "description", "title", "default", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly",
    }
)  # fmt: skip
DEFINITIONS = frozenset({"$defs", "definitions"})  # unused once references are inlined
MAX_NAMED = 5
MAX_DEPTH = 200


def name_refused_tools(error: InvalidRequestError, tools: Sequence[Any]) -> None:
    """Add the tools that probably caused an error to its message, and what to do to its hint."""
    is_from_compiler = is_grammar_error(error)
    named = _named_by_server(error, tools) or (_suspects(error, tools) if is_from_compiler else [])
    if not named:
        return
    error.tools = named
    shown = ", ".join(repr(name) for name in named[:MAX_NAMED]) + (", …" if len(named) > MAX_NAMED else "")
    if len(named) == 1:
        error.message = f"{error.message} The error concerns the tool {shown}."
        error.hint = f"Correct the schema of {shown}" + (
            ": remove pattern, format and length bounds, which the engine cannot compile." if is_from_compiler else "."
        )
    else:
        error.message = f"{error.message} The error concerns one of the tools {shown}."
        error.hint = (
            "Remove pattern, format and length bounds from their schemas, or offer the tools one by one to find it."
        )


def with_simplified_schemas(
    body: Mapping[str, Any], fixes: CompatibilityFixes, uncompilable: Collection[bytes] | None = None
) -> dict[str, Any] | None:
    """Return the request with simplified tool schemas, or None if nothing can be simplified.

    With `uncompilable`, only the tools with these keys are simplified.
    """
    tools = list(body.get("tools") or ())
    simpler = []
    for tool in tools:
        is_selected = uncompilable is None or tool_key(body, tool) in uncompilable
        simple, dropped = _simplified_tool(tool) if is_selected else (tool, [])
        if dropped and fixes.apply(
            "simpler_schemas",
            f"The server could not compile the tools' schemas: {_name(tool)!r} was sent without {', '.join(dropped)}.",
        ):
            simpler.append(simple)
        else:
            simpler.append(tool)
    return {**body, "tools": simpler} if simpler != tools else None


def is_grammar_error(error: InvalidRequestError) -> bool:
    """Whether an error comes from a grammar compiler."""
    return _REFUSED.search(error.message) is not None


def simplified_tool_keys(body: Mapping[str, Any], simpler: Mapping[str, Any]) -> list[bytes]:
    """Return the keys of the tools that were simplified."""
    pairs = zip(body.get("tools") or (), simpler.get("tools") or (), strict=True)
    return [tool_key(body, tool) for tool, simple in pairs if tool != simple]


def tool_key(body: Mapping[str, Any], tool: object) -> bytes:
    """Return a key for a tool and its model: another model may have another engine."""
    return msgspec.json.encode([body.get("model"), tool], order="deterministic", enc_hook=str)


def simplified_schema(schema: object, dropped: set[str], depth: int = 0) -> Any:  # JSON
    """Return a schema with only supported keywords, and add the others' names to `dropped`."""
    if not isinstance(schema, Mapping):
        return schema
    if depth > MAX_DEPTH:
        dropped.add("deep nesting")
        return {}
    simple: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties" and isinstance(value, Mapping):
            simple[name] = {each: simplified_schema(inner, dropped, depth + 1) for each, inner in value.items()}
        elif name == "items" and isinstance(value, Mapping):
            simple[name] = simplified_schema(value, dropped, depth + 1)
        elif name in {"anyOf", "oneOf", "allOf"} and isinstance(value, list):
            simple[name] = [simplified_schema(inner, dropped, depth + 1) for inner in value]
        elif name in SUPPORTED_KEYWORDS or (name == "additionalProperties" and isinstance(value, bool)):
            simple[name] = value
        elif name not in DEFINITIONS:
            dropped.add(name)
    return simple


def _simplified_tool(tool: object) -> tuple[Any, list[str]]:
    """Return a tool with a simplified schema, and the dropped keywords.

    The tool may be in any of the three API formats.
    """
    if not isinstance(tool, Mapping):
        return tool, []
    if isinstance(tool.get("function"), Mapping):
        function, dropped = _simplified_tool(tool["function"])
        return ({**tool, "function": function} if dropped else tool), dropped
    for name in ("parameters", "input_schema"):
        if isinstance(tool.get(name), Mapping):
            dropped_names: set[str] = set()
            simple = simplified_schema(tool[name], dropped_names)
            return ({**tool, name: simple} if dropped_names else tool), sorted(dropped_names)
    return tool, []


def _named_by_server(error: InvalidRequestError, tools: Sequence[Any]) -> list[str]:
    """Return the tools that an error names.

    It may name them by a position, as in `tools.6.type` or `[72, "function", …]`.
    """
    found = [int(match[1] or match[2]) for match in _POSITION.finditer(f"{error.param or ''} {error.message}")]
    by_position = [_name(tools[position]) for position in found if position < len(tools)]
    if by_position or not re.search(r"\btools?\b|\bfunctions?\b", error.message, re.IGNORECASE):
        return _unique(by_position)
    quoted = set(re.findall(r"['\"`]([\w.:/-]{1,128})['\"`]", error.message))
    return _unique(_name(tool) for tool in tools if _name(tool) in quoted)


def _suspects(error: InvalidRequestError, tools: Iterable[Any]) -> list[str]:
    """Return the tools with unsupported keywords.

    If the error is about patterns, return the tools with such a pattern.
    """
    if _UNANCHORED.search(error.message):
        return _unique(_name(tool) for tool in tools if _has_unanchored_pattern(tool))
    return _unique(_name(tool) for tool in tools if _simplified_tool(tool)[1])


def _has_unanchored_pattern(node: object, depth: int = 0) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(node, list):
        return any(_has_unanchored_pattern(inner, depth + 1) for inner in node)
    if not isinstance(node, Mapping):
        return False
    pattern = node.get("pattern")
    if isinstance(pattern, str) and not (pattern.startswith("^") and pattern.endswith("$")):
        return True
    return any(_has_unanchored_pattern(inner, depth + 1) for inner in node.values())


def _name(tool: object) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return str(function.get("name") or "") if isinstance(function, Mapping) else ""


def _unique(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]
