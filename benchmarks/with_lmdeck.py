"""The contender this is about."""

from __future__ import annotations

from lmdeck import AsyncLMStudio, LMStudio

QUESTION = "Count the sheep."


class Sync:
    """`LMStudio`, its settings at their defaults."""

    def __init__(self, port: int) -> None:
        self._client = LMStudio(host="127.0.0.1", port=port)

    def stream(self, model: str) -> str:
        """Ask, and take every `Chunk`."""
        with self._client.chat(model).user(QUESTION).stream() as stream:
            return "".join([chunk.content for chunk in stream])

    def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        return self._client.chat(model).user(QUESTION).send().content

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Async:
    """`AsyncLMStudio`, its settings at their defaults, but without a queue."""

    def __init__(self, port: int) -> None:
        self._client = AsyncLMStudio(host="127.0.0.1", port=port, max_concurrency=1000)

    async def stream(self, model: str) -> str:
        """Ask, and take every `Chunk`."""
        async with self._client.chat(model).user(QUESTION).stream() as stream:
            return "".join([chunk.content async for chunk in stream])

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        return (await self._client.chat(model).user(QUESTION).send()).content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
