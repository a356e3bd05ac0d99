"""openai-python, as its documentation shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionUserMessageParam

from wire import QUESTION, TOOL

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": QUESTION}]
USAGE: Any = {"include_usage": True}
TOOLS: Any = [TOOL]


def arguments_of(chunk: ChatCompletionChunk) -> str:
    """Return the arguments that a chunk holds."""
    calls = chunk.choices[0].delta.tool_calls if chunk.choices else None
    return (calls[0].function.arguments or "") if calls and calls[0].function else ""


class Sync:
    """`OpenAI`, its settings at their defaults."""

    def __init__(self, port: int) -> None:
        self._client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")

    def stream(self, model: str) -> str:
        """Ask, and take every `ChatCompletionChunk`."""
        with self._client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options=USAGE
        ) as stream:
            return "".join([chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices])

    def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        with self._client.chat.completions.create(
            model=model, messages=MESSAGES, tools=TOOLS, stream=True, stream_options=USAGE
        ) as stream:
            return "".join([arguments_of(chunk) for chunk in stream])

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
            model=model, messages=MESSAGES, stream=True, stream_options=USAGE
        ) as stream:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        async with await self._client.chat.completions.create(
            model=model, messages=MESSAGES, tools=TOOLS, stream=True, stream_options=USAGE
        ) as stream:
            return "".join([arguments_of(chunk) async for chunk in stream])

    async def contents(self, model: str) -> AsyncIterator[str]:
        """Ask, and yield each piece of content."""
        async with await self._client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        completion = await self._client.chat.completions.create(model=model, messages=MESSAGES)
        return completion.choices[0].message.content or ""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
