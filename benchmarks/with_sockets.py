"""The least that can be done in Python: a socket, HTTP read by hand, msgspec for JSON; no checks, limits or errors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

from wire import PATH, TOOL, Chunked, Events, request_body, whole

READ_BYTES = 1 << 18


def request_of(port: int, body: bytes) -> bytes:
    """Write a request's head and body."""
    return (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (PATH.encode(), port, len(body), body)
    )


def length_of(head: bytes) -> int:
    """Check the status and give the body's length; -1 for a chunked one."""
    status, *fields = head.lower().split(b"\r\n")
    if not status.startswith(b"http/1.1 200"):
        raise ValueError(f"the server answered {status!r}")
    headers = dict(field.split(b": ", 1) for field in fields)
    return -1 if headers.get(b"transfer-encoding") == b"chunked" else int(headers[b"content-length"])


class Sync:
    """Blocking sockets, one connection kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def stream(self, model: str) -> str:
        """Ask, and take every piece of content."""
        return "".join(self._contents(request_body(model, stream=True)))

    def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        return "".join(self._contents(request_body(model, stream=True, tools=[TOOL])))

    def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        length, data = self._open(request_body(model, stream=False))
        while len(data) < length:
            data += self._receive()
        return whole(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _contents(self, request: bytes) -> Iterator[str]:
        _, data = self._open(request)
        body, events = Chunked(), Events()
        while True:
            yield from events.feed(body.feed(data))
            if body.done:
                break
            data = self._receive()
        if not events.done:
            raise ValueError("the stream was cut")

    def _open(self, body: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request_of(self._port, body))
        data = self._receive()
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        return length_of(head), rest

    def _receive(self) -> bytes:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ValueError("the connection was closed")
        return data


class Async:
    """asyncio's streams, connections kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def stream(self, model: str) -> str:
        """Ask, and take every piece of content."""
        return "".join([content async for content in self.contents(model)])

    async def call(self, model: str) -> str:
        """Ask with a tool, and return the arguments of the call."""
        request = request_body(model, stream=True, tools=[TOOL])
        return "".join([piece async for piece in self._contents(request)])

    def contents(self, model: str) -> AsyncIterator[str]:
        """Ask, and yield each piece of content."""
        return self._contents(request_body(model, stream=True))

    async def ask(self, model: str) -> str:
        """Ask for the whole answer."""
        length, reader, writer = await self._open(request_body(model, stream=False))
        body = await reader.readexactly(length)
        self._idle.append((reader, writer))
        return whole(body)

    async def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()

    async def _contents(self, request: bytes) -> AsyncIterator[str]:
        _, reader, writer = await self._open(request)
        body, events = Chunked(), Events()
        while not body.done:
            data = await reader.read(READ_BYTES)
            if not data:
                raise ValueError("the connection was closed")
            for content in events.feed(body.feed(data)):
                yield content
        if not events.done:
            raise ValueError("the stream was cut")
        self._idle.append((reader, writer))

    async def _open(self, body: bytes) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=READ_BYTES)
        writer.write(request_of(self._port, body))
        head = await reader.readuntil(b"\r\n\r\n")
        return length_of(head[:-4]), reader, writer
