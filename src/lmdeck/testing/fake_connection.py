"""The connection of one response: bytes split as networks split them, or changed by a fault."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lmdeck._incoming.disconnect import wait_for_disconnect

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Message, Receive, Send

    from lmdeck.server.joined_writes import JoinedWrites

Headers = list[tuple[bytes, bytes]]
_CUT_CHANCE = 0.25


class ResponseFinished(Exception):  # control flow, not an error
    """The response has ended early; the application need not continue."""


class Wire:
    """The connection of one response.

    `find_transport` returns None if the fake runs without a socket; an abrupt end then raises a `ConnectionResetError`.
    """

    def __init__(
        self,
        path: str,
        receive: Receive,
        send: Send,
        rng: random.Random,
        find_transport: Callable[[], JoinedWrites | None],
        *,
        cuts: bool,
    ) -> None:
        self.path = path
        self.rng = rng
        self._receive = receive
        self._send = send
        self._find_transport = find_transport
        self._cuts = cuts

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status and the headers."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes, *, is_last: bool = False) -> None:
        """Send bytes, sometimes split in two at a random position.

        The split may fall within a character or a marker. The last bytes end the response.
        """
        is_cut = self._cuts and len(data) > 1 and self.rng.random() < _CUT_CHANCE
        rest = self.rng.randrange(1, len(data)) if is_cut else 0
        if rest and self._transport is None:
            await self.send_unsplit(data[:-rest])
            data = data[-rest:]
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        if rest and self._transport is not None:
            self._transport.flush(keep=rest)  # below HTTP, as a chunk of HTTP costs more than the event in it

    async def send_unsplit(self, data: bytes) -> None:
        """Send bytes in one piece."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the response properly."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def respond(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Send a whole response."""
        sent_headers = [(b"content-type", b"application/json; charset=utf-8")] if headers is None else headers
        await self.start(status, [*sent_headers, (b"content-length", str(len(body)).encode())])
        await self.send_unsplit(body)
        await self.end()

    def write_raw(self, data: bytes) -> None:
        """Write bytes to the socket, below HTTP."""
        self._socket().write(data)

    async def close(self) -> None:
        """Close the connection after sending the buffered bytes, with the response incomplete."""
        self._socket().close()
        await self.wait_for_disconnect()

    async def reset(self) -> None:
        """Reset the connection instead of closing it."""
        transport = self._socket()
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await self.wait_for_disconnect()

    async def wait(self, seconds: float) -> None:
        """Wait for a time, but only while the client is connected.

        Raises:
            ResponseFinished: The client has disconnected.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait_for_disconnect(), seconds)
            raise ResponseFinished

    async def wait_for_disconnect(self) -> None:
        """Wait until the client disconnects."""
        await wait_for_disconnect(self._receive)

    @cached_property
    def _transport(self) -> JoinedWrites | None:
        return self._find_transport()

    def _socket(self) -> JoinedWrites:
        if self._transport is None:
            raise ConnectionResetError("the fake reset the connection")
        return self._transport


class PlannedResponse:
    """The response without the fault: its head, then its bytes as the application sends them."""

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return (b"content-type", b"text/event-stream") in [(name, value.split(b";")[0]) for name, value in self.headers]

    def without_length(self) -> Headers:
        """Return the headers for a body of another length."""
        return [(name, value) for name, value in self.headers if name.lower() != b"content-length"]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes, one piece for each event."""
        while (data := await self._queue.get()) is not None:
            if data:
                yield data

    async def read(self) -> bytes:
        """Return all bytes."""
        return b"".join([data async for data in self])

    async def put(self, data: bytes | None) -> None:
        """Put the next bytes of the application; None marks the end."""
        await self._queue.put(data)


class ResponseSender:
    """Sends what the application produces: directly, or through the fault of this response."""

    def __init__(self, wire: Wire, fault: Callable[[], Callable[[Wire, PlannedResponse], Any] | None]) -> None:
        self._wire = wire
        self._fault = fault
        self._planned: PlannedResponse | None = None
        self._task: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Send one ASGI message of the application.

        Raises:
            ResponseFinished: The fault has finished the response; the application need not continue.
        """
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))

    async def _start(self, message: Message) -> None:
        fault = self._fault()
        headers = list(message.get("headers", []))
        if fault is None:
            await self._wire.start(message["status"], headers)
            return
        self._planned = PlannedResponse(message["status"], headers)
        self._task = asyncio.create_task(fault(self._wire, self._planned))

    async def _send_body(self, data: bytes, *, is_last: bool) -> None:
        if self._planned is None or self._task is None:
            if data or is_last:
                await self._wire.send(data, is_last=is_last)
            return
        await self._put(data)
        if is_last:
            await self._put(None)

    async def _put(self, data: bytes | None) -> None:
        assert self._planned is not None  # checked by `_send_body`
        assert self._task is not None
        putting = asyncio.create_task(self._planned.put(data))
        try:
            await asyncio.wait({putting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not putting.done():
                putting.cancel()
        if self._task.done():
            await self._task
            raise ResponseFinished

    async def finish(self) -> None:
        """Wait until the fault has finished."""
        if self._task is not None:
            await self._task

    def stop(self) -> None:
        """Cancel the fault."""
        if self._task is not None:
            self._task.cancel()
