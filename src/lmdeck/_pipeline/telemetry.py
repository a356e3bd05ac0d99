"""A handler that publishes events about requests on the client's event bus."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from lmdeck._event_bus import EventBus
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.exchange import Call, Handler, R, ResponseStream, StreamObserver
from lmdeck.errors import LMStudioError
from lmdeck.events import (
    Chunk,
    ContentReceived,
    ModelLoadProgress,
    ReasoningReceived,
    RequestFailed,
    RequestFinished,
    RequestStarted,
    StreamEnded,
    StreamStarted,
    ToolCallFinished,
    ToolCallStarted,
)
from lmdeck.native_events import ModelLoadProgressEvent

_PER_CHUNK = (ContentReceived, ReasoningReceived, ToolCallStarted, ToolCallFinished, ModelLoadProgress)


class Telemetry:
    """Publishes start, chunks and end of each request; without listeners it costs nothing."""

    def __init__(self, inner: Handler, bus: EventBus) -> None:
        self._inner = inner
        self._bus = bus

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            LMStudioError: What the next handler raises.
        """
        return self._publish_call(call) if self._bus.has_listeners else self._inner(call)

    def _publish_call(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        bus = self._bus
        bus.emit(RequestStarted(request_id=call.request_id, method=call.request.method, url=call.request.url))
        try:
            stream = yield from self._inner(call)
        except LMStudioError as error:
            bus.emit(RequestFailed(request_id=call.request_id, error=error))
            raise
        stream.observe(_EventPublisher(stream, bus))
        return stream


class _EventPublisher(StreamObserver):
    """Publishes the events of one response."""

    def __init__(self, stream: ResponseStream[Any], bus: EventBus) -> None:
        self._stream = stream
        self._bus = bus
        self._has_started = False

    def on_chunks(self, chunks: list[Chunk]) -> None:
        """Publish the first output, and each chunk if there are listeners."""
        if not self._has_started:
            first = self._stream.measured().time_to_first_token
            if first is not None:
                self._has_started = True
                self._publish(StreamStarted, seconds=first)
        if self._bus.has_listeners_for(*_PER_CHUNK):
            for chunk in chunks:
                self._publish_chunk(chunk)

    def on_finished(self) -> None:
        """Publish the end of the stream and of the request."""
        stream = self._stream
        seconds = stream.measured().total_time
        if stream.chunk_count:
            self._publish(StreamEnded, chunks=stream.chunk_count, seconds=seconds)
        self._publish(RequestFinished, status=stream.response.status, attempts=stream.attempts, seconds=seconds)

    def on_failed(self, error: LMStudioError) -> None:
        """Publish the failure of an answer that had begun."""
        self._publish(RequestFailed, error=error)

    def _publish(self, kind: type[Struct], **fields: object) -> None:
        if self._bus.has_listeners_for(kind):
            self._bus.emit(kind(request_id=self._stream.call.request_id, **fields))

    def _publish_chunk(self, chunk: Chunk) -> None:
        if chunk.content:
            self._publish(ContentReceived, text=chunk.content)
        if chunk.reasoning:
            self._publish(ReasoningReceived, text=chunk.reasoning)
        delta = chunk.tool_call_delta
        if delta is not None and delta.name:
            self._publish(ToolCallStarted, index=delta.index, id=delta.id, name=delta.name)
        if chunk.tool_call is not None:
            self._publish(ToolCallFinished, call=chunk.tool_call)
        if isinstance(chunk.event, ModelLoadProgressEvent):
            self._bus.emit(ModelLoadProgress(chunk.event.model_instance_id, chunk.event.progress))
