r"""Tools whose schema the server refuses: which one it was, and the same tools without what a grammar compiler cannot take.

llama.cpp, LM Studio's engine for GGUF models, compiles the schemas of all tools into one grammar, and one that it cannot
compile fails the whole request, mostly without a word on which it was: a `pattern` that is not anchored, nested, or has `\d`
in it; large bounds of length, whose product exceeds its limit on repetitions; references that lead nowhere. Sources:
llama.cpp issues #25895, #26930, #27580; lmstudio-bug-tracker #2230. LM Studio's own check of a request names a tool's place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lmdeck._compatibility import CompatibilityFixes
from lmdeck.errors import InvalidRequestError

GRAMMAR_ERRORS = (
    r"failed to parse grammar",
    r"failed to initialize samplers",
    r"error parsing grammar",
    r"json schema conversion failed",
    r"repetitions? (exceeds?|or rule complexity)",
)
_REFUSED = re.compile("|".join(GRAMMAR_ERRORS), re.IGNORECASE)
_PLACE = re.compile(r"\btools[.\[](\d{1,4})\b|(?<![\w.])(\d{1,4})\.function\b")
_UNANCHORED = re.compile(r"pattern must start with", re.IGNORECASE)
KEPT = frozenset(
    {
        "type", "enum", "const", "required", "description", "title", "default", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly",
    }
)  # fmt: skip
DEFINITIONS = frozenset({"$defs", "definitions"})  # what nothing refers to any more
MOST_NAMED = 5
DEEPEST = 200


def name_refused_tools(error: InvalidRequestError, tools: Sequence[Any]) -> None:
    """Name in an error the tools that it is about, as far as that can be known, and say what to do about them."""
    compiler = is_grammar_error(error)
    named = _named_by_server(error, tools) or (_suspects(error, tools) if compiler else [])
    if not named:
        return
    error.tools = named
    shown = ", ".join(repr(name) for name in named[:MOST_NAMED]) + (", …" if len(named) > MOST_NAMED else "")
    if len(named) == 1:
        error.message = f"{error.message} It is about the tool {shown}."
        error.hint = f"Correct the schema of {shown}" + (
            ": leave out pattern, format and bounds of length, which the engine cannot compile." if compiler else "."
        )
    else:
        error.message = f"{error.message} It is about one of the tools {shown}."
        error.hint = (
            "Leave out pattern, format and bounds of length in their schemas, or offer them one by one to find it."
        )


def with_simplified_schemas(
    body: Mapping[str, Any], fixes: CompatibilityFixes, uncompilable: Collection[bytes] | None = None
) -> dict[str, Any] | None:
    """Give the request with tools that compile, all of them or those known not to; None where nothing can be left out."""
    tools = list(body.get("tools") or ())
    simpler = []
    for tool in tools:
        is_meant = uncompilable is None or tool_key(body, tool) in uncompilable
        simple, dropped = _simpler_tool(tool) if is_meant else (tool, [])
        if dropped and fixes.apply(
            "simpler_schemas",
            f"The server could not compile the tools' schemas: {_name(tool)!r} was sent without {', '.join(dropped)}.",
        ):
            simpler.append(simple)
        else:
            simpler.append(tool)
    return {**body, "tools": simpler} if simpler != tools else None


def is_grammar_error(error: InvalidRequestError) -> bool:
    """Tell whether a refusal is that of a grammar compiler."""
    return _REFUSED.search(error.message) is not None


def simplified_tool_keys(body: Mapping[str, Any], simpler: Mapping[str, Any]) -> list[bytes]:
    """Give the keys of the tools that were simplified."""
    pairs = zip(body.get("tools") or (), simpler.get("tools") or (), strict=True)
    return [tool_key(body, tool) for tool, simple in pairs if tool != simple]


def tool_key(body: Mapping[str, Any], tool: object) -> bytes:
    """Name a tool of a request and the model it is offered to, whose engine may be another than the next one's."""
    return msgspec.json.encode([body.get("model"), tool], order="deterministic", enc_hook=str)


def simplified_schema(schema: object, dropped: set[str], depth: int = 0) -> Any:  # noqa: ANN401  # JSON
    """Give a schema's shape alone: types, properties, items, alternatives, enumerations; `dropped` gets the rest's names."""
    if not isinstance(schema, Mapping):
        return schema
    if depth > DEEPEST:
        dropped.add("deep nesting")
        return {}
    kept: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties" and isinstance(value, Mapping):
            kept[name] = {each: simplified_schema(inner, dropped, depth + 1) for each, inner in value.items()}
        elif name == "items" and isinstance(value, Mapping):
            kept[name] = simplified_schema(value, dropped, depth + 1)
        elif name in {"anyOf", "oneOf", "allOf"} and isinstance(value, list):
            kept[name] = [simplified_schema(inner, dropped, depth + 1) for inner in value]
        elif name in KEPT or (name == "additionalProperties" and isinstance(value, bool)):
            kept[name] = value
        elif name not in DEFINITIONS:
            dropped.add(name)
    return kept


def _simpler_tool(tool: object) -> tuple[Any, list[str]]:
    """Simplify the schema of a tool in any of the three APIs' forms."""
    if not isinstance(tool, Mapping):
        return tool, []
    if isinstance(tool.get("function"), Mapping):
        function, dropped = _simpler_tool(tool["function"])
        return ({**tool, "function": function} if dropped else tool), dropped
    for name in ("parameters", "input_schema"):
        if isinstance(tool.get(name), Mapping):
            dropped_names: set[str] = set()
            simple = simplified_schema(tool[name], dropped_names)
            return ({**tool, name: simple} if dropped_names else tool), sorted(dropped_names)
    return tool, []


def _named_by_server(error: InvalidRequestError, tools: Sequence[Any]) -> list[str]:
    """Read the place of a tool, as `tools.6.type` or `[72, "function", …]`, or its name, out of a refusal."""
    found = [int(match[1] or match[2]) for match in _PLACE.finditer(f"{error.param or ''} {error.message}")]
    by_place = [_name(tools[place]) for place in found if place < len(tools)]
    if by_place or not re.search(r"\btools?\b|\bfunctions?\b", error.message, re.IGNORECASE):
        return _once(by_place)
    quoted = set(re.findall(r"['\"`]([\w.:/-]{1,128})['\"`]", error.message))
    return _once(_name(tool) for tool in tools if _name(tool) in quoted)


def _suspects(error: InvalidRequestError, tools: Iterable[Any]) -> list[str]:
    """Give the tools that have what compilers stumble over; where patterns are named, those with such a pattern."""
    if _UNANCHORED.search(error.message):
        return _once(_name(tool) for tool in tools if _has_unanchored_pattern(tool))
    return _once(_name(tool) for tool in tools if _simpler_tool(tool)[1])


def _has_unanchored_pattern(node: object, depth: int = 0) -> bool:
    if depth > DEEPEST:
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
    given = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return str(given.get("name") or "") if isinstance(given, Mapping) else ""


def _once(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]
