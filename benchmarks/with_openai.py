"""openai-python, as its documentation shows it."""

from __future__ import annotations

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Count the sheep."}]


class Sync:
    """`OpenAI`, its settings at their defaults."""

    def __init__(self, port: int) -> None:
        self._client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")

    def stream(self, model: str) -> str:
        """Ask, and take every `ChatCompletionChunk`."""
        with self._client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ) as stream:
            return "".join([chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices])

    def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        return self._client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content or ""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Async:
    """`AsyncOpenAI`, its settings at their defaults."""

    def __init__(self, port: int) -> None:
        self._client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")

    async def stream(self, model: str) -> str:
        """Ask, and take every `ChatCompletionChunk`."""
        async with await self._client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ) as stream:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        completion = await self._client.chat.completions.create(model=model, messages=MESSAGES)
        return completion.choices[0].message.content or ""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
