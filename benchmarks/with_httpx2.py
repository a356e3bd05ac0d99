"""httpx2 for HTTP, and the same decoding by msgspec as with sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from wire import PATH, TOOL, Events, request_body, whole

JSON = {"Content-Type": "application/json"}
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None)


class Sync:
    """`httpx2.Client`, which keeps its connection."""

    def __init__(self, port: int) -> None:
        self._client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, limits=LIMITS)

    def stream(self, model: str) -> str:
        """Ask, and take every piece of content."""
        return self._read(request_body(model, stream=True))

    def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        return self._read(request_body(model, stream=True, tools=[TOOL]))

    def _read(self, request: bytes) -> str:
        pieces: list[str] = []
        events = Events()
        with self._client.stream("POST", PATH, content=request, headers=JSON) as response:
            response.raise_for_status()
            for data in response.iter_raw():
                pieces.extend(events.feed(data))
        if not events.done:
            raise ValueError("the stream was cut")
        return "".join(pieces)

    def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        response = self._client.post(PATH, content=request_body(model, stream=False), headers=JSON)
        return whole(response.raise_for_status().content)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Async:
    """`httpx2.AsyncClient`, which keeps its connections."""

    def __init__(self, port: int) -> None:
        self._client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, limits=LIMITS
        )

    async def stream(self, model: str) -> str:
        """Ask, and take every piece of content."""
        return await self._read(request_body(model, stream=True))

    async def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        return await self._read(request_body(model, stream=True, tools=[TOOL]))

    async def contents(self, model: str) -> AsyncIterator[str]:
        """Ask, and yield each piece of content."""
        events = Events()
        request = request_body(model, stream=True)
        async with self._client.stream("POST", PATH, content=request, headers=JSON) as response:
            response.raise_for_status()
            async for data in response.aiter_raw():
                for piece in events.feed(data):
                    yield piece

    async def _read(self, request: bytes) -> str:
        pieces: list[str] = []
        events = Events()
        async with self._client.stream("POST", PATH, content=request, headers=JSON) as response:
            response.raise_for_status()
            async for data in response.aiter_raw():
                pieces.extend(events.feed(data))
        if not events.done:
            raise ValueError("the stream was cut")
        return "".join(pieces)

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        response = await self._client.post(PATH, content=request_body(model, stream=False), headers=JSON)
        return whole(response.raise_for_status().content)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
