"""Getting an answer to the client, in one piece or as events, and stopping the work as soon as nobody waits for it.

Starlette's own `StreamingResponse` notices a client that went away only when it writes. A request that waits in a queue or for
its prompt to be processed writes nothing, so here the connection is watched all along, for both kinds of answer.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.responses import Response

from lmdeck.server.backend import BackendError
from lmdeck.server.encoders.common import named_event, usage
from lmdeck.server.events import Finished, Said

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from starlette.types import Receive, Scope, Send

    from lmdeck.server.backend import Backend
    from lmdeck.server.events import Event

__all__ = [
    "ClientGoneError",
    "EventStream",
    "Meter",
    "attended",
    "guarded",
    "internal_failure",
    "json_response",
]

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed its connection before its answer was whole."""


async def attended(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work while the client is there, and cancel it the moment it is not.

    Raises:
        ClientGoneError: The client went away; the work has been cancelled and has ended.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        """A message of the body that came late: nothing to do with it."""


class EventStream(Response):
    """Server-sent events from a generator of frames, which is closed when the client goes away."""

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        self.frames = frames
        self.background = None
        self.status_code = 200
        self.init_headers({"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the frames as they come."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with suppress(ClientGoneError):
            await attended(receive, self._send_frames(send))

    async def _send_frames(self, send: Send) -> None:
        async with aclosing(self.frames) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def json_response(body: object, status: int = 200) -> Response:
    """Answer with a JSON body."""
    return Response(msgspec.json.encode(body), status, media_type="application/json; charset=utf-8")


def _error_event(error: BackendError) -> bytes:
    """Write the frame by which LM Studio reports a failure in a stream of OpenAI's chunks."""
    return named_event("error", {"error": {"message": error.message}, "message": error.message})


def internal_failure(error: Exception) -> str:
    """Tell a client of a failure that nobody foresaw, without what its message may give away."""
    return f"The server failed while answering ({type(error).__name__}). Its log has the details."


async def guarded(
    frames: AsyncGenerator[bytes, None], failed: Callable[[BackendError], bytes] | None = None
) -> AsyncGenerator[bytes, None]:
    """Pass frames on, and turn a failure into the last of them, which `failed` writes."""
    write = failed or _error_event
    async with aclosing(frames):
        try:
            async for frame in frames:
                yield frame
        except BackendError as error:
            yield write(error)
        except Exception as error:
            yield write(BackendError(internal_failure(error), status=500))
            raise


class Meter:
    """The clock of one answer: passes events through and keeps when the first one came and how it ended."""

    def __init__(self) -> None:
        self._asked = time.perf_counter()
        self._first: float | None = None
        self._ended = self._asked
        self.end: Finished | None = None

    async def events(self, source: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Pass the events on up to `Finished`, which is kept in `end`.

        Raises:
            BackendError: They stopped without it.
        """
        async with aclosing(source):
            async for event in source:
                if self._first is None and isinstance(event, Said):
                    self._first = time.perf_counter()
                if isinstance(event, Finished):
                    self.end = event
                    self._ended = time.perf_counter()
                    return
                yield event
        raise BackendError("The model stopped without finishing its answer. Send the request again.", status=500)

    @property
    def time_to_first_token(self) -> float:
        """The seconds from the request to the first thing the model said; until the end, if it said nothing."""
        return (self._ended if self._first is None else self._first) - self._asked

    @property
    def tokens_per_second(self) -> float:
        """The speed of the generation, measured from the first token."""
        seconds = self._ended - self._asked - self.time_to_first_token
        return self.finished().completion_tokens / seconds if seconds > 0 else 0.0

    def finished(self) -> Finished:
        """Give the end of an answer whose events have all been read."""
        if self.end is None:
            raise RuntimeError("the events have not been read to their end")
        return self.end

    def accounts(self, backend: Backend, model: str) -> dict[str, Any]:
        """Write what LM Studio adds to an answer in one piece: `usage`, `stats` (seconds), `model_info` and `runtime`."""
        end = self.finished()
        described = next(entry for entry in backend.models() if entry.key == model)
        return {
            "usage": usage(end),
            "stats": {
                "tokens_per_second": self.tokens_per_second,
                "time_to_first_token": round(self.time_to_first_token, 3),
                "generation_time": round(self._ended - self._asked - self.time_to_first_token, 3),
                "stop_reason": end.stop_reason,
            },
            "model_info": {
                "arch": described.architecture,
                "quant": described.quantization,
                "format": described.format,
                "context_length": described.loaded_context_length or described.max_context_length,
            },
            "runtime": backend.runtime,
            "system_fingerprint": model,
        }
