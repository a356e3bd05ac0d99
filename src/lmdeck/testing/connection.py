"""The last step to the socket: bytes cut as networks cut them, or done to as a fault wants."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Message, Receive, Send

Headers = list[tuple[bytes, bytes]]
_CUT_CHANCE = 0.4


class OverError(Exception):
    """The answer has ended early: nothing more is wanted of the application."""


class Wire:
    """The connection of one answer.

    `transport` is None where the fake runs without a socket: an abrupt end is a `ConnectionResetError` there.
    """

    def __init__(
        self,
        path: str,
        receive: Receive,
        send: Send,
        rng: random.Random,
        transport: asyncio.Transport | None,
        *,
        cuts: bool,
    ) -> None:
        self.path = path
        self.rng = rng
        self._receive = receive
        self._send = send
        self._transport = transport
        self._cuts = cuts

    async def head(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes) -> None:
        """Send some bytes, now and then cut in two at any place, also within a letter or a marker."""
        if self._cuts and len(data) > 1 and self.rng.random() < _CUT_CHANCE:
            at = self.rng.randrange(1, len(data))
            await self.exactly(data[:at])
            data = data[at:]
        await self.exactly(data)

    async def exactly(self, data: bytes) -> None:
        """Send bytes in one piece."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the answer in good order."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Send a whole answer of one's own."""
        given = [(b"content-type", b"application/json; charset=utf-8")] if headers is None else headers
        await self.head(status, [*given, (b"content-length", str(len(body)).encode())])
        await self.exactly(body)
        await self.end()

    def raw(self, data: bytes) -> None:
        """Write bytes past HTTP."""
        self._socket().write(data)

    async def close(self) -> None:
        """Close the connection once what was sent is out, though the answer is not whole."""
        self._socket().close()
        await self.gone()

    async def reset(self) -> None:
        """Break the connection off: the client gets a reset instead of an end."""
        transport = self._socket()
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await self.gone()

    async def wait(self, seconds: float) -> None:
        """Wait, but no longer than the client does.

        Raises:
            OverError: The client has gone away.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gone(), seconds)
            raise OverError

    async def gone(self) -> None:
        """Wait until the client has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            """The rest of a request that nobody reads."""

    def _socket(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionResetError("the fake broke the connection off")
        return self._transport


class Parts:
    """The answer as it would have been: its head, then its bytes as the application sends them."""

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)

    @property
    def is_stream(self) -> bool:
        """Tell whether it is a stream of events."""
        return (b"content-type", b"text/event-stream") in [(name, value.split(b";")[0]) for name, value in self.headers]

    def without_length(self) -> Headers:
        """Give the headers for a body of another length."""
        return [(name, value) for name, value in self.headers if name.lower() != b"content-length"]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the bytes, one piece for each event."""
        while (data := await self._queue.get()) is not None:
            if data:
                yield data

    async def all(self) -> bytes:
        """Give all of the bytes."""
        return b"".join([data async for data in self])

    async def put(self, data: bytes | None) -> None:
        """Take the next bytes from the application; None is their end."""
        await self._queue.put(data)


class Outgoing:
    """What the application sends: passed on with cuts, or given to the fault that was chosen for this answer."""

    def __init__(self, wire: Wire, fault: Callable[[], Callable[[Wire, Parts], Any] | None]) -> None:
        self._wire = wire
        self._fault = fault
        self._parts: Parts | None = None
        self._doing: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Take one message of the application.

        Raises:
            OverError: The fault has done its work; the application need not go on.
        """
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._more(message.get("body", b""), is_last=not message.get("more_body", False))

    async def _start(self, message: Message) -> None:
        fault = self._fault()
        headers = list(message.get("headers", []))
        if fault is None:
            await self._wire.head(message["status"], headers)
            return
        self._parts = Parts(message["status"], headers)
        self._doing = asyncio.create_task(fault(self._wire, self._parts))

    async def _more(self, data: bytes, *, is_last: bool) -> None:
        if self._parts is None or self._doing is None:
            if data:
                await self._wire.body(data)
            if is_last:
                await self._wire.end()
            return
        await self._put(data)
        if is_last:
            await self._put(None)

    async def _put(self, data: bytes | None) -> None:
        assert self._parts is not None  # noqa: S101  # `_more` looked
        assert self._doing is not None  # noqa: S101
        putting = asyncio.create_task(self._parts.put(data))
        try:
            await asyncio.wait({putting, self._doing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not putting.done():
                putting.cancel()
        if self._doing.done():
            await self._doing
            raise OverError

    async def finish(self) -> None:
        """Wait for the fault to do the rest."""
        if self._doing is not None:
            await self._doing

    def stop(self) -> None:
        """Give the fault up."""
        if self._doing is not None:
            self._doing.cancel()
