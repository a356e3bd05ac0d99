"""Streams of structured output: partial values, and the object at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._parsing.structured_output import NOTHING
from lmdeck._plans.structured import OutputType
from lmdeck.errors import IncompleteStreamError
from lmdeck.messages import Problem, Reply

T = TypeVar("T")
SMALL_TEXT = 4096
GROWTH = 1.1


class _PartialReader(Generic[T]):
    """A reader of the text so far.

    It reads after every chunk up to `SMALL_TEXT` characters, then whenever the text has grown by a tenth.
    """

    def __init__(self, output_type: OutputType[T]) -> None:
        self._output_type = output_type
        self._parts: list[str] = []
        self._size = 0
        self._next = 0.0
        self._last: Any = NOTHING

    def add(self, text: str) -> Any:
        """Add text, and return the value so far, or `NOTHING` if it has not changed."""
        self._parts.append(text)
        self._size += len(text)
        if self._size < self._next:
            return NOTHING
        self._parts = ["".join(self._parts)]
        self._next = 0.0 if self._size < SMALL_TEXT else self._size * GROWTH
        value = self._output_type.partial(self._parts[0])
        if value is NOTHING or value == self._last:
            return NOTHING
        self._last = value
        return value


class _ParseStreamBase(Generic[T]):
    """The base class of both streams: the requested type, and the object at the end."""

    _stream: ChatStream | AsyncChatStream

    def __init__(self, output_type: OutputType[T]) -> None:
        self._output_type = output_type
        self._value: Any = NOTHING
        self.problems: list[Problem] = []

    @property
    def value(self) -> T:
        """The object, once the stream has been read to its end.

        Raises:
            IncompleteStreamError: The stream has not been read to its end.
        """
        if self._value is NOTHING:
            raise IncompleteStreamError("The stream has not been read to its end.", hint="Iterate over it first.")
        value: T = self._value
        return value

    @property
    def reply(self) -> Reply:
        """The reply, once the stream has been read to its end.

        Raises:
            IncompleteStreamError: The stream has not been read to its end; `partial` is the reply so far.
        """
        return self._stream.reply

    def _finish(self, reply: Reply) -> None:
        self._value, self.problems = self._output_type.read(reply)


class ParseStream(_ParseStreamBase[T]):
    """A stream of structured output.

    Iterate for partial values as plain data; `value` is the final object.
    """

    _stream: ChatStream

    def __init__(self, stream: ChatStream, output_type: OutputType[T]) -> None:
        super().__init__(output_type)
        self._stream = stream
        self._values = self._iterate()

    def _iterate(self) -> Iterator[Any]:
        partial = _PartialReader(self._output_type)
        with self._stream as stream:
            for chunk in stream:
                if chunk.content and (value := partial.add(chunk.content)) is not NOTHING:
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
        """Close the connection, so that the server stops generating."""
        self._stream.close()


class AsyncParseStream(_ParseStreamBase[T]):
    """Async version of `ParseStream`: an async iterator."""

    _stream: AsyncChatStream

    def __init__(self, stream: AsyncChatStream, output_type: OutputType[T]) -> None:
        super().__init__(output_type)
        self._stream = stream
        self._values = self._iterate()

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        partial = _PartialReader(self._output_type)
        async with self._stream as stream:
            async for chunk in stream:
                if chunk.content and (value := partial.add(chunk.content)) is not NOTHING:
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
        """Close the connection, so that the server stops generating."""
        await self._stream.aclose()
