"""The contender this is about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from lmdeck import AsyncLMStudio, LMStudio
from wire import QUESTION, TOOL


class Sync:
    """`LMStudio`, its settings at their defaults."""

    def __init__(self, port: int) -> None:
        self._client = LMStudio(host="127.0.0.1", port=port)

    def stream(self, model: str) -> str:
        """Ask, and take every `Chunk`."""
        with self._client.chat(model).user(QUESTION).stream() as stream:
            return "".join([chunk.content for chunk in stream])

    def call(self, model: str) -> str:
        """Ask with a tool, take every `Chunk`, and return the arguments of the call."""
        with self._client.chat(model).user(QUESTION).with_tools([TOOL]).stream() as stream:
            for _ in stream:
                pass
            return stream.reply.tool_calls[0].raw_arguments

    def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        return self._client.chat(model).user(QUESTION).send().content

    def contents(self, model: str) -> Iterator[str]:
        """Ask, and yield each piece of content."""
        with self._client.chat(model).user(QUESTION).stream() as stream:
            for chunk in stream:
                yield chunk.content

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Async:
    """`AsyncLMStudio`, its settings at their defaults, but without a queue."""

    def __init__(self, port: int) -> None:
        self._client = AsyncLMStudio(host="127.0.0.1", port=port, max_concurrency=10_000)

    async def stream(self, model: str) -> str:
        """Ask, and take every `Chunk`."""
        async with self._client.chat(model).user(QUESTION).stream() as stream:
            return "".join([chunk.content async for chunk in stream])

    async def call(self, model: str) -> str:
        """Ask with a tool, take every `Chunk`, and return the arguments of the call."""
        async with self._client.chat(model).user(QUESTION).with_tools([TOOL]).stream() as stream:
            async for _ in stream:
                pass
            return stream.reply.tool_calls[0].raw_arguments

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        return (await self._client.chat(model).user(QUESTION).send()).content

    async def contents(self, model: str) -> AsyncIterator[str]:
        """Ask, and yield each piece of content."""
        async with self._client.chat(model).user(QUESTION).stream() as stream:
            async for chunk in stream:
                yield chunk.content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
