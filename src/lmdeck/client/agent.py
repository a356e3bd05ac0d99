"""The two drivers of a run: threads for the sync client, tasks for the async one.

Calls of one round run at the same time and answer in their order. Leaving a run early closes the model's stream and cancels
what runs; a thread cannot be stopped from outside, so a sync handler that is left alone runs to its end, unheard.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, suppress
from contextvars import copy_context
from inspect import isawaitable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from lmdeck.agent.calls import Ready, failed, finished, refused, timed_out
from lmdeck.agent.limits import AgentLimits
from lmdeck.agent.loop import AskModel, RunTools, Tell
from lmdeck.bus import EventBus
from lmdeck.errors import IncompleteStreamError, LMStudioError
from lmdeck.events import AgentEvent, ToolDone, ToolErrored, ToolRunning
from lmdeck.messages import Reply, ToolCall, ToolResult

if TYPE_CHECKING:
    import asyncio

    from lmdeck.client.chat import AsyncChat, Chat

__all__ = ["Approve", "AsyncChatRun", "ChatRun", "play", "play_async"]

Approve = Callable[[ToolCall], "bool | str | Awaitable[bool | str]"]
AgentPlan = Generator[Any, Any, Reply]


class _Finished:
    """The reply of a run, once there is one."""

    _reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The reply of the run.

        Raises:
            IncompleteStreamError: The run was not read to its end.
        """
        if self._reply is None:
            raise IncompleteStreamError("The run was not read to its end.", hint="Iterate it first.")
        return self._reply


class ChatRun(_Finished):
    """A run of the sync client while it goes on: a context manager and an iterator of chunks and tool events."""

    def __init__(self, steps: Generator[AgentEvent, None, Reply]) -> None:
        self._steps = steps
        self._events = self._iterate()

    def _iterate(self) -> Iterator[AgentEvent]:
        self._reply = yield from self._steps

    def __iter__(self) -> Iterator[AgentEvent]:
        return self._events

    def __next__(self) -> AgentEvent:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run: the model's stream is closed, and results that are still to come are not waited for."""
        self._steps.close()


class AsyncChatRun(_Finished):
    """A run of the async client while it goes on: an async context manager and iterator of chunks and tool events."""

    def __init__(self, steps: AsyncGenerator[AgentEvent | Reply, None]) -> None:
        self._steps = steps
        self._events = self._iterate()

    async def _iterate(self) -> AsyncGenerator[AgentEvent, None]:
        async with aclosing(self._steps) as steps:
            async for step in steps:
                if isinstance(step, Reply):
                    self._reply = step
                else:
                    yield step

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self._events

    async def __anext__(self) -> AgentEvent:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the run: the model's stream is closed and running tools are cancelled."""
        await self._events.aclose()
        await self._steps.aclose()


def play(
    plan: AgentPlan, asks: Callable[[AskModel], Chat], limits: AgentLimits, approve: Approve | None, *, streamed: bool
) -> Generator[AgentEvent, None, Reply]:
    """Carry a run out with blocking calls, and give what happens in it."""
    try:
        effect = next(plan)
        while True:
            result: object = None
            try:
                match effect:
                    case AskModel() if streamed:
                        with asks(effect).stream() as stream:
                            yield from stream
                        result = stream.reply
                    case AskModel():
                        result = asks(effect).send()
                    case RunTools(ready, number):
                        result = yield from _run_in_threads(ready, number, limits, approve)
                    case Tell(event):
                        yield event
            except LMStudioError as error:
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        reply: Reply = done.value
        return reply
    finally:
        plan.close()


async def play_async(
    plan: AgentPlan, asks: Callable[[AskModel], AsyncChat], limits: AgentLimits, approve: Approve | None, *,
    streamed: bool,
) -> AsyncGenerator[AgentEvent | Reply, None]:  # fmt: skip
    """Carry a run out with awaited calls; give what happens in it, and its reply at the end."""
    try:
        effect = next(plan)
        while True:
            result: object = None
            try:
                async with aclosing(_carry_out(effect, asks, limits, approve, streamed=streamed)) as steps:
                    async for step in steps:
                        if isinstance(step, _Result):
                            result = step.value
                        else:
                            yield step
            except LMStudioError as error:
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        reply: Reply = done.value
    finally:
        plan.close()
    yield reply


def told(steps: Generator[AgentEvent, None, Reply], bus: EventBus) -> Generator[AgentEvent, None, Reply]:
    """Tell the client's listeners what happens in a run, as it happens."""
    try:
        while True:
            event = next(steps)
            bus.tell(event)
            yield event
    except StopIteration as done:
        reply: Reply = done.value
        return reply
    finally:
        steps.close()


async def told_async(
    steps: AsyncGenerator[AgentEvent | Reply, None], bus: EventBus
) -> AsyncGenerator[AgentEvent | Reply, None]:
    """Do as `told`, awaited."""
    async with aclosing(steps) as given:
        async for step in given:
            bus.tell(step)
            yield step


class _Result(Struct, frozen=True):
    """What an effect gave, as the last of its steps."""

    value: object


async def _carry_out(
    effect: object,
    asks: Callable[[AskModel], AsyncChat],
    limits: AgentLimits,
    approve: Approve | None,
    *,
    streamed: bool,
) -> AsyncGenerator[AgentEvent | _Result, None]:
    match effect:
        case AskModel() if streamed:
            async with asks(effect).stream() as stream:
                async for chunk in stream:
                    yield chunk
            yield _Result(stream.reply)
        case AskModel():
            yield _Result(await asks(effect).send())
        case RunTools(ready, number):
            results: dict[int, ToolResult] = {}
            async with aclosing(_run_in_tasks(ready, number, limits, approve, results)) as events:
                async for event in events:
                    yield event
            yield _Result([results[at] for at in range(len(ready))])
        case Tell(event):
            yield event


def _run_in_threads(
    ready: tuple[Ready, ...], number: int, limits: AgentLimits, approve: Approve | None
) -> Generator[AgentEvent, None, list[ToolResult]]:
    results: dict[int, ToolResult] = {}
    ends: dict[int, float | None] = {}
    done: SimpleQueue[tuple[int, ToolResult]] = SimpleQueue()
    for at, item in enumerate(ready):
        reason = _reason(approve, item.call)
        if reason is not None:
            results[at] = refused(item, reason)
            yield ToolErrored(result=results[at], round=number)
            continue
        limit = _limit(item, limits)
        ends[at] = None if limit is None else time.monotonic() + limit
        name = f"lmdeck-tool-{item.call.name}"
        threading.Thread(target=copy_context().run, args=(_work, at, item, limit, done), daemon=True, name=name).start()
        yield ToolRunning(call=item.call, round=number)
    while ends:
        nearest = min((end for end in ends.values() if end is not None), default=None)
        try:
            at, result = done.get(timeout=None if nearest is None else max(0.0, nearest - time.monotonic()))
        except Empty:
            at = next(at for at, end in ends.items() if end == nearest)
            result = timed_out(ready[at], _limit(ready[at], limits) or 0.0)
        if ends.pop(at, _MISSING) is _MISSING:
            continue  # it came too late: the model was told already
        results[at] = result
        yield _event(result, number)
    return [results[at] for at in range(len(ready))]


_MISSING = object()


def _work(at: int, item: Ready, limit: float | None, done: SimpleQueue[tuple[int, ToolResult]]) -> None:
    begin = time.monotonic()
    try:
        value = item.tool.handler(**item.arguments)
        if isawaitable(value):
            value = _awaited(value, limit)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is told to the model and to the caller
        done.put((at, _failed(item, error, limit, time.monotonic() - begin)))
    else:
        done.put((at, finished(item, value, time.monotonic() - begin)))


def _awaited(value: Awaitable[object], limit: float | None) -> object:
    """Run an async handler in this thread."""
    import asyncio  # here, because it costs a script that never awaits more than all of lmdeck

    async def waiting() -> object:
        return await asyncio.wait_for(value, limit)

    return asyncio.run(waiting())


async def _run_in_tasks(
    ready: tuple[Ready, ...], number: int, limits: AgentLimits, approve: Approve | None, results: dict[int, ToolResult]
) -> AsyncGenerator[AgentEvent, None]:
    import asyncio

    tasks: dict[asyncio.Task[ToolResult], int] = {}
    try:
        for at, item in enumerate(ready):
            reason = _reason(approve, item.call)
            if isawaitable(reason):
                reason = _said(await reason)
            if reason is not None:
                results[at] = refused(item, reason)
                yield ToolErrored(result=results[at], round=number)
                continue
            tasks[asyncio.create_task(_work_async(item, _limit(item, limits)))] = at
            yield ToolRunning(call=item.call, round=number)
        while tasks:
            finished_now, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(finished_now, key=tasks.__getitem__):
                at = tasks.pop(task)
                results[at] = task.result()
                yield _event(results[at], number)
    finally:
        for task in tasks:
            task.cancel()


async def _work_async(item: Ready, limit: float | None) -> ToolResult:
    import asyncio

    begin = time.monotonic()
    try:
        if item.tool.is_async:
            value = await asyncio.wait_for(item.tool.handler(**item.arguments), limit)
        else:
            value = await asyncio.wait_for(_in_thread(item), limit)
            if isawaitable(value):
                value = await asyncio.wait_for(value, limit)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is told to the model and to the caller
        return _failed(item, error, limit, time.monotonic() - begin)
    return finished(item, value, time.monotonic() - begin)


def _failed(item: Ready, error: Exception, limit: float | None, seconds: float) -> ToolResult:
    """Give the result of a handler that raised, a time limit of ours told from one of its own."""
    if isinstance(error, TimeoutError) and limit is not None and seconds >= limit:
        return timed_out(item, limit)
    return failed(item, error, seconds)


def _in_thread(item: Ready) -> asyncio.Future[object]:
    """Run a sync handler in a thread of its own; a pool's threads would be waited for when the program ends."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def settle(value: object, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def work() -> None:
        value, raised = None, None
        try:
            value = item.tool.handler(**item.arguments)
        except Exception as error:  # noqa: BLE001 - it is handed on to the loop
            raised = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, raised)

    name = f"lmdeck-tool-{item.call.name}"
    threading.Thread(target=copy_context().run, args=(work,), daemon=True, name=name).start()
    return future


def _reason(approve: Approve | None, call: ToolCall) -> Any:  # noqa: ANN401 - None, words, or an awaitable of an answer
    """Give why a call is refused, None where it is not."""
    answer = True if approve is None else approve(call)
    return answer if isawaitable(answer) else _said(answer)


def _said(answer: object) -> str | None:
    if isinstance(answer, str):
        return answer
    return None if answer else ""


def _limit(item: Ready, limits: AgentLimits) -> float | None:
    return item.tool.timeout if item.tool.timeout is not None else limits.tool_timeout


def _event(result: ToolResult, number: int) -> AgentEvent:
    return ToolDone(result=result, round=number) if result.error is None else ToolErrored(result=result, round=number)
