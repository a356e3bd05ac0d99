"""Write a whole answer as a model of a dialect would: reasoning, content and calls.

This is the inverse of `parse`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lmdeck._parsing.dialects import dialect_named
from lmdeck._parsing.dialects.dialect import Dialect
from lmdeck._parsing.parser import parse
from lmdeck._parsing.writers import Call
from lmdeck.errors import ConfigurationError
from lmdeck.messages import ToolCall


def render(
    dialect: str, content: str = "", calls: Iterable[ToolCall | Mapping[str, Any]] = (), reasoning: str = ""
) -> str:
    """Return an answer as a model of a dialect would write it; `parse` reads the same from it.

    Calls are `ToolCall` values or `{"name": …, "arguments": {…}}`.

    Raises:
        ConfigurationError: The dialect is unknown or cannot express this answer: it has no calls or no reasoning, its
            calls cannot have content beside them, or a value contains the text that ends a value.
    """
    spoken = dialect_named(dialect)
    wanted = [_name_and_arguments(call) for call in calls]
    text = write_answer(spoken, content, wanted, reasoning)
    read = parse(text, _tools_for(wanted), dialect)
    for what, expected, got in (
        ("the calls", wanted, [(call.name, call.arguments) for call in read.tool_calls]),
        ("the content", content.strip(), read.content),
        ("the reasoning", reasoning.strip(), read.reasoning),
    ):
        if expected != got:
            raise ConfigurationError(
                f"The dialect {dialect!r} cannot express {what} of this answer: lmdeck would read {got!r} from its text.",
                hint="Choose a dialect with JSON arguments, such as 'hermes-json', or leave this part out.",
            )
    return text


def write_answer(dialect: Dialect, content: str, calls: Sequence[Call], reasoning: str) -> str:
    """Return the text of an answer, whether it can be read back or not.

    Raises:
        ConfigurationError: The dialect has no calls or no reasoning.
    """
    parts = []
    if reasoning:
        if dialect.reasoning_frame is None:
            raise ConfigurationError(f"The dialect {dialect.name!r} has no reasoning.", hint="Choose another dialect.")
        begin, end = dialect.reasoning_frame
        parts.append(f"{begin}{reasoning}{end}")
    if content:
        begin, end = dialect.content_frame
        parts.append(f"{begin}{content}{end}")
    if calls:
        if dialect.writes is None:
            raise ConfigurationError(f"The dialect {dialect.name!r} has no tool calls.", hint="Choose another dialect.")
        parts.append(("\n" if content and not dialect.content_frame[1] else "") + dialect.writes(calls))
    return "".join(parts)


def _name_and_arguments(call: ToolCall | Mapping[str, Any]) -> Call:
    """Return a call's name and arguments.

    Raises:
        ConfigurationError: The name is not text, or the arguments are not an object that JSON can represent.
    """
    members = {"name": call.name, "arguments": call.arguments} if isinstance(call, ToolCall) else call
    name, arguments = members.get("name"), members.get("arguments", {})
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping):
        raise ConfigurationError(
            f"A call needs a name and an object of arguments, not {call!r}.",
            hint='Pass a ToolCall or {"name": "f", "arguments": {"a": 1}}.',
        )
    try:
        return name, msgspec.json.decode(msgspec.json.encode(dict(arguments)))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"The arguments of {name!r} cannot be written as JSON: {error}.", hint="Use JSON values only."
        ) from error


def _tools_for(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Return tools for which the calls are valid: their parameters have the types of the values."""
    properties: dict[str, dict[str, Any]] = {}
    for name, arguments in calls:
        known = properties.setdefault(name, {})
        for key, value in arguments.items():
            schema = _schema_of(value)
            known[key] = schema if known.get(key, schema) == schema else {"anyOf": [known[key], schema]}
    return [{"name": name, "parameters": {"type": "object", "properties": known}} for name, known in properties.items()]


def _schema_of(value: object) -> dict[str, Any]:
    """Return the schema of a JSON value."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int | float):
        return {"type": "integer" if isinstance(value, int) else "number"}
    if isinstance(value, str):
        return {"type": "string"}
    if isinstance(value, Mapping):
        return {"type": "object", "properties": {key: _schema_of(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"type": "array", "items": {"anyOf": [_schema_of(item) for item in value]} if value else {}}
    return {"type": "null"}
