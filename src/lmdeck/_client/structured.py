"""Structured output: an answer as an object of a type, or an error that says why not.

The server is asked to hold the model to the type's schema. Models and servers that ignore that, or refuse it, are dealt with:
JSON is found in the reasoning, in a fence or in prose, repaired, validated, and requested again with the errors named.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._parsing.structured_output import NOTHING, json_values, partial_value
from lmdeck.errors import EmptyReplyError, IncompleteStreamError, InvalidRequestError, StructuredOutputError
from lmdeck.messages import Problem, Reply
from lmdeck.tools.checker import Checker
from lmdeck.tools.schema import schema_of, to_object

T = TypeVar("T")
SMALL = 4096
GROWTH = 1.1


class Form(Generic[T]):
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
        """The option that holds the model to the schema (LM Studio's docs, `3_openai-compat/structured-output`)."""
        name = "".join(char if char.isalnum() else "_" for char in self.name)[:64]
        return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": self.schema}}

    @property
    def request(self) -> str:
        """The instruction for a model whose output the server cannot restrict to a schema."""
        shown = msgspec.json.encode(self.schema).decode()
        return f"Answer with JSON alone, without any other words, that fits this JSON Schema:\n{shown}"

    def read(self, reply: Reply) -> tuple[T, list[Problem]]:
        """Return the object in a reply, and the problems.

        Raises:
            StructuredOutputError: Nothing in it fits; `raw` is the text, the message names the faults.
        """
        faults: list[str] = []
        for place, text in (("", reply.content), ("found in the reasoning", reply.reasoning)):
            for value, how in json_values(text):
                try:
                    made, problems = self._made(value)
                except ValueError as error:
                    faults = faults or _lines(error)
                    continue
                told = ", ".join(part for part in (place, how) if part)
                return made, [*([Problem("structured", f"The JSON was {told}.")] if told else []), *problems]
        why = "; ".join(faults) or "there is no JSON in it"
        if reply.finish_reason == "length":
            why += "; it was cut off by the limit of tokens"
        raise StructuredOutputError(
            f"The answer does not fit {self.name}: {why}.", raw=reply.content or reply.reasoning, partial=reply
        )

    def partial(self, text: str) -> Any:
        """Return the value so far, `NOTHING` before it starts."""
        value = partial_value(text)
        return value.get("value", NOTHING) if self._wraps and isinstance(value, dict) else value

    def _made(self, value: Any) -> tuple[T, list[Problem]]:
        """Return the object for a JSON value, also if it is not wrapped as requested."""
        problems: list[Problem] = []
        wrapped = value
        if self._wraps and not (isinstance(value, dict) and set(value) == {"value"}):
            wrapped = {"value": value}
        fitting = self._checker.coerce(wrapped, self.name, problems)
        if faults := self._checker.errors(fitting):
            raise ValueError("\n".join(faults))
        inner = fitting["value"] if self._wraps and isinstance(fitting, dict) else fitting
        return to_object(inner, self.kind), problems


def _lines(error: ValueError) -> list[str]:
    return [" ".join(line.split()) for line in str(error).splitlines() if line.strip()][:10]


class Ask(msgspec.Struct, frozen=True):
    """Effect: ask with some further words, held to the schema or not, after an answer that did not fit."""

    words: str = ""
    held: bool = True
    after: Reply | None = None


def asking(form: Form[T], attempts: int) -> Generator[Ask, Any, tuple[T, Reply, list[Problem]]]:
    """Plan the questions: held to the schema, without it where the server refuses it, and again with the faults named."""
    ask = Ask()
    asked_again = 0
    while True:
        try:
            reply: Reply = yield ask
        except (InvalidRequestError, EmptyReplyError):
            if not ask.held:
                raise
            ask = Ask(form.request, held=False)
            continue
        try:
            value, problems = form.read(reply)
        except StructuredOutputError as error:
            if asked_again >= attempts:
                raise
            asked_again += 1
            ask = Ask(f"{error.message}\n{form.request}", held=False, after=reply)
        else:
            return value, reply, problems


class _Growing(Generic[T]):
    """The text of an answer while it grows, and when it is worth reading: always while small, then at each tenth more."""

    def __init__(self, form: Form[T]) -> None:
        self._form = form
        self._parts: list[str] = []
        self._size = 0
        self._next = 0.0
        self._last: Any = NOTHING

    def add(self, text: str) -> Any:
        """Add text; give the value so far where it has changed, `NOTHING` where not."""
        self._parts.append(text)
        self._size += len(text)
        if self._size < self._next:
            return NOTHING
        self._parts = ["".join(self._parts)]
        self._next = 0.0 if self._size < SMALL else self._size * GROWTH
        value = self._form.partial(self._parts[0])
        if value is NOTHING or value == self._last:
            return NOTHING
        self._last = value
        return value


class _Parsed(Generic[T]):
    """The base class of both streams: the form, and the object at the end."""

    _stream: ChatStream | AsyncChatStream

    def __init__(self, form: Form[T]) -> None:
        self._form = form
        self._value: Any = NOTHING
        self.problems: list[Problem] = []

    @property
    def value(self) -> T:
        """The object, once the stream was read to its end.

        Raises:
            IncompleteStreamError: It was not.
        """
        if self._value is NOTHING:
            raise IncompleteStreamError("The stream was not read to its end.", hint="Iterate it first.")
        value: T = self._value
        return value

    @property
    def reply(self) -> Reply:
        """The reply, once the stream was read to its end.

        Raises:
            IncompleteStreamError: It was not; `partial` is the reply so far.
        """
        return self._stream.reply

    def _finish(self, reply: Reply) -> None:
        self._value, self.problems = self._form.read(reply)


class ParseStream(_Parsed[T]):
    """Structured output while it is written: an iterator of what has come so far, as plain data; `value` at the end."""

    _stream: ChatStream

    def __init__(self, stream: ChatStream, form: Form[T]) -> None:
        super().__init__(form)
        self._stream = stream
        self._values = self._iterate()

    def _iterate(self) -> Iterator[Any]:
        growing = _Growing(self._form)
        with self._stream as stream:
            for chunk in stream:
                if chunk.content and (value := growing.add(chunk.content)) is not NOTHING:
                    yield value
        self._finish(stream.reply)

    def __iter__(self) -> Iterator[Any]:
        return self._values

    def __next__(self) -> Any:
        return next(self._values)

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop: close the connection, so that the server stops generating."""
        self._stream.close()


class AsyncParseStream(_Parsed[T]):
    """The same for asyncio: an async iterator."""

    _stream: AsyncChatStream

    def __init__(self, stream: AsyncChatStream, form: Form[T]) -> None:
        super().__init__(form)
        self._stream = stream
        self._values = self._iterate()

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        growing = _Growing(self._form)
        async with self._stream as stream:
            async for chunk in stream:
                if chunk.content and (value := growing.add(chunk.content)) is not NOTHING:
                    yield value
        self._finish(stream.reply)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._values

    async def __anext__(self) -> Any:
        return await anext(self._values)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop: close the connection, so that the server stops generating."""
        await self._stream.aclose()
