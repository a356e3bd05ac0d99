"""Run a plan: perform each effect that it yields and send the result back.

There is one runner for sync and one for async.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lmdeck._pipeline.effects import (
    Acquire,
    Effect,
    Open,
    Plan,
    Read,
    RunBlocking,
    RunCallback,
    Send,
    Sleep,
    Slot,
)
from lmdeck._transport.interruption import Interruption, interruptible
from lmdeck._transport.traceback_secrets import clear_own_locals
from lmdeck.errors import IncompleteStreamError, LMStudioError

if TYPE_CHECKING:
    from lmdeck._transport import AsyncResponse, AsyncTransport, SyncResponse, Transport

E = TypeVar("E")
T = TypeVar("T")


def run_plan(plan: Generator[E, Any, T], perform: Callable[[E], object]) -> T:
    """Run a plan with blocking calls and return its result; an interruption closes it."""
    try:
        effect = next(plan)
        while True:
            try:
                result = perform(effect)
            except Exception as error:  # the plan decides what an error means
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        value: T = done.value
        return value
    except LMStudioError as error:
        clear_own_locals(error)
        raise
    finally:
        plan.close()


async def run_plan_async(plan: Generator[E, Any, T], perform: Callable[[E], Awaitable[object]]) -> T:
    """Run a plan with awaited calls and return its result; a cancellation closes it."""
    try:
        effect = next(plan)
        while True:
            try:
                result = await perform(effect)
            except Exception as error:  # the plan decides what an error means
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        value: T = done.value
        return value
    except LMStudioError as error:
        clear_own_locals(error)
        raise
    finally:
        plan.close()


def drive(plan: Plan[T], transport: Transport, interruption: Interruption | None = None) -> T:
    """Run a plan of pipeline effects over a sync transport.

    An interruption from another thread ends the current effect with an `IncompleteStreamError`.
    """
    if interruption is None:
        return run_plan(plan, partial(_perform, transport))
    with interruptible(interruption):
        return run_plan(plan, partial(_perform_until, interruption, transport))


async def drive_async(plan: Plan[T], transport: AsyncTransport) -> T:
    """Run a plan of pipeline effects over an async transport.

    A cancellation closes the plan and its connection.
    """
    return await run_plan_async(plan, partial(_perform_async, transport))


def _perform_until(interruption: Interruption, transport: Transport, effect: Effect) -> object:
    try:
        return _perform(transport, effect, interruption)
    except Exception as error:
        if interruption.is_set:
            raise IncompleteStreamError(
                "The stream is closed.", hint="Send the request again for a new stream."
            ) from error
        raise


def _perform(transport: Transport, effect: Effect, interruption: Interruption | None = None) -> object:
    match effect:
        case Send():
            return _send(transport, effect)
        case Open(request):
            return transport.open(request)
        case Read():
            return cast("SyncResponse", effect.response).read()
        case Sleep(seconds):
            _sleep(seconds, interruption)
        case RunBlocking(function):
            return function()
        case RunCallback(callback, value):
            callback(value)
        case Acquire():
            return _acquire(effect, interruption)
    return None


async def _perform_async(transport: AsyncTransport, effect: Effect) -> object:
    match effect:
        case Send():
            return await _send_async(transport, effect)
        case Open(request):
            return await transport.open(request)
        case Read():
            return await cast("AsyncResponse", effect.response).read()
        case Sleep(seconds):
            import asyncio  # imported late: importing it takes longer than lmdeck, and sync code never needs it

            await asyncio.sleep(seconds)
        case RunBlocking(function):
            import asyncio

            return await asyncio.to_thread(function)
        case RunCallback(callback, value):
            result = callback(value)
            if isinstance(result, Awaitable):
                await result
        case Acquire():
            return await _acquire_async(effect)
    return None


def _send(transport: Transport, effect: Send) -> object:
    response = transport.open(effect.request)
    try:
        stream = effect.begin(response)
        if stream is None:
            return response
        while not stream.feed_first(response.read()):
            continue
    except BaseException:
        response.close()
        raise
    return stream


async def _send_async(transport: AsyncTransport, effect: Send) -> object:
    response = await transport.open(effect.request)
    try:
        stream = effect.begin(response)
        if stream is None:
            return response
        while not stream.feed_first(await response.read()):
            continue
    except BaseException:
        response.close()
        raise
    return stream


def _sleep(seconds: float, interruption: Interruption | None) -> None:
    """Wait for the given number of seconds, or until the interruption."""
    if interruption is None:
        time.sleep(seconds)
        return
    is_over = threading.Event()
    interruption.watch(is_over.set)
    is_over.wait(seconds)
    _check(interruption)


def _check(interruption: Interruption | None) -> None:
    if interruption is not None and interruption.is_set:
        raise InterruptedError("another thread closed the stream")


def _acquire(effect: Acquire, interruption: Interruption | None) -> Slot:
    """Wait for a slot; Ctrl-C leaves the queue, and so does an interruption."""
    granted = threading.Event()
    slot = effect.queue.enqueue(granted.set)
    try:
        if not slot.is_granted:
            if interruption is not None:
                interruption.watch(granted.set)
            if not granted.wait(effect.patience) and effect.on_long_wait is not None:
                effect.on_long_wait()
            granted.wait()
            _check(interruption)
    except BaseException:
        effect.queue.release(slot)
        raise
    return slot


async def _acquire_async(effect: Acquire) -> Slot:
    """Wait for a slot; a cancellation leaves the queue."""
    import asyncio  # imported late, as above

    loop = asyncio.get_running_loop()
    granted = asyncio.Event()
    slot = effect.queue.enqueue(lambda: loop.call_soon_threadsafe(granted.set))
    try:
        if not slot.is_granted:
            try:
                await asyncio.wait_for(granted.wait(), effect.patience)
            except TimeoutError:
                if effect.on_long_wait is not None:
                    effect.on_long_wait()
                await granted.wait()
    except BaseException:
        effect.queue.release(slot)
        raise
    return slot
