"""The two drivers of a plan: the only lines that are written once for sync and once for async."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable
from typing import TypeVar

from lmdeck._pipeline import Effect, Open, Plan, Read, Sleep, Tell, Wait
from lmdeck._pipeline.concurrency import Gate, Turn
from lmdeck._transport import AsyncTransport, Response, Transport

__all__ = ["drive", "drive_async"]

T = TypeVar("T")


def drive(plan: Plan[T], transport: Transport) -> T:
    """Run a plan with blocking calls."""
    try:
        effect = next(plan)
        while True:
            try:
                result = _perform(effect, transport)
            except Exception as error:  # noqa: BLE001  # every failure is the plan's to judge
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        result_value: T = done.value
        return result_value
    finally:
        plan.close()


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


def _perform(effect: Effect, transport: Transport) -> Response | bytes | Turn | None:
    match effect:
        case Open(request):
            return transport.open(request)
        case Read(response):
            return response.read()  # type: ignore[attr-defined,no-any-return]  # this driver's transport gave it
        case Sleep(seconds):
            time.sleep(seconds)
            return None
        case Tell(callback, value):
            callback(value)
            return None
        case Wait(gate):
            return _wait(gate)


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


def _wait(gate: Gate) -> Turn:
    """Wait for a turn; Ctrl-C gives the place up."""
    admitted = threading.Event()
    turn = gate.join(admitted.set)
    try:
        if not turn.is_admitted:
            admitted.wait()
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
