"""openai-python with lmdeck's transport: the same calls, and repaired answers."""

from __future__ import annotations

from openai import AsyncOpenAI, OpenAI

import with_openai
from lmdeck.contrib.openai import async_http_client, http_client


class Sync(with_openai.Sync):
    """`OpenAI` with `http_client()`."""

    def __init__(self, port: int) -> None:
        self._client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", http_client=http_client())


class Async(with_openai.Async):
    """`AsyncOpenAI` with `async_http_client()`."""

    def __init__(self, port: int) -> None:
        self._client = AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", http_client=async_http_client(max_concurrency=1000)
        )
