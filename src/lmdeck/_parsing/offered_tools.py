"""The tools of a request: which names can be called, and the types of their parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any

import msgspec

from lmdeck._late_patterns import late_pattern

ANY: frozenset[str] = frozenset()
STRING = frozenset({"string"})
NAME_PREFIXES = ("functions.", "functions:", "tools.", "tool.")
HUMP = late_pattern(r"(?<=[a-z0-9])(?=[A-Z])")
NOT_IN_NAMES = late_pattern(r"[^A-Za-z0-9]+")
PADDED = late_pattern(r"[+-]?\d{1,400}")
TYPE_NAMES = {"str": "string", "text": "string", "int": "integer", "float": "number", "double": "number", "bool": "boolean",
              "dict": "object", "list": "array", "tuple": "array", "none": "null"}  # fmt: skip
CONVERTERS_LIMIT = 1 << 16
BOOLEANS = {"true": "true", "false": "false", "yes": "true", "no": "false", "on": "true", "off": "false", "1": "true",
            "0": "false"}  # fmt: skip


class OfferedTools:
    """The offered tools by name."""

    __slots__ = ("_snake_case", "schemas")

    def __init__(self, tools: Iterable[Any] | None) -> None:
        self.schemas: dict[str, Mapping[str, Any]] = {}
        self._snake_case: dict[str, str] | None = None  # written when the first unknown name arrives
        for tool in tools or ():
            name, schema = _read_tool(tool)
            if name:
                self.schemas[name] = schema

    def __bool__(self) -> bool:
        return bool(self.schemas)

    def resolve(self, name: str) -> str | None:
        """Return the tool that a name means, or None if it was not offered.

        Models may prepend `functions.` or repeat the name, and LM Studio gives them names in snake case (0.3.23).
        """
        name = name.strip()
        if name in self.schemas:
            return name
        for prefix in NAME_PREFIXES:
            if name.startswith(prefix) and name[len(prefix) :] in self.schemas:
                return name[len(prefix) :]
        last = name.rpartition(".")[2]
        if "." in name and last in self.schemas:
            return last
        if self._snake_case is None:
            self._snake_case = _by_snake_case(self.schemas)
        return self._snake_case.get(name)

    def properties(self, name: str) -> Mapping[str, Any]:
        """Return the schemas of a tool's parameters."""
        found = self.schemas.get(name, {}).get("properties")
        return found if isinstance(found, Mapping) else {}

    def schema(self, name: str, parameter: str) -> object:
        """Return the schema of a parameter, or None if there is none."""
        return self.properties(name).get(parameter)

    def types(self, name: str, parameter: str) -> frozenset[str]:
        """Return the JSON types of a parameter; an empty set if none is declared."""
        return types_of(self.schema(name, parameter), self.schemas.get(name, {}))

    def coerce(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments with strings converted to the declared types."""
        return {
            key: msgspec.json.decode(json_for(value, types))
            if isinstance(value, str) and (types := self.types(name, key)) and "string" not in types
            else value
            for key, value in arguments.items()
        }


NO_TOOLS = OfferedTools(())


def _by_snake_case(names: Iterable[str]) -> dict[str, str]:
    """Return names by their form in snake case, if it is not their own or that of several."""
    found: dict[str, str] = {}
    ambiguous: set[str] = set()
    for name in names:
        snake = NOT_IN_NAMES.sub("_", HUMP.sub("_", name)).strip("_").lower()
        if snake == name or snake in found:
            ambiguous.add(snake)
        found[snake] = name
    return {snake: name for snake, name in found.items() if snake not in ambiguous}


def _read_tool(tool: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(tool, Mapping):
        as_dict = getattr(tool, "to_dict", None)
        tool = as_dict() if callable(as_dict) else {"name": getattr(tool, "name", getattr(tool, "__name__", ""))}
    function = tool.get("function") if isinstance(tool.get("function"), Mapping) else tool
    schema = function.get("parameters") or function.get("input_schema")
    return str(function.get("name") or ""), schema if isinstance(schema, Mapping) else {}


def types_of(schema: object, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """Return the types that a schema allows, also through `anyOf`, `enum`, `$ref` and so on."""
    if not isinstance(schema, Mapping) or depth > 8:
        return ANY
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({TYPE_NAMES.get(declared.lower(), declared)}) | (
            frozenset({"null"}) if schema.get("nullable") is True else ANY
        )
    if isinstance(declared, (list, tuple)):
        return frozenset(TYPE_NAMES.get(item.lower(), item) for item in declared if isinstance(item, str))
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        return types_of(_resolved(reference, root), root, depth + 1)
    for choice in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(choice), (list, tuple)):
            return frozenset().union(*(types_of(option, root, depth + 1) for option in schema[choice]))
    if isinstance(schema.get("enum"), (list, tuple)):
        return frozenset(_type_name(value) for value in schema["enum"])
    if "const" in schema:
        return frozenset({_type_name(schema["const"])})
    if "properties" in schema:
        return frozenset({"object"})
    return frozenset({"array"}) if "items" in schema else ANY


def _resolved(reference: str, root: Mapping[str, Any]) -> object:
    found: Any = root
    for step in reference[2:].split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "object")


def json_for(text: str, types: frozenset[str]) -> str:  # noqa: C901 - one grammar, read top down
    """Return a parameter's text as JSON of one of its types, or else as a string."""
    bare = text.strip()
    value = _decoded(bare)
    if types == ANY:
        return bare if value is not _NOTHING and bare else encode_basestring(text)
    if value is not _NOTHING and _fits(value, types):
        return bare
    if "boolean" in types and bare.lower() in BOOLEANS:
        return BOOLEANS[bare.lower()]
    if "null" in types and "string" not in types and bare.lower() in ("null", "none", ""):
        return "null"
    if "integer" in types and isinstance(value, float) and value.is_integer():
        return str(int(value))
    if "string" in types:
        return encode_basestring(text)
    if '\\"' in bare:
        inner = _decoded(f'"{bare}"')
        if isinstance(inner, str) and _decoded(inner) is not _NOTHING and _fits(_decoded(inner), types):
            return inner
    if types & {"integer", "number"} and PADDED.fullmatch(bare):
        return str(int(bare))
    literal = _literal(bare)
    if literal is not _NOTHING and _fits(literal, types):
        return msgspec.json.encode(literal).decode()
    if isinstance(value, str) and types != STRING:
        inner = _decoded(value)
        if inner is not _NOTHING and _fits(inner, types):
            return value
    if bare in ("null", "None"):
        return "null"
    return encode_basestring(text)


_NOTHING: object = object()


def _decoded(text: str) -> object:
    if not text:
        return _NOTHING
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return _NOTHING


def _literal(text: str) -> object:
    """Return the value of a Python literal that JSON can represent."""
    if len(text) > CONVERTERS_LIMIT:
        return _NOTHING
    try:
        value = ast.literal_eval(text)
        msgspec.json.encode(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
        return _NOTHING
    return value if isinstance(value, (dict, list, tuple, str, int, float, bool, type(None))) else _NOTHING


def _fits(value: object, types: frozenset[str]) -> bool:
    if isinstance(value, tuple):
        return "array" in types
    name = _type_name(value)
    return name in types or (name == "integer" and "number" in types)
