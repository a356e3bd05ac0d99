"""A function's parameters as a msgspec Struct, with its schema and conversion of arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Meta

from lmdeck.errors import ConfigurationError
from lmdeck.tools.docstring import parse_docstring
from lmdeck.tools.schema import schema_of


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The signature of a function: its description, schema, and the Struct of its arguments."""

    description: str
    schema: dict[str, Any]
    arguments: type[msgspec.Struct]
    takes_self: bool = False


def read_signature(function: Callable[..., object], name: str) -> Signature:
    """Read a function's signature, type hints and docstring.

    Raises:
        ConfigurationError: A parameter cannot be described: `*args`, positional-only, an unsupported type, an unknown name.
    """
    what = f"The tool {name!r}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigurationError(
            f"{what} has a type hint that cannot be read: {error}.",
            hint="Import the type where the function is defined.",
        ) from error
    description, meanings = parse_docstring(function)
    parameters = list(inspect.signature(function).parameters.values())
    takes_self = bool(parameters) and parameters[0].name in ("self", "cls") and parameters[0].name not in hints
    fields = [_field(parameter, hints, meanings, what) for parameter in parameters[takes_self:]]
    arguments = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
    schema = {key: value for key, value in schema_of(arguments, what).items() if key != "title"}
    properties = schema.setdefault("properties", {})
    for parameter in parameters[takes_self:]:
        if parameter.default is not parameter.empty and parameter.default is not None:
            properties[parameter.name] = {**properties[parameter.name], **_default(parameter.default)}
    return Signature(description=description, schema=schema, arguments=arguments, takes_self=takes_self)


def _field(
    parameter: inspect.Parameter, hints: dict[str, Any], meanings: dict[str, str], what: str
) -> tuple[str, Any, Any]:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise ConfigurationError(
            f"{what} has the parameter {str(parameter)!r}, which cannot be a key of a JSON object.",
            hint="Every parameter needs a name that can be passed by keyword.",
        )
    kind, meaning = _meaning(hints.get(parameter.name, Any))
    meaning = meaning or meanings.get(parameter.name, "")
    described_kind = Annotated[kind, Meta(description=meaning)] if meaning else kind
    if parameter.default is parameter.empty:
        return parameter.name, described_kind, msgspec.NODEFAULT
    return parameter.name, described_kind, msgspec.field(default_factory=lambda: parameter.default)


def _default(value: object) -> dict[str, Any]:
    """Return the schema's `default` for a value that JSON can represent."""
    try:
        return {"default": msgspec.to_builtins(value)}
    except (TypeError, NotImplementedError):
        return {}


def _meaning(hint: Any) -> tuple[Any, str]:
    """Return the type and the description of an annotation.

    The description is in `Annotated[T, "description"]` or pydantic's `Field(description=…)`.
    """
    if get_origin(hint) is not Annotated:
        return hint, ""
    kind, *extras = get_args(hint)
    texts = [extra if isinstance(extra, str) else getattr(extra, "description", None) for extra in extras]
    limits = [extra for extra in extras if isinstance(extra, Meta)]
    for limit in limits:
        kind = Annotated[kind, limit]
    return kind, next((text for text in texts if text), "")
