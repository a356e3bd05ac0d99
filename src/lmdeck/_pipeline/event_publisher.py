"""The events of one request, published on the client's event bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from lmdeck._chunks import Chunk
from lmdeck._event_bus import EventBus
from lmdeck._pipeline.calls import Call, ResponseStream, StreamObserver
from lmdeck._transport import WireRequest
from lmdeck.errors import LMStudioError
from lmdeck.events import (
    ContentReceived,
    ModelLoadProgress,
    ReasoningReceived,
    RequestAbandoned,
    RequestFailed,
    RequestFinished,
    RequestStarted,
    StreamEnded,
    StreamStarted,
    ToolCallFinished,
    ToolCallStarted,
)
from lmdeck.messages import Reply
from lmdeck.stats import Usage

if TYPE_CHECKING:
    from lmdeck._responses.json_reader import Reader
    from lmdeck.native_events import StreamEvent

_PER_CHUNK = (StreamStarted, ContentReceived, ReasoningReceived, ToolCallStarted, ToolCallFinished, ModelLoadProgress)


class EventPublisher(StreamObserver):
    """A publisher of the events of one request; events without listeners are not created."""

    def __init__(self, call: Call[Any], bus: EventBus, clock: Callable[[], float]) -> None:
        self._request_id = call.request_id
        self._model = call.model
        self._endpoint = urlsplit(call.request.url).path
        self._bus = bus
        self._clock = clock
        self._started = clock()
        self._has_first_chunk = False
        self._is_over = False
        self._stream: ResponseStream[Any] | None = None

    def on_started(self, request: WireRequest) -> None:
        """Publish the start of the request."""
        if RequestStarted in self._bus.listeners:
            event = RequestStarted(
                request_id=self._request_id,
                method=request.method,
                url=request.url,
                endpoint=self._endpoint,
                model=self._model,
                body=request.body,
            )
            self._bus.emit(event)

    def follow(self, stream: ResponseStream[Any]) -> None:
        """Publish the events of the response."""
        self._stream = stream
        stream.observe(self)
        if not self._is_over:
            stream.when_closed(self.on_closed)

    def on_chunks(self, chunks: list[Chunk]) -> None:
        """Publish the first output and each chunk."""
        if self._bus.listeners.keys().isdisjoint(_PER_CHUNK):
            return
        if not self._has_first_chunk and self._stream is not None:
            first = self._stream.measured().time_to_first_token
            if first is not None:
                self._has_first_chunk = True
                self._publish(StreamStarted, seconds=first)
        for chunk in chunks:
            self._publish_chunk(chunk)

    def on_finished(self) -> None:
        """Publish the end of the stream and of the request."""
        stream, listeners = self._stream, self._bus.listeners
        self._is_over = True
        if stream is None:
            return
        if StreamEnded in listeners and stream.chunk_count:
            self._publish(StreamEnded, chunks=stream.chunk_count, seconds=stream.measured().total_time)
        if RequestFinished in listeners:
            self._bus.emit(self._finished(stream))

    def on_failed(self, error: LMStudioError) -> None:
        """Publish the failure of the request."""
        self._is_over = True
        self._publish_end(RequestFailed, error=error)

    def on_closed(self) -> None:
        """Publish that the answer was abandoned, unless it is complete or has failed."""
        is_failing = self._stream is not None and self._stream.failure is not None  # `on_failed` follows
        if not (self._is_over or is_failing):
            self._is_over = True
            self._publish_end(RequestAbandoned, chunks=0 if self._stream is None else self._stream.chunk_count)

    def _finished(self, stream: ResponseStream[Any]) -> RequestFinished:
        reply = stream.reader.partial()
        measured = stream.measured()
        return RequestFinished(
            request_id=self._request_id,
            status=stream.response.status,
            attempts=stream.attempts,
            seconds=measured.total_time or 0.0,
            endpoint=self._endpoint,
            model=(reply.model if reply is not None else "") or self._model,
            usage=_usage_in(stream.reader) if reply is None else reply.usage,
            cache=stream.cache,
            queue_time=stream.queue_time,
            time_to_first_token=measured.time_to_first_token,
            chunks=stream.chunk_count,
            is_streamed=isinstance(reply, Reply) and isinstance(reply.raw, list),
            reply=reply,
        )

    def _publish(self, kind: type[Struct], **fields: object) -> None:
        if kind in self._bus.listeners:
            self._bus.emit(kind(request_id=self._request_id, **fields))

    def _publish_end(self, kind: type[Struct], **fields: object) -> None:
        """Publish the end of a request that did not finish."""
        seconds = self._clock() - self._started
        self._publish(kind, endpoint=self._endpoint, model=self._model, seconds=seconds, **fields)

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
        if chunk.event is not None:
            self._publish_progress(chunk.event)

    def _publish_progress(self, event: StreamEvent) -> None:
        from lmdeck.native_events import ModelLoadProgressEvent  # imported late: few clients have listeners

        if isinstance(event, ModelLoadProgressEvent):
            self._bus.emit(ModelLoadProgress(event.model_instance_id, event.progress))


def _usage_in(reader: Reader) -> Usage | None:
    """Return the token counts of a response that is not a chat."""
    from lmdeck._responses.embeddings import read_usage  # imported late: few clients have listeners
    from lmdeck._responses.json_reader import JSONReader

    return read_usage(reader.value) if isinstance(reader, JSONReader) else None
