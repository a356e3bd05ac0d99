"""Who listens to what: handlers by the type of event.

A handler that raises is logged and never breaks a chat. Events are told where they happen, in that thread or task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from inspect import iscoroutine, iscoroutinefunction
from typing import Any, Self, TypeVar, overload

from lmdeck.errors import ConfigurationError
from lmdeck.events import EVENTS

E = TypeVar("E")
Handler = Callable[[E], object]
_log = logging.getLogger("lmdeck.events")


class Subscription:
    """A handler that listens; `remove` ends that. As a context manager it listens for the block."""

    def __init__(self, bus: EventBus, kind: type, handler: Handler[Any], *, once: bool) -> None:
        self.kind = kind
        self.handler = handler
        self.once = once
        self._bus = bus

    def remove(self) -> None:
        """Listen no longer."""
        self._bus.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class EventBus:
    """The listeners of one client. Handlers may be async where there is a `run_later` to hand them to."""

    def __init__(self) -> None:
        self.run_later: Callable[[Coroutine[Any, Any, object]], object] | None = None
        self._listeners: dict[type, tuple[Subscription, ...]] = {}

    @overload
    def on(self, kind: type[E], handler: Handler[E], *, once: bool = False) -> Subscription: ...
    @overload
    def on(self, kind: type[E], *, once: bool = False) -> Callable[[Handler[E]], Handler[E]]: ...
    def on(
        self, kind: type[E], handler: Handler[E] | None = None, *, once: bool = False
    ) -> Subscription | Callable[[Handler[E]], Handler[E]]:
        """Call a handler for every event of a type, or only for the next one; without a handler it is a decorator.

        Raises:
            ConfigurationError: It is no type of event, or an async handler of a sync client.
        """
        if kind not in EVENTS:
            raise ConfigurationError(
                f"{getattr(kind, '__name__', kind)!r} is no type of event.",
                hint=f"Choose one of {', '.join(sorted(event.__name__ for event in EVENTS))}.",
            )
        if handler is not None:
            return self._add(kind, handler, once=once)

        def decorate(handler: Handler[E]) -> Handler[E]:
            self._add(kind, handler, once=once)
            return handler

        return decorate

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens to anything."""
        return bool(self._listeners)

    def has_listeners_for(self, *kinds: type) -> bool:
        """Whether anybody listens to one of these types; an event that nobody hears need not be made."""
        return bool(self._listeners) and any(kind in self._listeners for kind in kinds)

    def emit(self, event: object) -> None:
        """Call the handlers of an event's type."""
        for subscription in self._listeners.get(type(event), ()):
            if subscription.once:
                subscription.remove()
            try:
                result = subscription.handler(event)
            except Exception:  # noqa: BLE001 - whatever a handler raises is logged, and breaks nothing
                _log.exception("A handler of %s raised.", type(event).__name__)
                continue
            if iscoroutine(result) and self.run_later is not None:
                self.run_later(result)

    def remove(self, subscription: Subscription) -> None:
        """Take a subscription out, if it is still there."""
        rest = tuple(one for one in self._listeners.get(subscription.kind, ()) if one is not subscription)
        listeners = {**self._listeners, subscription.kind: rest}
        self._listeners = {kind: listening for kind, listening in listeners.items() if listening}

    def _add(self, kind: type, handler: Handler[Any], *, once: bool) -> Subscription:
        if iscoroutinefunction(handler) and self.run_later is None:
            raise ConfigurationError(
                "An async handler needs an AsyncLMStudio.", hint="Pass a plain function, or use the async client."
            )
        added = Subscription(self, kind, handler, once=once)
        self._listeners = {**self._listeners, kind: (*self._listeners.get(kind, ()), added)}
        return added
