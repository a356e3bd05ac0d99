"""Calls between two of the gateway's processes over a socket.

A call may have an answer or none, and is cancelled together with its caller. Both ends are processes of one gateway, so they
trust each other's data.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from lmdeck.errors import LMStudioError, ServerError
from lmdeck.gateway.admission import AdmissionRefused
from lmdeck.gateway.errors import SHUTTING_DOWN, internal_error

__all__ = ["Link", "LinkLostError"]

LENGTH_BYTES = 4
_CALL, _NOTIFY, _ANSWER, _ERROR, _CANCEL = range(5)


class LinkLostError(ServerError):
    """The other process has ended."""

    def __init__(self) -> None:
        super().__init__(**SHUTTING_DOWN)


class Link(asyncio.Protocol):
    """One end of the connection.

    `functions` are those that the other end may call; `on_lost` is called when it has ended.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]], on_lost: Callable[[], object]) -> None:
        self._functions = functions
        self._on_lost = on_lost
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._is_closed = False

    @classmethod
    async def open(
        cls, end: socket.socket, functions: Mapping[str, Callable[..., Any]], on_lost: Callable[[], object]
    ) -> Link:
        """Return a link over one end of a socket pair."""
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        _, link = await loop.connect_accepted_socket(lambda: cls(functions, on_lost), end)
        return link

    async def call(self, name: str, *arguments: object) -> Any:
        """Call a function of the other end and return its result.

        Raises:
            LMStudioError: The function has raised it, or the other process has ended.
        """
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(_CALL, number, name, arguments)
            return await future
        except asyncio.CancelledError:
            self.notify_if_open(_CANCEL, number)
            raise
        finally:
            del self._waiting[number]

    def notify(self, name: str, *arguments: object) -> None:
        """Call a function of the other end that returns nothing."""
        self.notify_if_open(_NOTIFY, name, arguments)

    def notify_if_open(self, *message: object) -> None:
        """Send a message, unless the other process has ended."""
        with suppress(LinkLostError):
            self._send(*message)

    def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()

    def _send(self, *message: object) -> None:
        if self._transport is None or self._transport.is_closing():
            raise LinkLostError
        data = pickle.dumps(message)
        self._transport.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)

    # --- what arrives ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the connection is open."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that wait for the other process, and cancel those that run for it."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkLostError())
        for task in self._serving.values():
            task.cancel()
        if not self._is_closed:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        """Read the messages that are complete."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            end = start + LENGTH_BYTES + int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "big")
            if len(self._buffer) < end:
                break
            message = pickle.loads(self._buffer[start + LENGTH_BYTES : end])  # noqa: S301  # from a process of this gateway
            start = end
            self._handle(*message)
        del self._buffer[:start]

    def _handle(self, kind: int, *message: Any) -> None:
        if kind == _NOTIFY:
            name, arguments = message
            self._functions[name](*arguments)
        elif kind == _CALL:
            number, name, arguments = message
            self._serving[number] = asyncio.get_running_loop().create_task(self._serve(number, name, arguments))
        elif kind == _CANCEL:
            if (task := self._serving.get(message[0])) is not None:
                task.cancel()
        elif (future := self._waiting.get(message[0])) is not None and not future.done():
            if kind == _ANSWER:
                future.set_result(message[1])
            else:
                future.set_exception(message[1])

    async def _serve(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            result = await self._functions[name](*arguments)
        except (LMStudioError, AdmissionRefused) as error:
            self.notify_if_open(_ERROR, number, error)
        except Exception as error:
            self.notify_if_open(_ERROR, number, internal_error(error))
            raise
        else:
            self.notify_if_open(_ANSWER, number, result)
        finally:
            del self._serving[number]
