"""The two drivers of a plan: the only lines that are written once for sync and once for async."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable
from typing import TypeVar

from lmdeck._pipeline import Effect, Open, Plan, Read, Sleep, Tell, Wait
from lmdeck._pipeline.concurrency import Gate, Turn
from lmdeck._transport import AsyncTransport, Response, Transport
from lmdeck._transport.interruption import Interruption, interruptible
from lmdeck.errors import IncompleteStreamError, LMStudioError

__all__ = ["drive", "drive_async"]

T = TypeVar("T")


def drive(plan: Plan[T], transport: Transport, interruption: Interruption | None = None) -> T:
    """Run a plan with blocking calls; an interruption from another thread ends it with an `IncompleteStreamError`."""
    try:
        with interruptible(interruption):
            effect = next(plan)
            while True:
                try:
                    result = _perform(effect, transport, interruption)
                except Exception as error:  # noqa: BLE001  # every failure is the plan's to judge
                    effect = plan.throw(_interrupted(error) if interruption and interruption.is_set else error)
                else:
                    effect = plan.send(result)
    except StopIteration as done:
        result_value: T = done.value
        return result_value
    finally:
        plan.close()


def _interrupted(cause: Exception) -> LMStudioError:
    error = IncompleteStreamError("The stream is closed.", hint="Ask again for a new one.")
    error.__cause__ = cause
    return error


async def drive_async(plan: Plan[T], transport: AsyncTransport) -> T:
    """Run a plan with awaited calls; a cancellation closes it, and with it the connection."""
    try:
        effect = next(plan)
        while True:
            try:
                result = await _perform_async(effect, transport)
            except Exception as error:  # noqa: BLE001  # every failure is the plan's to judge
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        result_value: T = done.value
        return result_value
    finally:
        plan.close()


def _perform(effect: Effect, transport: Transport, interruption: Interruption | None) -> Response | bytes | Turn | None:
    match effect:
        case Open(request):
            return transport.open(request)
        case Read(response):
            return response.read()  # type: ignore[attr-defined,no-any-return]  # this driver's transport gave it
        case Sleep(seconds):
            _sleep(seconds, interruption)
            return None
        case Tell(callback, value):
            callback(value)
            return None
        case Wait(gate):
            return _wait(gate, interruption)


def _sleep(seconds: float, interruption: Interruption | None) -> None:
    """Wait, for no longer than until the interruption."""
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


async def _perform_async(effect: Effect, transport: AsyncTransport) -> Response | bytes | Turn | None:
    match effect:
        case Open(request):
            return await transport.open(request)
        case Read(response):
            return await response.read()  # type: ignore[attr-defined,no-any-return]  # this driver's transport gave it
        case Sleep(seconds):
            import asyncio  # here, because it costs a script that never awaits more than all of lmdeck

            await asyncio.sleep(seconds)
            return None
        case Tell(callback, value):
            told = callback(value)
            if isinstance(told, Awaitable):
                await told
            return None
        case Wait(gate):
            return await _wait_async(gate)


def _wait(gate: Gate, interruption: Interruption | None) -> Turn:
    """Wait for a turn; Ctrl-C gives the place up, and so does an interruption."""
    admitted = threading.Event()
    turn = gate.join(admitted.set)
    try:
        if not turn.is_admitted:
            if interruption is not None:
                interruption.watch(admitted.set)
            admitted.wait()
            _check(interruption)
    except BaseException:
        gate.leave(turn)
        raise
    return turn


async def _wait_async(gate: Gate) -> Turn:
    """Wait for a turn; a cancellation gives the place up."""
    import asyncio  # see above

    loop = asyncio.get_running_loop()
    admitted = asyncio.Event()
    turn = gate.join(lambda: loop.call_soon_threadsafe(admitted.set))
    try:
        if not turn.is_admitted:
            await admitted.wait()
    except BaseException:
        gate.leave(turn)
        raise
    return turn
