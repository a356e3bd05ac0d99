"""The time limit of a wait, also when it expires at the same moment as something else happens."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from lmdeck._transport import Timeouts, WireRequest
from lmdeck._transport.aiohttp.read_timer import ReadTimer
from lmdeck._transport.aiohttp.response import AiohttpResponse
from lmdeck._transport.deadlines import Deadlines
from lmdeck.errors import RequestTimeoutError


class Framing:
    """A body of which only framing arrives, never data."""

    def read_nowait(self) -> bytes:
        """Return no data."""
        return b""

    def is_eof(self) -> bool:
        """Whether the body has ended: never."""
        return False

    def exception(self) -> None:
        """Return the error that ended the body: none."""

    def set_exception(self, error: BaseException) -> None:
        """Ignore an error."""


@pytest.mark.asyncio
async def test_a_limit_that_expires_while_the_reader_is_being_woken_is_kept() -> None:
    """The timer fires after the arrival and before the reader runs: nothing would wake the reader again."""
    timeouts = Timeouts(total=0.05)
    raw: Any = SimpleNamespace(content=Framing(), connection=None, status=200, headers={}, close=lambda: None)
    request = WireRequest(method="POST", url="http://localhost/", timeouts=timeouts)
    timer = ReadTimer(asyncio.get_running_loop(), timeouts.idle)
    response = AiohttpResponse(raw, Deadlines(timeouts), timer, request)
    reading = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(response.on_change)
    time.sleep(0.1)  # noqa: ASYNC251  # so that the arrival and the timer are due in the same iteration of the loop
    with pytest.raises(RequestTimeoutError) as caught:
        await asyncio.wait_for(asyncio.shield(reading), 2)
    assert caught.value.phase == "total"


@pytest.mark.asyncio
async def test_a_limit_is_an_error_and_leaves_no_cancellation_behind() -> None:
    """The wait is ended by a cancellation, which nobody outside may count."""
    timer = ReadTimer(asyncio.get_running_loop(), 60.0)
    with pytest.raises(TimeoutError):
        await timer.limit(0.01, asyncio.Event().wait())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await timer.limit(60.0, asyncio.sleep(0, "result")) == "result"


@pytest.mark.asyncio
async def test_a_cancellation_at_the_moment_of_the_limit_stays_one() -> None:
    """A task that is cancelled from outside must not end with an error instead."""
    timer = ReadTimer(asyncio.get_running_loop(), 60.0)
    task = asyncio.create_task(timer.limit(0.0, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
