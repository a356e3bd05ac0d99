"""Joined writes: a system call costs more than the work for a whole event."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["JoinedWrites"]

JOINED_BYTES = 1 << 16


class JoinedWrites(asyncio.Transport):
    """A connection that sends everything written in one turn of the event loop at once.

    A system call costs more than the work for a whole event, and an HTTP server writes the head and the body separately.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send the data at the end of this turn, or at once if much of it waits."""
        if not self._size:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= JOINED_BYTES:
            self.flush()

    def flush(self, keep: int = 0) -> None:
        """Send the waiting bytes except the last `keep`, so that later writes are sent separately.

        Bytes for a closed connection are discarded.
        """
        if self._size > keep:
            data = b"".join(self._waiting)
            end = len(data) - keep
            self._waiting, self._size = [data[end:]] if keep else [], keep
            if not self._transport.is_closing():
                self._transport.write(data[:end])

    def write_eof(self) -> None:
        """Close the sending side after everything has been sent."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection after everything has been sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self.flush()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether the connection is closing or closed."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a fact about the connection."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop reading."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that are not sent yet."""
        return self._size + self._transport.get_write_buffer_size()
