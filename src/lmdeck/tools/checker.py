"""JSON Schema validation, and lossless coercion of values.

jsonschema-rs validates; it is compiled, complete, and imported with the first check. A value of another type is coerced only
if nothing is lost, each time with a `Problem`: `"5"` to an integer, `"true"` to a boolean, JSON text to an object. Every other
mismatch is an error of one line, on which a model can act.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._parsing.offered_tools import types_of
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Problem

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

MAX_ERRORS = 20
MAX_SHOWN = 200


class Checker:
    """A validator of a schema, compiled on first use; `what` names its owner in error messages."""

    def __init__(self, schema: Mapping[str, Any], what: str) -> None:
        self.schema = schema
        self._what = what
        self._validator: Validator | None = None

    def errors(self, value: object) -> list[str]:
        """Return one line for each mismatch of a value, at most `MAX_ERRORS`.

        Raises:
            ConfigurationError: The schema is not a JSON Schema.
        """
        validator = self._validator or self._compiled()
        if validator.is_valid(value):
            return []
        return [_line(error) for error in islice(validator.iter_errors(value), MAX_ERRORS)]

    def coerce(self, value: object, name: str, problems: list[Problem]) -> object:
        """Return a value, losslessly coerced to the schema if necessary; add changes to `problems`."""
        return _coerce(value, self.schema, self.schema, "", name, problems)

    def _compiled(self) -> Validator:
        from jsonschema_rs import ValidationError, validator_for  # imported late: chats without tools do not need it

        try:
            self._validator = validator_for(dict(self.schema))
        except (ValidationError, ValueError) as error:
            raise ConfigurationError(
                f"{self._what} has parameters that are not a JSON Schema: {str(error).splitlines()[0]}",
                hint="Correct its schema.",
            ) from error
        return self._validator


def _line(error: ValidationError) -> str:
    path = ".".join(map(str, error.instance_path)) or "the whole value"
    return f"{path}: {error.message[:MAX_SHOWN]}"


def _coerce(
    value: object, schema: object, root: Mapping[str, Any], place: str, name: str, problems: list[Problem]
) -> object:
    """Return a value coerced to the schema if that is lossless, else the value itself."""
    if not isinstance(schema, Mapping):
        return value
    types = types_of(schema, root)
    better = _coerce_scalar(value, schema, types, root)
    if better is not value:
        problems.append(Problem("coerced", f"{name}: {place} was {_shown(value)} and read as {_shown(better)}."))
        value = better
    schema = _branch(schema, value, root)
    if isinstance(value, dict):
        properties = schema.get("properties")
        inner = properties if isinstance(properties, Mapping) else {}
        return {
            key: _coerce(item, inner.get(key), root, f"{place}.{key}".lstrip("."), name, problems)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _coerce(item, schema.get("items"), root, f"{place}.{number}".lstrip("."), name, problems)
            for number, item in enumerate(value)
        ]
    return value


def _branch(schema: Mapping[str, Any], value: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the alternative of a union that a value matches; without one, the schema itself."""
    wanted = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else ""
    for choice in ("anyOf", "oneOf"):
        for option in schema.get(choice, ()):
            if wanted and isinstance(option, Mapping) and wanted in types_of(option, root):
                return option
    return schema


def _coerce_scalar(value: object, schema: Mapping[str, Any], types: frozenset[str], root: Mapping[str, Any]) -> object:
    """Return a value as one of the types; unchanged if it already is one, or cannot become one."""
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
    """Return text parsed as one of the types; the text itself if it is not one of them."""
    stripped = text.strip()
    if "boolean" in types and stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if "null" in types and stripped.lower() in ("null", "none", ""):
        return None
    try:
        value = msgspec.json.decode(stripped)
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
    return msgspec.json.encode(value).decode()[:MAX_SHOWN]
