"""The libraries below lmdeck, urllib3 and aiohttp, and the same decoding by msgspec as with sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import urllib3

from wire import PATH, TOOL, Events, request_body, whole

JSON = {"Content-Type": "application/json"}
READ_BYTES = 1 << 18


class Sync:
    """`urllib3.HTTPConnectionPool`, which keeps its connection."""

    def __init__(self, port: int) -> None:
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", port)

    def stream(self, model: str) -> str:
        """Ask, and take every piece of content."""
        return self._read(request_body(model, stream=True))

    def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        return self._read(request_body(model, stream=True, tools=[TOOL]))

    def _read(self, request: bytes) -> str:
        pieces: list[str] = []
        events = Events()
        response = self._pool.urlopen("POST", PATH, body=request, headers=JSON, preload_content=False)
        while data := response.read1(READ_BYTES):
            pieces.extend(events.feed(data))
        response.release_conn()
        if not events.done:
            raise ValueError("the stream was cut")
        return "".join(pieces)

    def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        return whole(self._pool.urlopen("POST", PATH, body=request_body(model, stream=False), headers=JSON).data)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()


class Async:
    """`aiohttp.ClientSession`, which keeps its connections; it is opened by the first request, in the event loop."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}{PATH}"
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=READ_BYTES)
        return self._session

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
        async with self._opened().post(self._url, data=request, headers=JSON) as response:
            async for data in response.content.iter_any():
                for piece in events.feed(data):
                    yield piece

    async def _read(self, request: bytes) -> str:
        pieces: list[str] = []
        events = Events()
        async with self._opened().post(self._url, data=request, headers=JSON) as response:
            async for data in response.content.iter_any():
                pieces.extend(events.feed(data))
        if not events.done:
            raise ValueError("the stream was cut")
        return "".join(pieces)

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        async with self._opened().post(self._url, data=request_body(model, stream=False), headers=JSON) as response:
            return whole(await response.read())

    async def close(self) -> None:
        """Close the connections."""
        await self._opened().close()
