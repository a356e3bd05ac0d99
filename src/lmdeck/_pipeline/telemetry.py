"""A handler that publishes events about requests on the client's event bus."""

from __future__ import annotations

from collections.abc import Callable

from lmdeck._event_bus import EventBus
from lmdeck._pipeline.calls import Call, Handler, R, ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck.errors import LMStudioError


class Telemetry:
    """A handler that publishes start, chunks and end of each request, if there are listeners."""

    def __init__(self, inner: Handler, bus: EventBus, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._bus = bus
        self._clock = clock

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            LMStudioError: What the next handler raises.
        """
        return self._publish_call(call) if self._bus.listeners else self._inner(call)

    def _publish_call(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        from lmdeck._pipeline.event_publisher import EventPublisher  # imported late: few clients have listeners

        publisher = EventPublisher(call, self._bus, self._clock)
        publisher.on_started(call.request)
        try:
            stream = yield from self._inner(call)
        except LMStudioError as error:
            publisher.on_failed(error)
            raise
        except BaseException:
            publisher.on_closed()
            raise
        publisher.follow(stream)
        return stream
