"""The check of a call's arguments: JSON Schema, then lossless coercion, then typed objects.

jsonschema-rs validates; it is compiled, complete and imported with the first check. A value of a neighbouring type is put right
only where nothing is lost, and each time with a `Problem`: `"5"` for an integer, `"true"` for a truth value, JSON text for an
object. Everything else is a fault, one line each, in words that a model can act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck.errors import ConfigurationError, ToolArgumentsError
from lmdeck.messages import Problem, ToolCall
from lmdeck.sansio.toolbox import types_of
from lmdeck.tools.schema import typed
from lmdeck.tools.tool import Tool

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

__all__ = ["checked_arguments", "coerced_value", "faults_of"]

FAULTS = 20
SHOWN = 200


def checked_arguments(tool: Tool[..., Any], call: ToolCall) -> tuple[dict[str, Any], list[Problem]]:
    """Give the keyword arguments for the handler, typed as its signature says, and what had to be put right.

    Raises:
        ToolArgumentsError: They do not fit; `errors` has a line for each fault.
        ConfigurationError: The tool's own schema is none.
    """
    problems: list[Problem] = []
    arguments: dict[str, Any] = call.arguments
    faults = faults_of(tool.parameters, arguments, f"The tool {tool.name!r}")
    if faults:
        coerced = coerced_value(arguments, tool.parameters, call.name, problems)
        arguments = coerced if isinstance(coerced, dict) else arguments
        faults = faults_of(tool.parameters, arguments, f"The tool {tool.name!r}")
    if faults:
        raise ToolArgumentsError(f"The arguments of {call.name!r} do not fit: {faults[0]}", errors=faults)
    if tool.arguments is None:
        return dict(arguments), problems
    try:
        made = typed(arguments, tool.arguments)
    except ValueError as error:  # msgspec's and pydantic's
        line = " ".join(str(error).split())[:SHOWN]
        raise ToolArgumentsError(f"The arguments of {call.name!r} do not fit: {line}", errors=[line]) from error
    return {name: getattr(made, name) for name in tool.arguments.__struct_fields__}, problems


def faults_of(schema: Mapping[str, Any], value: object, what: str) -> list[str]:
    """Give a line for each place where a value does not fit a schema; `what` names the schema's owner in errors.

    Raises:
        ConfigurationError: The schema is none.
    """
    from jsonschema_rs import ValidationError, validator_for  # here, because a chat without tools needs it not

    try:
        validator = validator_for(dict(schema))
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(
            f"{what} has parameters that are no JSON Schema: {str(error).splitlines()[0]}", hint="Correct its schema."
        ) from error
    return [_line(fault) for fault in islice(validator.iter_errors(value), FAULTS)]


def coerced_value(value: object, schema: Mapping[str, Any], name: str, problems: list[Problem]) -> object:
    """Give a value as a schema wants it, as far as that loses nothing; each change is a problem."""
    return _coerced(value, schema, schema, "", name, problems)


def _line(error: ValidationError) -> str:
    place = ".".join(map(str, error.instance_path)) or "the whole"
    return f"{place}: {error.message[:SHOWN]}"


def _coerced(
    value: object, schema: object, root: Mapping[str, Any], place: str, name: str, problems: list[Problem]
) -> object:
    """Give a value as the schema wants it, where that loses nothing; else the value itself."""
    if not isinstance(schema, Mapping):
        return value
    types = types_of(schema, root)
    better = _put_right(value, schema, types, root)
    if better is not value:
        problems.append(
            Problem("coerced", f"{name}: {place} was given as {_shown(value)} and read as {_shown(better)}.")
        )
        value = better
    schema = _branch(schema, value, root)
    if isinstance(value, dict):
        properties = schema.get("properties")
        inner = properties if isinstance(properties, Mapping) else {}
        return {
            key: _coerced(item, inner.get(key), root, f"{place}.{key}".lstrip("."), name, problems)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _coerced(item, schema.get("items"), root, f"{place}.{number}".lstrip("."), name, problems)
            for number, item in enumerate(value)
        ]
    return value


def _branch(schema: Mapping[str, Any], value: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the alternative of a union that a list or an object belongs to; the schema itself where it is none."""
    wanted = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else ""
    for choice in ("anyOf", "oneOf"):
        for option in schema.get(choice, ()):
            if wanted and isinstance(option, Mapping) and wanted in types_of(option, root):
                return option
    return schema


def _put_right(value: object, schema: Mapping[str, Any], types: frozenset[str], root: Mapping[str, Any]) -> object:
    """Give one value as one of its types; the same value where it needs or allows no change."""
    if isinstance(value, str) and types and "string" not in types:
        read = _read(value, types)
        if read is not value:
            return read
    if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
        return int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and types == {"string"}:
        return _shown(value)
    if types == {"array"} and not isinstance(value, list) and _is_item(value, schema, root):
        return [value]
    return value


def _read(text: str, types: frozenset[str]) -> object:
    """Read text as one of the types; the text itself where it is none of them."""
    bare = text.strip()
    if "boolean" in types and bare.lower() in ("true", "false"):
        return bare.lower() == "true"
    if "null" in types and bare.lower() in ("null", "none", ""):
        return None
    try:
        value = msgspec.json.decode(bare)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
    if isinstance(value, bool) or value is None:
        return text
    if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
        value = int(value)
    fits = (
        (isinstance(value, int) and types & {"integer", "number"})
        or (isinstance(value, float) and "number" in types)
        or (isinstance(value, dict) and "object" in types)
        or (isinstance(value, list) and "array" in types)
    )
    return value if fits else text


def _is_item(value: object, schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}
    wanted = types_of(schema.get("items"), root)
    return kinds.get(type(value), "") in wanted


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()[:SHOWN]
