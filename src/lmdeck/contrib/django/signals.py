"""Everything that happens, as Django signals: one for each type of event in `lmdeck.events`.

    from django.dispatch import receiver
    from lmdeck.contrib.django import signals

    @receiver(signals.request_retried)
    def note(sender, event, **kwargs): ...

`sender` is the class of the client, `event` the event. Receivers may be async. One that raises is logged by Django and breaks
nothing: signals are sent with `send_robust` and `asend_robust`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from lmdeck import events
from lmdeck._client.clients import AsyncLMStudio, LMStudio

__all__ = [
    "SIGNALS",
    "attach",
    "content_received",
    "model_load_progress",
    "reasoning_received",
    "request_failed",
    "request_finished",
    "request_queued",
    "request_retried",
    "request_started",
    "round_finished",
    "stream_ended",
    "stream_started",
    "tool_call_finished",
    "tool_call_invalid",
    "tool_call_started",
    "tool_done",
    "tool_errored",
    "tool_running",
    "tool_server_lost",
]

request_queued = Signal()
request_started = Signal()
request_retried = Signal()
request_finished = Signal()
request_failed = Signal()
stream_started = Signal()
stream_ended = Signal()
content_received = Signal()
reasoning_received = Signal()
tool_call_started = Signal()
tool_call_finished = Signal()
tool_call_invalid = Signal()
tool_running = Signal()
tool_done = Signal()
tool_errored = Signal()
tool_server_lost = Signal()
round_finished = Signal()
model_load_progress = Signal()

SIGNALS: dict[type, Signal] = {
    events.RequestQueued: request_queued,
    events.RequestStarted: request_started,
    events.RequestRetried: request_retried,
    events.RequestFinished: request_finished,
    events.RequestFailed: request_failed,
    events.StreamStarted: stream_started,
    events.StreamEnded: stream_ended,
    events.ContentReceived: content_received,
    events.ReasoningReceived: reasoning_received,
    events.ToolCallStarted: tool_call_started,
    events.ToolCallFinished: tool_call_finished,
    events.ToolCallInvalid: tool_call_invalid,
    events.ToolRunning: tool_running,
    events.ToolDone: tool_done,
    events.ToolErrored: tool_errored,
    events.ToolServerLost: tool_server_lost,
    events.RoundFinished: round_finished,
    events.ModelLoadProgress: model_load_progress,
}


def attach(client: LMStudio | AsyncLMStudio) -> None:
    """Send a client's events as signals."""
    forward = _forward_async if isinstance(client, AsyncLMStudio) else _forward
    for kind, signal in SIGNALS.items():
        client.on(kind, forward(signal))


def _forward(signal: Signal) -> Callable[[object], object]:
    def send(event: object) -> None:
        if signal.receivers:
            signal.send_robust(sender=LMStudio, event=event)

    return send


def _forward_async(signal: Signal) -> Callable[[object], object]:
    """Give the sending to the client as a coroutine: it runs beside the answer, whose loop it must not block."""

    def send(event: object) -> Any:  # noqa: ANN401  # a coroutine, where anybody listens
        return signal.asend_robust(sender=AsyncLMStudio, event=event) if signal.receivers else None

    return send
