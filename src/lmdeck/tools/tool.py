"""`Tool`: a name, a schema and a handler; `@tool` creates one from a function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from lmdeck._late_patterns import late_pattern
from lmdeck.errors import ConfigurationError
from lmdeck.tools.checker import Checker
from lmdeck.tools.signature import read_signature

P = ParamSpec("P")
R = TypeVar("R")
NAME = late_pattern(r"[a-z_][a-z0-9_]{0,63}")
SCHEMA_KEYWORDS = frozenset(
    {"type", "properties", "required", "$schema", "anyOf", "oneOf", "allOf", "additionalProperties"}
)


class ToolFailed(Exception):
    """Raised by a tool to report a failure to the model in its own words; the loop continues."""


class Tool(Generic[P, R]):
    """A tool that a model may call, with its `parameters` as JSON Schema.

    It can be called like the function from which it was created. `timeout` is the maximum run time in seconds; None means the
    limit of the loop. With `repeatable`, each of several equal calls is run. `arguments` is the Struct to which arguments are
    converted; with None, they are passed as plain data.
    """

    def __init__(
        self,
        *,
        name: str,
        handler: Callable[P, R],
        description: str = "",
        parameters: Mapping[str, Any],
        arguments: type[msgspec.Struct] | None = None,
        timeout: float | None = None,
        repeatable: bool = False,
        takes_self: bool = False,
    ) -> None:
        self.name = checked_name(name)
        self.handler = handler
        self.description = description
        self.parameters = dict(parameters)
        self.arguments = arguments
        self.timeout = timeout
        self.repeatable = repeatable
        self._takes_self = takes_self
        self.__name__ = name
        self.__doc__ = handler.__doc__
        self.__wrapped__ = handler

    @property
    def is_async(self) -> bool:
        """Whether the handler must be awaited."""
        return inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(
            getattr(self.handler, "__call__", None)  # noqa: B004 - an object with an async __call__
        )

    @cached_property
    def checker(self) -> Checker:
        """The validator of the arguments."""
        return Checker(self.parameters, f"The tool {self.name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the tool in OpenAI's format."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": {key: value for key, value in function.items() if value != ""}}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the handler directly."""
        return self.handler(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Tool[..., R]:
        """Bind a tool that was created from a method."""
        if instance is None or not self._takes_self:
            return self
        return self.with_handler(self.handler.__get__(instance, owner))

    def with_handler(self, handler: Callable[..., R]) -> Tool[..., R]:
        """Return the same tool with another handler."""
        return Tool(
            name=self.name, handler=handler, description=self.description, parameters=self.parameters,
            arguments=self.arguments, timeout=self.timeout, repeatable=self.repeatable,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Tool {self.name}({', '.join(self.parameters.get('properties', {}))})>"


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, timeout: float | None = None, repeatable: bool = False
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None, /, *, name: str | None = None, description: str | None = None,
    timeout: float | None = None, repeatable: bool = False,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:  # fmt: skip
    """Create a tool from a function.

    The schema comes from its signature. Descriptions are read from Google, NumPy and reST docstrings, and from `Annotated[str,
    "description"]`. Equal calls in one answer are run once and share the result, unless the tool is `repeatable`, for example
    one that rolls a die.

    Raises:
        ConfigurationError: A parameter cannot be described, or LM Studio would rewrite the name.
    """

    def make(function: Callable[P, R]) -> Tool[P, R]:
        chosen = name or str(getattr(function, "__name__", type(function).__name__))
        checked_name(chosen)
        signature = read_signature(function, chosen)
        return Tool(
            name=chosen, handler=function, description=signature.description if description is None else description,
            parameters=signature.schema, arguments=signature.arguments, timeout=timeout, repeatable=repeatable,
            takes_self=signature.takes_self,
        )  # fmt: skip

    return make if function is None else make(function)


def make_tool(
    name: str, *, handler: Callable[..., Any], description: str = "", parameters: Mapping[str, Any] | None = None,
    required: Sequence[str] | None = None, timeout: float | None = None, repeatable: bool = False,
) -> Tool[..., Any]:  # fmt: skip
    """Create a tool from a handler and parameters.

    `parameters` is a JSON Schema, or its short form `{"city": {"type": "string"}}`, in which all parameters are required unless
    `required` lists the required ones. Without `parameters`, the schema comes from the handler's signature.

    Raises:
        ConfigurationError: The parameters are not a schema, `required` names an unknown parameter, or the name is refused.
    """
    if parameters is None:
        made = tool(name=name, description=description or None, timeout=timeout, repeatable=repeatable)(handler)
        if required is not None:
            made.parameters["required"] = _checked_required(name, required, made.parameters["properties"])
        return made
    schema: dict[str, Any] = (
        dict(parameters) if _is_schema(parameters) else {"type": "object", "properties": _checked(name, parameters)}
    )
    properties: dict[str, Any] = schema.get("properties", {})
    if required is not None or not _is_schema(parameters):
        chosen = list(properties) if required is None else _checked_required(name, required, properties)
        schema["required"] = chosen
    return Tool(
        name=name, handler=handler, description=description, parameters=schema, timeout=timeout, repeatable=repeatable
    )


def checked_name(name: str) -> str:
    """Return a tool's name if LM Studio does not change it.

    Raises:
        ConfigurationError: LM Studio would convert the name to snake_case (LM Studio 0.3.23, API changelog).
    """
    if NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        f"LM Studio would rewrite the tool's name {name!r}: it allows only lower-case letters, digits and underscores.",
        hint=f"Use the name {snake_case(name)!r}.",
    )


def snake_case(name: str) -> str:
    """Return a name in snake_case, which LM Studio does not change."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    plain = re.sub(r"[^a-z0-9_]+", "_", words.lower()).strip("_")
    return (f"tool_{plain}" if plain[:1].isdigit() else plain)[:64] or "my_tool"


def _is_schema(parameters: Mapping[str, Any]) -> bool:
    """Whether parameters are JSON Schema.

    In the short form, each key is a parameter.
    """
    if parameters.get("type") == "object" or isinstance(parameters.get("$schema"), str):
        return True
    has_only_keywords = set(parameters) <= SCHEMA_KEYWORDS and not isinstance(parameters.get("type"), Mapping)
    return has_only_keywords and isinstance(parameters.get("properties"), Mapping)


def _checked(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in parameters.items():
        if not isinstance(value, Mapping):
            raise ConfigurationError(
                f"The parameter {key!r} of the tool {name!r} is described by {value!r}, which is not a schema.",
                hint='Describe each parameter: {"city": {"type": "string", "description": "…"}}.',
            )
    return {key: dict(value) for key, value in parameters.items()}


def _checked_required(name: str, required: Sequence[str], properties: Mapping[str, Any]) -> list[str]:
    missing = [key for key in required if key not in properties]
    if missing:
        raise ConfigurationError(
            f"The tool {name!r} requires {missing[0]!r}, which is not one of its parameters.",
            hint=f"Its parameters are: {', '.join(properties) or 'none'}.",
        )
    return list(required)
