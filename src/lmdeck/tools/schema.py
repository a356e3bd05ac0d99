"""JSON Schema from Python types, and typed objects from JSON.

msgspec supports nearly all common types: scalars, `Literal`, enums, unions, containers, dataclasses, TypedDicts, its own
Structs, dates, UUIDs and decimals. Paths and pydantic models are added here. References are inlined, because the grammar
compilers of local servers often do not support them; only recursive types keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec

from lmdeck.errors import ConfigurationError

T = TypeVar("T")


def schema_of(kind: object, what: str) -> dict[str, Any]:
    """Return the JSON Schema of a type; `what` names it in error messages.

    Raises:
        ConfigurationError: JSON cannot represent the type.
    """
    try:
        schema = msgspec.json.schema(kind, schema_hook=_extra_schema)
    except (TypeError, NotImplementedError) as error:
        raise ConfigurationError(
            f"{what} cannot be described as JSON Schema: {str(error).splitlines()[0]}",
            hint="Use types that JSON can represent: text, numbers, lists, dicts, Literal, enums, dataclasses, "
            "pydantic models.",
        ) from error
    return inlined(schema)


def to_object(value: object, kind: type[T]) -> T:
    """Return an object of a type from decoded JSON.

    Dates, enums and similar types are parsed from text.

    Raises:
        msgspec.ValidationError: The value does not match the type.
    """
    return msgspec.convert(value, kind, strict=False, dec_hook=_extra_object)


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with its references inlined, except recursive ones."""
    definitions = schema.get("$defs", {})
    recursive = {name for name in definitions if _reaches(name, definitions[name], definitions, set())}
    written: dict[str, Any] = _written(schema, definitions, recursive)
    if recursive:
        written["$defs"] = {name: _written(definitions[name], definitions, recursive) for name in sorted(recursive)}
    return written


def _written(schema: Any, definitions: Mapping[str, Any], recursive: set[str]) -> Any:
    if isinstance(schema, Mapping):
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name in definitions and name not in recursive:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return _written({**definitions[name], **rest}, definitions, recursive)
        return {
            key: _written(value, definitions, recursive) for key, value in schema.items() if not _is_noise(key, value)
        }
    if isinstance(schema, list):
        return [_written(item, definitions, recursive) for item in schema]
    return schema


def _is_noise(key: str, value: object) -> bool:
    """Whether an entry is a waste of tokens: inlined definitions, and titles that repeat names."""
    return key == "$defs" or (key == "title" and isinstance(value, str))


def _reaches(name: str, schema: object, definitions: Mapping[str, Any], seen: set[str]) -> bool:
    """Whether a schema refers to a definition, directly or indirectly."""
    if isinstance(schema, Mapping):
        target = str(schema.get("$ref", "")).rpartition("/")[2]
        if target == name:
            return True
        if target in definitions and target not in seen:
            seen.add(target)
            if _reaches(name, definitions[target], definitions, seen):
                return True
        return any(_reaches(name, value, definitions, seen) for value in schema.values())
    return isinstance(schema, list) and any(_reaches(name, item, definitions, seen) for item in schema)


def _extra_schema(kind: type) -> dict[str, Any]:
    if issubclass(kind, PurePath):
        return {"type": "string", "format": "path"}
    describe = getattr(kind, "model_json_schema", None)  # pydantic's
    if callable(describe):
        return inlined(describe())
    raise NotImplementedError(f"type {kind.__name__!r} is unknown")


def _extra_object(kind: type, value: object) -> object:
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value) if kind is not PurePath else Path(value)
    validate = getattr(kind, "model_validate", None)  # pydantic's; its ValidationError is a ValueError
    if callable(validate):
        return validate(value)
    raise NotImplementedError(f"a {kind.__name__} cannot be created from JSON")
