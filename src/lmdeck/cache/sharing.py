"""One response that several streams read while it arrives: each piece is received once.

The first reader that needs the next piece receives it, and the others wait for that. So no reader depends on the
stream that sent the request: if it is closed, the others continue to read the same connection, which the last reader
closes.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast

from lmdeck._transport.interruption import current_interruption
from lmdeck.errors import ConnectionLostError, TransportError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from lmdeck._transport import AsyncResponse, Response, SyncResponse


class SharedBody:
    """The pieces of a response that have arrived, and the connection for the rest.

    `is_over` marks an answer that is complete, or that reported its own failure. `on_left` is called when the
    connection ends before that: it broke, or has no reader left.
    """

    def __init__(self, response: Response, first: bytes, *, is_over: bool, on_left: Callable[[], object]) -> None:
        self.response = response
        self.pieces = [first] if first else []
        self.is_over = is_over
        self.failure: TransportError | None = None
        self.is_closed = False
        self._on_left = on_left
        self._readers = 0

    @classmethod
    def of(cls, response: Response, first: bytes, *, is_over: bool, on_left: Callable[[], object]) -> SharedBody:
        """Return the body of a sync or an async response."""
        kind = _AsyncBody if iscoroutinefunction(type(response).read) else _SyncBody  # type: ignore[attr-defined]  # both have it
        return kind(response, first, is_over=is_over, on_left=on_left)

    def join(self, at: int = 0) -> SharedResponse | None:
        """Return a response that begins with piece `at`.

        None if the connection was closed before the end.
        """
        raise NotImplementedError

    def leave(self, reader: SharedResponse) -> None:
        """Stop reading; the last reader closes the connection."""
        raise NotImplementedError

    def _leave(self, reader: SharedResponse) -> bool:
        """Remove a reader; return whether the connection must be closed."""
        if reader.is_closed:
            return False
        reader.is_closed = True
        self._readers -= 1
        is_last = not self.is_closed and (self.is_over or self._readers == 0)
        self.is_closed = self.is_closed or is_last
        return is_last

    def _close(self) -> None:
        self.response.close()
        if not self.is_over:
            self._on_left()

    def _available(self, reader: SharedResponse) -> bytes | None:
        """Return what has arrived for a reader; None if it must wait or receive.

        Raises:
            TransportError: The connection broke, or this reader was closed.
        """
        if reader.is_closed:
            raise ConnectionLostError("The answer was closed before its end was read.")
        if reader.position < len(self.pieces):
            data = b"".join(self.pieces[reader.position :])
            reader.position = len(self.pieces)
            return data
        if self.failure is not None:
            raise copy.copy(self.failure)
        return b"" if self.is_over else None

    def _note(self, data: bytes) -> None:
        if data:
            self.pieces.append(data)
        else:
            self.is_over = True

    def _note_error(self, error: BaseException) -> None:
        if isinstance(error, TransportError):
            self.failure = error
        else:
            self.failure = ConnectionLostError(f"Reading the answer was interrupted by {type(error).__name__}.")
        self._on_left()


class SharedResponse:
    """A reader's view of a shared response."""

    has_ended = False  # unknown until `read` returns the end

    def __init__(self, body: SharedBody, position: int) -> None:
        self.position = position
        self.is_closed = False
        self._body = body
        self.status = body.response.status
        self.headers: Mapping[str, str] = body.response.headers
        self.undecoded = body.response.undecoded

    def close(self) -> None:
        """Stop reading; the connection is closed if there is no other reader."""
        self._body.leave(self)

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or no longer allow them."""
        self._body.response.be_patient(wanted=wanted)


class _SyncResponse(SharedResponse):
    _body: _SyncBody

    def read(self) -> bytes:
        """Return the bytes that have arrived; `b""` at the end of the body."""
        return self._body.read(self)

    def drain(self) -> None:
        """Release the connection after a finished answer."""
        self._body.drain()
        self.close()


class _AsyncResponse(SharedResponse):
    _body: _AsyncBody

    async def read(self) -> bytes:
        """Return the bytes that have arrived; `b""` at the end of the body."""
        return await self._body.read(self)

    async def drain(self) -> None:
        """Release the connection after a finished answer."""
        await self._body.drain()
        self.close()


class _SyncBody(SharedBody):
    """A body that threads read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # the base's
        super().__init__(*arguments, **options)
        self._changed = threading.Condition()
        self._is_reading = False
        self._is_drained = False

    def join(self, at: int = 0) -> SharedResponse | None:
        with self._changed:
            if self.is_closed and not self.is_over:
                return None
            self._readers += 1
            return _SyncResponse(self, at)

    def leave(self, reader: SharedResponse) -> None:
        with self._changed:
            is_last = self._leave(reader)
            self._changed.notify_all()
        if is_last:
            self._close()

    def read(self, reader: SharedResponse) -> bytes:
        """Return the next bytes for a reader; receive them unless another thread does."""
        with self._changed:
            data = self._wait(reader)
            if data is not None:
                return data
            self._is_reading = True
        try:
            piece = cast("SyncResponse", self.response).read()
        except BaseException as error:  # an interrupted read may have lost bytes
            with self._changed:
                self._note_error(error)
                self._end_reading()
            raise
        with self._changed:
            self._note(piece)
            self._end_reading()
            return self._available(reader) or b""

    def drain(self) -> None:
        """Read the end of the framing, once."""
        with self._changed:
            if self._is_drained or self.is_closed:
                return
            self._is_drained = True
        cast("SyncResponse", self.response).drain()

    def _wait(self, reader: SharedResponse) -> bytes | None:
        """Wait while another thread receives.

        Return what has arrived, or None if it is this thread's turn to receive.
        """
        interruption = current_interruption.get()
        while True:
            data = self._available(reader)
            if data is not None or not self._is_reading:
                return data
            if interruption is not None:
                if interruption.is_set:
                    raise InterruptedError("another thread closed the stream")
                interruption.watch(self._notify_later)
            self._changed.wait()

    def _notify_later(self) -> None:
        """Wake the waiting threads from another thread, since the caller may hold the lock."""
        threading.Thread(target=self._notify, daemon=True).start()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _end_reading(self) -> None:
        self._is_reading = False
        self._changed.notify_all()


class _AsyncBody(SharedBody):
    """A body that the tasks of one event loop read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # the base's
        super().__init__(*arguments, **options)
        self._waiting: list[asyncio.Future[None]] = []
        self._is_reading = False
        self._is_drained = False

    def join(self, at: int = 0) -> SharedResponse | None:
        if self.is_closed and not self.is_over:
            return None
        self._readers += 1
        return _AsyncResponse(self, at)

    def leave(self, reader: SharedResponse) -> None:
        is_last = self._leave(reader)
        self._wake()
        if is_last:
            self._close()

    async def read(self, reader: SharedResponse) -> bytes:
        """Return the next bytes for a reader; receive them unless another task does."""
        import asyncio  # imported late: the sync client does not need it

        while (data := self._available(reader)) is None and self._is_reading:
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(change)
            await change
        if data is not None:
            return data
        self._is_reading = True
        try:
            self._note(await cast("AsyncResponse", self.response).read())
        except asyncio.CancelledError:  # loses no bytes: another task reads on
            raise
        except BaseException as error:
            self._note_error(error)
            raise
        finally:
            self._is_reading = False
            self._wake()
        return self._available(reader) or b""

    async def drain(self) -> None:
        """Read the end of the framing, once."""
        if not (self._is_drained or self.is_closed):
            self._is_drained = True
            await cast("AsyncResponse", self.response).drain()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)
