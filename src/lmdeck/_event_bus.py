"""The event bus: handlers by event type.

An exception in a handler is logged and never breaks a chat. Handlers run in the thread or task in which the event occurs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from inspect import iscoroutine, iscoroutinefunction
from typing import Any, Self, TypeVar, overload

from lmdeck.errors import ConfigurationError

E = TypeVar("E")
Handler = Callable[[E], object]
_log = logging.getLogger("lmdeck.events")


class Subscription:
    """A registered handler, which `remove` unregisters.

    As a context manager it is registered for the block.
    """

    def __init__(self, bus: EventBus, kind: type, handler: Handler[Any], *, once: bool) -> None:
        self.kind = kind
        self.handler = handler
        self.once = once
        self._bus = bus

    def remove(self) -> None:
        """Unregister the handler."""
        self._bus.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class EventBus:
    """The event handlers of one client, by event type.

    Async handlers need a `run_later` that schedules them.
    """

    def __init__(self) -> None:
        self.run_later: Callable[[Coroutine[Any, Any, object]], object] | None = None
        self.listeners: dict[type, tuple[Subscription, ...]] = {}

    @overload
    def on(self, kind: type[E], handler: Handler[E], *, once: bool = False) -> Subscription: ...
    @overload
    def on(self, kind: type[E], *, once: bool = False) -> Callable[[Handler[E]], Handler[E]]: ...
    def on(
        self, kind: type[E], handler: Handler[E] | None = None, *, once: bool = False
    ) -> Subscription | Callable[[Handler[E]], Handler[E]]:
        """Register a handler for every event of a type or, with `once`, the next one.

        Without a handler, return a decorator.

        Raises:
            ConfigurationError: `kind` is not an event type, or the handler is async and the client is not.
        """
        from lmdeck.events import EVENTS  # imported late: few clients have listeners

        if kind not in EVENTS:
            raise ConfigurationError(
                f"{getattr(kind, '__name__', kind)!r} is not an event type.",
                hint=f"Choose one of {', '.join(sorted(event.__name__ for event in EVENTS))}.",
            )
        if handler is not None:
            return self._add(kind, handler, once=once)

        def decorate(handler: Handler[E]) -> Handler[E]:
            self._add(kind, handler, once=once)
            return handler

        return decorate

    def emit(self, event: object) -> None:
        """Call the handlers of the event's type."""
        for subscription in self.listeners.get(type(event), ()):
            if subscription.once:
                subscription.remove()
            try:
                result = subscription.handler(event)
            except Exception:
                _log.exception("A handler of %s raised.", type(event).__name__)
                continue
            if result is not None and self.run_later is not None and iscoroutine(result):
                self.run_later(result)

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription if it is still registered."""
        rest = tuple(one for one in self.listeners.get(subscription.kind, ()) if one is not subscription)
        listeners = {**self.listeners, subscription.kind: rest}
        self.listeners = {kind: listening for kind, listening in listeners.items() if listening}

    def _add(self, kind: type, handler: Handler[Any], *, once: bool) -> Subscription:
        if iscoroutinefunction(handler) and self.run_later is None:
            raise ConfigurationError(
                "An async handler needs an AsyncLMStudio.", hint="Pass a plain function, or use the async client."
            )
        added = Subscription(self, kind, handler, once=once)
        self.listeners = {**self.listeners, kind: (*self.listeners.get(kind, ()), added)}
        return added
