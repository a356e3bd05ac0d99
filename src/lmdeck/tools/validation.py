"""Validation of a call's arguments: JSON Schema, lossless coercion, typed objects."""

from __future__ import annotations

from typing import Any

from lmdeck.errors import ToolArgumentsError
from lmdeck.messages import Problem, ToolCall
from lmdeck.tools.schema import to_object
from lmdeck.tools.tool import Tool

MAX_SHOWN = 200


def coerced_arguments(tool: Tool[..., Any], call: ToolCall) -> tuple[dict[str, Any], list[Problem]]:
    """Return the arguments as plain data that matches the schema, and the problems of coercion.

    Raises:
        ToolArgumentsError: They do not match the schema; `errors` has one line for each mismatch.
        ConfigurationError: The tool's own schema is not a JSON Schema.
    """
    problems: list[Problem] = []
    arguments: dict[str, Any] = call.arguments
    errors = tool.checker.errors(arguments)
    if errors:
        coerced = tool.checker.coerce(arguments, call.name, problems)
        arguments = coerced if isinstance(coerced, dict) else arguments
        errors = tool.checker.errors(arguments)
    if errors:
        raise ToolArgumentsError(f"The arguments of {call.name!r} do not match: {errors[0]}", errors=errors)
    return dict(arguments), problems


def typed_arguments(tool: Tool[..., Any], call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return coerced arguments as objects of the types in the handler's signature.

    Raises:
        ToolArgumentsError: An argument cannot be converted.
    """
    if tool.arguments is None:
        return arguments
    try:
        made = to_object(arguments, tool.arguments)
    except ValueError as error:  # msgspec's and pydantic's
        line = " ".join(str(error).split())[:MAX_SHOWN]
        raise ToolArgumentsError(f"The arguments of {call.name!r} do not match: {line}", errors=[line]) from error
    return {name: getattr(made, name) for name in tool.arguments.__struct_fields__}
