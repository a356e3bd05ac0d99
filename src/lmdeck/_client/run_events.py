"""Publish the events of a run on the client's bus.

A run has a separate context (`contextvars`), a copy of the caller's. Values that a listener of `RunStarted` sets there, such as
the current span of a tracer, apply to the run's requests and tools, in all their threads and tasks, but not to the code that
reads the run. `ToolStarted` is published in the context of the tool's handler.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeAlias, TypeVar

from lmdeck._agent.loop import PendingRound
from lmdeck._event_bus import EventBus
from lmdeck.events import AgentEvent, RunEnded, RunStarted, ToolStarted
from lmdeck.messages import Reply

T = TypeVar("T")
RunOutcome: TypeAlias = Reply | PendingRound
_bus: ContextVar[EventBus | None] = ContextVar("lmdeck_run_bus", default=None)


def publish_tool_start(event: ToolStarted) -> None:
    """Publish the start of a tool; call this in the context in which its handler runs."""
    bus = _bus.get()
    if bus is not None:
        bus.emit(event)


def publish_events(
    steps: Generator[AgentEvent, None, RunOutcome], bus: EventBus, model: str | None
) -> Generator[AgentEvent, None, RunOutcome]:
    """Run the steps in a separate context, and publish the events of the run as they happen."""
    run = _RunPublisher(bus, model)
    try:
        while True:
            event = run.context.run(next, steps)
            run.publish(event)
            yield event
    except StopIteration as done:
        outcome: RunOutcome = done.value
        run.note(outcome)
        return outcome
    except Exception as error:
        run.error = error
        raise
    finally:
        run.context.run(steps.close)
        run.end()


async def publish_events_async(
    steps: AsyncGenerator[AgentEvent | RunOutcome, None], bus: EventBus, model: str | None
) -> AsyncGenerator[AgentEvent | RunOutcome, None]:
    """Async version of `publish_events`."""
    run = _RunPublisher(bus, model)
    try:
        while True:
            step = await _InContext(run.context, anext(steps))
            if isinstance(step, Reply | PendingRound):
                run.note(step)
            else:
                run.publish(step)
            yield step
    except StopAsyncIteration:
        return
    except Exception as error:
        run.error = error
        raise
    finally:
        await _InContext(run.context, steps.aclose())
        run.end()


class _RunPublisher:
    """A publisher of the events of one run in its context; `error` and `reply` are its result."""

    def __init__(self, bus: EventBus, model: str | None) -> None:
        self.context: Context = copy_context()
        self.reply: Reply | None = None
        self.error: Exception | None = None
        self._bus = bus
        self._started = time.monotonic()
        self.context.run(_bus.set, bus)
        self.context.run(bus.emit, RunStarted(model=model or ""))

    def note(self, outcome: RunOutcome) -> None:
        """Record the result of the run."""
        self.reply = outcome if isinstance(outcome, Reply) else outcome.reply

    def publish(self, event: AgentEvent) -> None:
        """Publish an event, except the start of a tool, which was published before its handler ran."""
        if not isinstance(event, ToolStarted):
            self.context.run(self._bus.emit, event)

    def end(self) -> None:
        """Publish the end of the run."""
        seconds = time.monotonic() - self._started
        self.context.run(self._bus.emit, RunEnded(reply=self.reply, error=self.error, seconds=seconds))


class _InContext:
    """An awaitable that runs in a separate context, in the task that awaits it."""

    def __init__(self, context: Context, awaitable: Awaitable[T]) -> None:
        self._context = context
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        resume: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            try:
                waited_for = self._context.run(resume, value)
            except StopIteration as done:
                return done.value
            try:
                value, resume = (yield waited_for), steps.send
            except BaseException as error:
                value, resume = error, steps.throw
