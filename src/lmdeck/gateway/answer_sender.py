"""The delivery of one answer to its client.

A waiting client gets heartbeats; one that does not read is disconnected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lmdeck._encoders.event_stream import encode_comment
from lmdeck.errors import LMStudioError
from lmdeck.gateway.http import raw_headers
from lmdeck.server.scope_keys import ABORT, WRITE

if TYPE_CHECKING:
    from starlette.types import Scope, Send

__all__ = ["AnswerSender"]

_HEARTBEAT = encode_comment()
_EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}


class AnswerSender:
    """Sends an answer.

    `blocked_since` is the time since which the client has not read, or None.
    """

    def __init__(self, scope: Scope, send: Send, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._send = send
        self._clock = clock
        self._heart: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self.task: asyncio.Task[object] | None = None
        self.blocked_since: float | None = None
        self.chunks = 0  # of a stream: the events that were sent
        self.is_started = False
        self.is_ended = False
        self.stopped_by: LMStudioError | None = None

    def stop(self, error: LMStudioError) -> None:
        """End the request with an error."""
        if self.stopped_by is None and self.task is not None:
            self.stopped_by = error
            self.task.cancel()

    def abort(self) -> None:
        """Abort the connection if the server can; otherwise the answer just ends early."""
        self.is_ended = True
        cut = self._scope.get(ABORT)
        if cut is not None:
            cut()

    def start_heartbeats(self, seconds: float, headers: Mapping[str, str]) -> None:
        """Send a comment every `seconds` until the answer begins; the first one starts the response."""
        loop = asyncio.get_running_loop()

        def beat() -> None:
            if self._beat is None or self._beat.done():
                self._beat = loop.create_task(self._send_heartbeat(headers))
            self._heart = loop.call_later(seconds, beat)

        self._heart = loop.call_later(seconds, beat)

    async def _send_heartbeat(self, headers: Mapping[str, str]) -> None:
        if not self.is_started:
            self.is_started = True
            await self._pass(
                {"type": "http.response.start", "status": 200, "headers": raw_headers({**_EVENTS, **headers})}
            )
        await self._pass({"type": "http.response.body", "body": _HEARTBEAT, "more_body": True})

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of the answer, unless a heartbeat has already sent it."""
        await self.end_heartbeats()
        if not self.is_started:
            self.is_started = True
            await self._pass({"type": "http.response.start", "status": status, "headers": raw_headers(headers)})

    async def write(self, data: bytes) -> None:
        """Send a part of the body; wait while the client does not read."""
        self.chunks += data.count(b"data: ")
        await self._pass({"type": "http.response.body", "body": data, "more_body": True})

    @property
    def write_now(self) -> Callable[[bytes], bool] | None:
        """A function like `write` that does not wait, and returns whether the client keeps up.

        None if the server has none.
        """
        write: Callable[[bytes], bool] | None = self._scope.get(WRITE)
        if write is None:
            return None

        def write_now(data: bytes) -> bool:
            self.chunks += data.count(b"data: ")
            return write(data)

        return write_now

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self.is_ended = True
        await self._pass({"type": "http.response.body", "body": data, "more_body": False})

    async def end_heartbeats(self) -> None:
        """Stop sending comments."""
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None
        if self._beat is not None:
            beat, self._beat = self._beat, None
            await asyncio.gather(beat, return_exceptions=True)

    async def _pass(self, message: dict[str, object]) -> None:
        self.blocked_since = self._clock()
        await self._send(message)
        self.blocked_since = None
