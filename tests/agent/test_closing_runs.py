"""A run that another thread or task closes ends there and then, with one typed error for whoever reads it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from asking import alm, lm, nothing_left_behind
from lmdeck import IncompleteStreamError, tool
from lmdeck.events import Chunk, ToolStarted
from lmdeck.testing import FakeLMStudio
from loopback import HANG, PATIENCE, SSE_HEAD, Loopback, chunk, http_chunks

SILENCES = {
    "before the first byte": [HANG],
    "in the middle of an answer": [SSE_HEAD + http_chunks(chunk("He"), last=False), HANG],
}


def closed_while_it_waits(run: Any, has_begun: Callable[[], object]) -> IncompleteStreamError:
    """Close a run from another thread once something has begun, and return what its reader gets."""

    def close() -> None:
        has_begun()
        run.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(IncompleteStreamError) as caught:
        list(run)
    closer.join(PATIENCE)
    return caught.value


async def closed_by_a_task(run: Any, has_begun: Callable[[], object]) -> IncompleteStreamError:
    """Close a run from another task once something has begun, and return what its reader gets."""

    async def close() -> None:
        await asyncio.to_thread(has_begun)
        await run.aclose()

    closer = asyncio.create_task(close())
    with pytest.raises(IncompleteStreamError) as caught:
        _ = [step async for step in run]
    await closer
    await asyncio.sleep(0)  # no cancellation is left over
    return caught.value


def check(error: IncompleteStreamError, run: Any) -> None:
    assert error.message == "The run is closed."
    with pytest.raises(IncompleteStreamError):
        _ = run.reply


@pytest.mark.parametrize("silence", SILENCES)
def test_another_thread_closes_a_run_that_waits_for_the_model(silence: str) -> None:
    """The connection is closed, so that the model stops."""
    with nothing_left_behind(), Loopback(SILENCES[silence]) as server, lm(server.url) as client:
        run = client.chat().user("Hi").run_stream()
        error = closed_while_it_waits(run, lambda: server.wait_requests(1))
        check(error, run)
        server.connections[0].wait_left()
        with pytest.raises(IncompleteStreamError):  # and it stays closed
            next(run)


@pytest.mark.parametrize("silence", SILENCES)
async def test_another_task_closes_a_run_that_waits_for_the_model(silence: str) -> None:
    """Another task closes an async run in the same way."""
    with Loopback(SILENCES[silence]) as server:
        async with alm(server.url) as client:
            run = client.chat().user("Hi").run_stream()
            check(await closed_by_a_task(run, lambda: server.wait_requests(1)), run)
            await asyncio.to_thread(server.connections[0].wait_left)
            with pytest.raises(IncompleteStreamError):
                await anext(run)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_run_that_waits_for_a_tool_is_closed(is_async: bool) -> None:
    """The tool's result is not waited for."""
    has_begun, may_end = threading.Event(), threading.Event()

    @tool
    def slow() -> str:
        has_begun.set()
        may_end.wait(PATIENCE)
        return "late"

    async def main() -> None:
        async with alm(fake.base_url, model=None) as client:
            run = client.chat().user("Hi").with_tools([slow]).run_stream()
            check(await closed_by_a_task(run, lambda: has_begun.wait(PATIENCE)), run)

    with nothing_left_behind(), FakeLMStudio() as fake:
        fake.tool_call("slow")
        if is_async:
            asyncio.run(main())
        else:
            with lm(fake.base_url, model=None) as client:
                run = client.chat().user("Hi").with_tools([slow]).run_stream()
                check(closed_while_it_waits(run, lambda: has_begun.wait(PATIENCE)), run)
        may_end.set()
        assert [request.path for request in fake.requests].count("/v1/chat/completions") == 1


async def test_a_run_that_waits_for_an_approval_is_closed() -> None:
    """An async `approve` may wait for a person, who may never come."""
    asked = threading.Event()

    @tool
    def pay() -> str:
        return "paid"

    async def approve(_: object) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    with FakeLMStudio() as fake:
        fake.tool_call("pay")
        async with alm(fake.base_url, model=None) as client:
            run = client.chat().user("Hi").with_tools([pay]).run_stream(approve=approve)
            check(await closed_by_a_task(run, lambda: asked.wait(PATIENCE)), run)


@pytest.mark.parametrize("kind", [Chunk, ToolStarted])
def test_a_listener_may_close_the_run_that_reports_to_it(kind: type[Any]) -> None:
    """It runs in the thread that reads, inside the run."""

    @tool
    def look() -> str:
        return "seen"

    with FakeLMStudio() as fake, lm(fake.base_url, model=None) as client:
        fake.tool_call("look")
        fake.reply("Done")
        run = client.chat().user("Hi").with_tools([look]).run_stream()
        with pytest.raises(IncompleteStreamError):
            _ = [run.close() for step in run if isinstance(step, kind)]


def test_many_closings_at_once_are_one() -> None:
    """The first closing counts, and no caller gets an error of Python's own."""
    with nothing_left_behind(), Loopback(SILENCES["in the middle of an answer"]) as server, lm(server.url) as client:
        run = client.chat().user("Hi").run_stream()
        closers = [threading.Thread(target=run.close) for _ in range(8)]

        def close_all() -> None:
            server.wait_requests(1)
            for closer in closers:
                closer.start()

        check(closed_while_it_waits(run, close_all), run)
        for closer in closers:
            closer.join(PATIENCE)


def test_a_finished_run_may_be_closed() -> None:
    """Its reply stays."""
    with FakeLMStudio() as fake, lm(fake.base_url, model=None) as client:
        fake.reply("Hello")
        run = client.chat().user("Hi").run_stream()
        list(run)
        run.close()
        assert run.reply.content == "Hello"
        assert list(run) == []
