"""The events of `lmdeck.events` as Django signals, one per event type.

    from django.dispatch import receiver
    from lmdeck.contrib.django import signals

    @receiver(signals.request_retried)
    def note(sender, event, **kwargs): ...

`sender` is the class of the client, `event` the event. Receivers may be async. Django logs a receiver that raises, and the
request continues: signals are sent with `send_robust` and `asend_robust`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from lmdeck._client.clients import AsyncLMStudio, LMStudio
from lmdeck.events import EVENTS, Event

SIGNALS: dict[type[Event], Signal] = {event: Signal() for event in EVENTS}
_BY_NAME = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event.__name__).lower(): signal for event, signal in SIGNALS.items()}


def __getattr__(name: str) -> Signal:
    """Return the signal of an event by its name in snake case.

    For example, `request_retried` is the signal of `RequestRetried`.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *_BY_NAME])


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
    """Return a callback that returns a coroutine.

    The client runs it as a task beside the answer.
    """

    def send(event: object) -> Any:  # a coroutine if there are receivers
        return signal.asend_robust(sender=AsyncLMStudio, event=event) if signal.receivers else None

    return send
