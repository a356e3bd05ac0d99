"""The calls of one round, run concurrently: in threads (sync) or in tasks (async).

The results have the order of the calls. Leaving a run early cancels running calls; a thread cannot be stopped from outside, so
a sync handler runs to its end, and its result is ignored.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias, cast

from lmdeck._agent.limits import AgentLimits
from lmdeck._agent.tool_calls import PreparedCall, failed, finished, timed_out
from lmdeck._client.run import run_closed
from lmdeck._client.run_events import publish_tool_start
from lmdeck._native_threads import start_native_thread
from lmdeck._transport.interruption import Interruption
from lmdeck.events import AgentEvent, ToolExecutionFailed, ToolFinished, ToolServerLost, ToolStarted
from lmdeck.messages import ToolResult
from lmdeck.tools.reporting import Report, report_to

if TYPE_CHECKING:
    import asyncio

_CLOSED = object()
"""The item in the queue that ends the wait when the run is closed."""
CallOutcome: TypeAlias = ToolResult | ToolServerLost | BaseException
ResultQueue: TypeAlias = SimpleQueue[tuple[int, ToolResult | ToolServerLost | object]]


def run_in_threads(
    ready: tuple[PreparedCall, ...],
    number: int,
    limits: AgentLimits,
    interruption: Interruption,
) -> Generator[AgentEvent, None, list[ToolResult]]:
    """Run a round's calls in threads; return the results in order.

    An event is yielded when a call starts and when it ends.

    Raises:
        IncompleteStreamError: The run was closed by another thread.
    """
    results: dict[int, ToolResult] = {}
    ends: dict[int, float | None] = {}
    results_queue: ResultQueue = SimpleQueue()
    interruption.watch(lambda: results_queue.put((-1, _CLOSED)))
    for at, item in enumerate(ready):
        limit = _limit(item, limits)
        ends[at] = None if limit is None else time.monotonic() + limit
        context = copy_context()
        context.run(report_to, partial(_put, results_queue, at))
        started = ToolStarted(call=item.call, round=number)
        context.run(publish_tool_start, started)
        name = f"lmdeck-tool-{item.call.name}"
        threading.Thread(
            target=context.run, args=(_work, at, item, limit, results_queue), daemon=True, name=name
        ).start()
        yield started
    while ends:
        nearest = min((end for end in ends.values() if end is not None), default=None)
        try:
            at, result = results_queue.get(timeout=None if nearest is None else max(0.0, nearest - time.monotonic()))
        except Empty:
            at = next(at for at, end in ends.items() if end == nearest)
            result = timed_out(ready[at], _limit(ready[at], limits) or 0.0)
        if isinstance(result, ToolServerLost):
            yield result
        elif not isinstance(result, ToolResult):
            raise run_closed()
        elif ends.pop(at, _MISSING) is not _MISSING:  # otherwise it is too late: the result is a timeout
            results[at] = result
            yield _event(result, number)
    return [results[at] for at in range(len(ready))]


_MISSING = object()


def _put(results: ResultQueue, at: int, event: ToolServerLost) -> None:
    results.put((at, event))


def _work(at: int, item: PreparedCall, limit: float | None, results: ResultQueue) -> None:
    begin = time.monotonic()
    try:
        value = item.tool.handler(**item.arguments)
        if isawaitable(value):
            value = awaited(value, limit)
    except Exception as error:
        results.put((at, _failed(item, error, limit, time.monotonic() - begin)))
    else:
        results.put((at, finished(item, value, time.monotonic() - begin)))


def awaited(value: Awaitable[object], limit: float | None) -> object:
    """Run an async handler in this thread, which has no event loop."""
    import asyncio  # imported late: importing it takes longer than lmdeck

    async def waiting() -> object:
        return await asyncio.wait_for(value, limit)

    return asyncio.run(waiting())


async def run_in_tasks(
    ready: tuple[PreparedCall, ...],
    number: int,
    limits: AgentLimits,
    results: dict[int, ToolResult],
) -> AsyncGenerator[AgentEvent, None]:
    """Run a round's calls in tasks, yield an event when each ends, and store the results."""
    import asyncio

    outcomes: asyncio.Queue[tuple[int, CallOutcome]] = asyncio.Queue()
    tasks: dict[int, asyncio.Task[None]] = {}
    try:
        for at, item in enumerate(ready):
            context = copy_context()
            context.run(report_to, _publisher(outcomes, at))
            started = ToolStarted(call=item.call, round=number)
            context.run(publish_tool_start, started)
            work = _work_in_task(at, item, _limit(item, limits), outcomes)
            tasks[at] = asyncio.create_task(work, context=context)
            yield started
        while tasks:
            at, result = await outcomes.get()
            if isinstance(result, ToolServerLost):
                yield result
                continue
            await tasks.pop(at)  # raises an error that is not the handler's, such as a cancellation
            results[at] = cast("ToolResult", result)
            yield _event(results[at], number)
    finally:
        for task in tasks.values():
            task.cancel()


def _publisher(outcomes: asyncio.Queue[tuple[int, CallOutcome]], at: int) -> Report:
    """Return a callback, for any thread, that puts a handler's events into the queue."""
    import asyncio

    loop = asyncio.get_running_loop()

    def publish(event: ToolServerLost) -> None:
        if _running_loop() is loop:
            outcomes.put_nowait((at, event))
        else:
            loop.call_soon_threadsafe(outcomes.put_nowait, (at, event))

    return publish


async def _work_in_task(
    at: int, item: PreparedCall, limit: float | None, outcomes: asyncio.Queue[tuple[int, CallOutcome]]
) -> None:
    try:
        outcomes.put_nowait((at, await _work_async(item, limit)))
    except BaseException as error:
        outcomes.put_nowait((at, error))
        raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _work_async(item: PreparedCall, limit: float | None) -> ToolResult:
    import asyncio

    begin = time.monotonic()
    try:
        if item.tool.is_async:
            value = await asyncio.wait_for(item.tool.handler(**item.arguments), limit)
        else:
            value = await asyncio.wait_for(_in_thread(item), limit)
            if isawaitable(value):
                value = await asyncio.wait_for(value, limit)
    except Exception as error:
        return _failed(item, error, limit, time.monotonic() - begin)
    return finished(item, value, time.monotonic() - begin)


def _failed(item: PreparedCall, error: Exception, limit: float | None, seconds: float) -> ToolResult:
    """Return the result of a handler that raised, or that exceeded the time limit."""
    if isinstance(error, TimeoutError) and limit is not None and seconds >= limit:
        return timed_out(item, limit)
    return failed(item, error, seconds)


def _in_thread(item: PreparedCall) -> asyncio.Future[object]:
    """Run a sync handler in a daemon thread.

    The program would wait at exit for the threads of a pool.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def resolve(value: object, error: Exception | None) -> None:
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
        except Exception as error:
            raised = error
        with suppress(RuntimeError):  # the loop is closed, so nothing waits for the result
            loop.call_soon_threadsafe(resolve, value, raised)

    name = f"lmdeck-tool-{item.call.name}"
    start_native_thread(partial(copy_context().run, work), name)
    return future


def _limit(item: PreparedCall, limits: AgentLimits) -> float | None:
    return item.tool.timeout if item.tool.timeout is not None else limits.tool_timeout


def _event(result: ToolResult, number: int) -> AgentEvent:
    return (
        ToolFinished(result=result, round=number)
        if result.error is None
        else ToolExecutionFailed(result=result, round=number)
    )
