"""Example values for JSON Schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck.errors import ConfigurationError

MAX_DEPTH = 32
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "ada@example.org",
    "uri": "https://example.org/",
    "uuid": "12345678-1234-4234-8234-123456789abc",
    "ipv4": "192.0.2.1",
    "hostname": "example.org",
}


def value_for(schema: object, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:  # noqa: C901  # JSON; one case a keyword
    """Return a value that matches a schema, always the same one; `root` resolves references.

    Raises:
        ConfigurationError: The schema is recursive, or uses an unsupported keyword (`pattern`).
    """
    if not isinstance(schema, Mapping):
        return None if schema is False else "text"
    root = schema if root is None else root
    if depth > MAX_DEPTH:
        raise ConfigurationError(
            f"The schema is nested more than {MAX_DEPTH} levels deep; it may be recursive.",
            hint="Script this answer with `.json(…)`.",
        )
    if "$ref" in schema:
        return value_for(_resolved(str(schema["$ref"]), root), root, depth + 1)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf"):
        if schema.get(keyword):
            options = [option for option in schema[keyword] if option != {"type": "null"}] or schema[keyword]
            return value_for({**{k: v for k, v in schema.items() if k != keyword}, **options[0]}, root, depth + 1)
    if schema.get("allOf"):
        return value_for(_merged(schema, root), root, depth + 1)
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = next((each for each in kinds if each != "null"), "null") if isinstance(kinds, list) else kinds
    match kind:
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema, is_integer=kind == "integer")
        case "boolean":
            return True
        case _:
            return None


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    names = [name for name in properties if name in (schema.get("required") or ()) or depth < 2]
    missing = [name for name in schema.get("required") or () if name not in properties]
    return {name: value_for(properties.get(name, True), root, depth + 1) for name in [*names, *missing]}


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> list[Any]:
    first = [value_for(item, root, depth + 1) for item in schema.get("prefixItems") or ()]
    count = max(int(schema.get("minItems", 1)) - len(first), 0)
    if schema.get("maxItems") == 0 or schema.get("items") is False:
        return first
    return first + [value_for(schema.get("items", True), root, depth + 1) for _ in range(count)]


def _text(schema: Mapping[str, Any]) -> str:
    if "pattern" in schema:
        raise ConfigurationError(
            "A value for a schema with `pattern` cannot be generated.", hint="Script this answer with `.json(…)`."
        )
    text = _FORMATS.get(str(schema.get("format")), "text")
    shortest, longest = int(schema.get("minLength", 0)), schema.get("maxLength")
    return text.ljust(shortest, "x")[: int(longest) if isinstance(longest, int) else None]


def _number(schema: Mapping[str, Any], *, is_integer: bool) -> float:
    lowest = schema.get("minimum", schema.get("exclusiveMinimum"))
    highest = schema.get("maximum", schema.get("exclusiveMaximum"))
    number = (
        1.0 if lowest is None and (highest is None or highest > 1) else float(highest if lowest is None else lowest)
    )
    number += 1 if "exclusiveMinimum" in schema and lowest == number else 0
    number -= 1 if "exclusiveMaximum" in schema and highest == number else 0
    step = schema.get("multipleOf")
    if step:
        number = -(-number // step) * step
    return int(number) if is_integer else number


def _resolved(reference: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    if found is None:
        raise ConfigurationError(f"The schema's reference {reference!r} does not exist.", hint="Correct the schema.")
    return found


def _merged(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        part_schema = _resolved(str(part["$ref"]), root) if "$ref" in part else part
        for name, value in part_schema.items() if isinstance(part_schema, Mapping) else ():
            old = merged.get(name)
            if isinstance(value, Mapping) and isinstance(old, Mapping):
                merged[name] = {**old, **value}
            elif isinstance(value, list) and isinstance(old, list):
                merged[name] = [*old, *value]
            else:
                merged[name] = value
    return merged
