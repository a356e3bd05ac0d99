"""Responses of the server: whole or streamed, their timing, and the error frame of a stream."""

from __future__ import annotations

import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._encoders.backend_events import Finished, ModelOutput
from lmdeck._encoders.common import named_event, usage
from lmdeck._incoming.disconnect import ClientGoneError, run_until_disconnect
from lmdeck._incoming.messages import Response, encoded
from lmdeck.server.backend import BackendError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.types import Receive, Scope, Send

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck.server.backend import Backend


_EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
_JSON = {"content-type": "application/json; charset=utf-8"}


class EventStream(Response):
    """A stream of server-sent events from a generator of frames.

    The generator is closed when the client disconnects.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        super().__init__(b"", 200, _EVENTS)
        self.frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames as they are generated."""
        await send({"type": "http.response.start", "status": self.status, "headers": encoded(self.headers)})
        with suppress(ClientGoneError):
            await run_until_disconnect(receive, self._send_frames(send))

    async def _send_frames(self, send: Send) -> None:
        async with aclosing(self.frames) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def json_response(body: object, status: int = 200) -> Response:
    """Return a response with a JSON body."""
    return Response(msgspec.json.encode(body), status, _JSON)


def _error_event(error: BackendError) -> bytes:
    """Return the frame by which LM Studio reports an error in a stream of OpenAI's chunks."""
    return named_event("error", {"error": {"message": error.message}, "message": error.message})


def internal_failure(error: Exception) -> str:
    """Return a safe message for an unexpected exception: its type, without its text."""
    return f"The server failed while answering ({type(error).__name__}). See its log for the details."


async def with_error_frame(
    frames: AsyncGenerator[bytes, None], write_error: Callable[[BackendError], bytes] | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield frames; turn an exception into a last frame, which `write_error` writes."""
    write = write_error or _error_event
    async with aclosing(frames):
        try:
            async for frame in frames:
                yield frame
        except BackendError as error:
            yield write(error)
        except Exception as error:
            yield write(BackendError(internal_failure(error), status=500))
            raise


class ResponseTimer:
    """A timer of one response.

    It passes events through and records when the first and the last one arrived.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first_output: float | None = None
        self._ended = self._started
        self.end: Finished | None = None

    async def events(self, source: AsyncGenerator[BackendEvent, None]) -> AsyncGenerator[BackendEvent, None]:
        """Yield the events up to `Finished`, which is stored in `end`.

        Raises:
            BackendError: The events ended without `Finished`.
        """
        async with aclosing(source):
            async for event in source:
                if self._first_output is None and isinstance(event, ModelOutput):
                    self._first_output = time.perf_counter()
                if isinstance(event, Finished):
                    self.end = event
                    self._ended = time.perf_counter()
                    return
                yield event
        raise BackendError("The model stopped without finishing its answer. Send the request again.", status=500)

    @property
    def time_to_first_token(self) -> float:
        """Seconds from the request to the model's first output, or to the end if there was none."""
        return (self._ended if self._first_output is None else self._first_output) - self._started

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, measured from the first token."""
        seconds = self._ended - self._started - self.time_to_first_token
        return self.finished().completion_tokens / seconds if seconds > 0 else 0.0

    def finished(self) -> Finished:
        """Return the end of an answer, once all events have been read."""
        if self.end is None:
            raise RuntimeError("the events have not been read to their end")
        return self.end

    def metadata(self, backend: Backend, model: str) -> dict[str, Any]:
        """Return the fields that LM Studio adds to a whole answer.

        They are `usage`, `stats` (seconds), `model_info` and `runtime`.
        """
        end = self.finished()
        described = next(entry for entry in backend.models() if entry.key == model)
        return {
            "usage": usage(end),
            "stats": {
                "tokens_per_second": self.tokens_per_second,
                "time_to_first_token": round(self.time_to_first_token, 3),
                "generation_time": round(self._ended - self._started - self.time_to_first_token, 3),
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
