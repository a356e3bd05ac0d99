"""Structured output: an answer as an object of a type, or an error about the mismatch.

The server is asked to restrict the model to the type's schema. If the model or server ignores or refuses that, JSON is found
in the reasoning, a code fence or prose, repaired and validated; if it does not fit, it is requested again with the errors.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

import msgspec

from lmdeck._parsing.structured_output import NOTHING, json_values, partial_value
from lmdeck.errors import EmptyReplyError, InvalidRequestError, StructuredOutputError
from lmdeck.messages import Problem, Reply
from lmdeck.tools.checker import Checker
from lmdeck.tools.schema import schema_of, to_object

T = TypeVar("T")


class OutputType(Generic[T]):
    """The requested type, its schema, and the conversion of answers into objects."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self.name = getattr(kind, "__name__", "answer")
        schema = schema_of(kind, f"The type {self.name}")
        self._wraps = schema.get("type") != "object"
        self.schema: dict[str, Any] = schema
        if self._wraps:  # the grammar of an answer begins with an object
            self.schema = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
            if "$defs" in schema:
                self.schema["$defs"] = schema.pop("$defs")
        self._checker = Checker(self.schema, f"The type {self.name}")

    @property
    def response_format(self) -> dict[str, Any]:
        """The option that restricts the model to the schema.

        Source: LM Studio's docs, `3_openai-compat/structured-output`.
        """
        name = "".join(char if char.isalnum() else "_" for char in self.name)[:64]
        return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": self.schema}}

    @property
    def instruction(self) -> str:
        """The instruction for a model whose output the server cannot restrict to a schema."""
        shown = msgspec.json.encode(self.schema).decode()
        return f"Answer only with JSON that matches this JSON Schema, without any other text:\n{shown}"

    def read(self, reply: Reply) -> tuple[T, list[Problem]]:
        """Return the object in a reply, and the problems.

        Raises:
            StructuredOutputError: No JSON in it matches; `raw` is the text, the message lists the errors.
        """
        errors: list[str] = []
        for place, text in (("", reply.content), ("found in the reasoning", reply.reasoning)):
            for value, how in json_values(text):
                try:
                    result, problems = self._convert(value)
                except ValueError as error:
                    errors = errors or _lines(error)
                    continue
                detail = ", ".join(part for part in (place, how) if part)
                return result, [*([Problem("structured", f"The JSON was {detail}.")] if detail else []), *problems]
        why = "; ".join(errors) or "it contains no JSON"
        if reply.finish_reason == "length":
            why += "; it was cut off by the token limit"
        raise StructuredOutputError(
            f"The answer does not match {self.name}: {why}.", raw=reply.content or reply.reasoning, partial=reply
        )

    def partial(self, text: str) -> Any:
        """Return the value so far, or `NOTHING` before it starts."""
        value = partial_value(text)
        return value.get("value", NOTHING) if self._wraps and isinstance(value, dict) else value

    def _convert(self, value: Any) -> tuple[T, list[Problem]]:
        """Return the object for a JSON value, which may be without the requested wrapper."""
        problems: list[Problem] = []
        wrapped = value
        if self._wraps and not (isinstance(value, dict) and set(value) == {"value"}):
            wrapped = {"value": value}
        coerced = self._checker.coerce(wrapped, self.name, problems)
        if errors := self._checker.errors(coerced):
            raise ValueError("\n".join(errors))
        inner = coerced["value"] if self._wraps and isinstance(coerced, dict) else coerced
        return to_object(inner, self.kind), problems


def _lines(error: ValueError) -> list[str]:
    return [" ".join(line.split()) for line in str(error).splitlines() if line.strip()][:10]


class OutputRequest(msgspec.Struct, frozen=True):
    """Effect: request an answer, with or without the schema.

    It may be a further one, after an answer that did not match.
    """

    instruction: str = ""
    uses_schema: bool = True
    previous: Reply | None = None


def plan_attempts(
    output_type: OutputType[T], attempts: int
) -> Generator[OutputRequest, Any, tuple[T, Reply, list[Problem]]]:
    """Plan the requests: with the schema, without it if refused, and again with the errors."""
    request = OutputRequest()
    repeated = 0
    while True:
        try:
            reply: Reply = yield request
        except (InvalidRequestError, EmptyReplyError):
            if not request.uses_schema:
                raise
            request = OutputRequest(output_type.instruction, uses_schema=False)
            continue
        try:
            value, problems = output_type.read(reply)
        except StructuredOutputError as error:
            if repeated >= attempts:
                raise
            repeated += 1
            request = OutputRequest(f"{error.message}\n{output_type.instruction}", uses_schema=False, previous=reply)
        else:
            return value, reply, problems
