"""Whoever stops listening, and however: the server sees the connection closed at once, and the client goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asking import SETTINGS, alm, lm, until
from lmdeck import AsyncLMStudio, ChatStream, IncompleteStreamError, LMStudioError, RequestTimeoutError
from loopback import (
    HANG,
    PATIENCE,
    SSE_HEAD,
    Answer,
    Connection,
    Loopback,
    chunk,
    endless,
    head,
    hello,
    http_chunks,
    json_answer,
)

FIRST_WORD = [SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG]
STUCK: dict[str, Answer] = {
    "before-head": [HANG],
    "in-head": [b"HTTP/1.1 200 OK\r\nContent-", HANG],
    "after-head": [SSE_HEAD, HANG],
    "mid-stream": FIRST_WORD,
    "mid-body": [head(content_length=99), b'{"choices": [', HANG],
}


def leave_by_break(stream: ChatStream) -> None:
    with stream:
        for _ in stream:
            break


def leave_bare_loop(stream: ChatStream) -> None:
    for _ in stream:
        break


def leave_bare_text(stream: ChatStream) -> None:
    for _ in stream.text():
        break


def leave_by_error(stream: ChatStream) -> None:
    with contextlib.suppress(LookupError), stream:
        for _ in stream:
            raise LookupError


def leave_by_close(stream: ChatStream) -> None:
    next(stream)
    stream.close()


def leave_unread(stream: ChatStream) -> None:
    with stream:
        pass


def leave_the_iterator(stream: ChatStream) -> None:
    iterator = iter(stream)
    next(iterator)


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_bare_loop,
        leave_bare_text,
        leave_by_error,
        leave_by_close,
        leave_unread,
        leave_the_iterator,
    ],
)
def test_leaving_a_stream_closes_its_connection(leave: Callable[[ChatStream], None]) -> None:
    """The server need not write on for nobody, whether or not the stream was used in a `with`."""
    with Loopback(endless, hello) as server, lm(server.url) as client:
        leave(client.chat().user("Sing").stream())
        server.connection().wait_left()
        assert client.chat().user("Hi").send().content == "Hello."
        assert len(server.requests) == 2


def test_an_exception_in_a_callback_closes_the_connection() -> None:
    """A callback that raises ends the answer, and its exception arrives."""

    def stop(_: object) -> None:
        raise LookupError

    with Loopback(endless, hello) as server, lm(server.url) as client:
        with pytest.raises(LookupError):
            client.chat().user("Sing").stream(stop)
        server.connection().wait_left()
        assert client.chat().user("Hi").stream(lambda _: None).content == "Hello."


def test_a_closed_stream_stays_closed() -> None:
    """After `close` there is nothing more to read, and what was read stays."""
    with Loopback(endless) as server, lm(server.url) as client:
        stream = client.chat().user("Sing").stream()
        assert next(stream).content == "la "
        stream.close()
        stream.close()
        with pytest.raises(LMStudioError):
            stream.until_done()
        assert stream.partial.content.startswith("la")
        with pytest.raises(IncompleteStreamError):
            _ = stream.reply


async def test_a_closed_async_stream_stays_closed() -> None:
    """The async stream stays closed as well."""
    with Loopback(endless) as server:
        async with alm(server.url) as client:
            stream = client.chat().user("Sing").stream()
            assert (await anext(stream)).content == "la "
            await stream.aclose()
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(IncompleteStreamError):
                    await stream.until_done()
            assert stream.partial.content.startswith("la")


def test_a_stream_closed_before_it_is_read_asks_nothing() -> None:
    """A stream that was closed before its first chunk sends no request."""
    with Loopback(hello) as server, lm(server.url) as client:
        stream = client.chat().user("Hi").stream()
        stream.close()
        with pytest.raises(IncompleteStreamError):
            next(stream)
        assert not server.requests


def test_closing_from_another_thread_wakes_the_reader() -> None:
    """A reader that is blocked in a silent stream gets an error at once."""
    with Loopback(FIRST_WORD, hello) as server, lm(server.url) as client:
        stream = client.chat().user("Hi").stream()
        next(stream)
        threading.Timer(0.1, stream.close).start()
        with pytest.raises(LMStudioError) as caught:
            next(stream)
        assert not isinstance(caught.value, RequestTimeoutError)
        assert caught.value.partial is not None
        server.connection().wait_left()
        assert client.chat().user("Hi").send().content == "Hello."


WAITS: dict[str, list[Any]] = {
    "no head": [HANG],
    "no body": [SSE_HEAD, HANG],
    "no first word": [SSE_HEAD, http_chunks(b": still here\n\n", last=False), HANG],
    "a retry": [*json_answer({"error": "busy"}, 429, retry_after=30)],
    "a loading model": [*json_answer({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503)],
}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("how", ["next", "with"])
def test_closing_from_another_thread_takes_effect_before_the_first_chunk(name: str, how: str) -> None:
    """Whatever the reader waits for, it ends at once; the connection is cut, and the client can be used again."""
    with Loopback(WAITS[name], hello) as server, lm(server.url, first_token_timeout=60.0, retry_attempts=3) as client:
        stream = client.chat().user("Hi").stream()
        closer = threading.Thread(target=lambda: (server.wait_requests(1), time.sleep(0.05), stream.close()))
        closer.start()
        with pytest.raises(IncompleteStreamError, match="closed"):
            stream.__enter__() if how == "with" else next(stream)
        closer.join()
        if HANG in WAITS[name]:
            server.connection().wait_left()
        assert client.chat().user("Hi").send().content == "Hello."
        assert len(server.requests) == 2


def test_closing_from_another_thread_gives_a_place_in_the_queue_up() -> None:
    """A stream that waits for its turn ends, and the queue is empty after it."""
    with Loopback(FIRST_WORD, hello) as server, lm(server.url, max_concurrency=1) as client:
        running = client.chat().user("Hi").stream()
        next(running)
        queued = client.chat().user("Hi").stream()
        caught: list[LMStudioError] = []

        def read() -> None:
            try:
                next(queued)
            except LMStudioError as error:
                caught.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: client._session.semaphore.waiting == 1)
        queued.close()
        reader.join(PATIENCE)
        assert isinstance(caught[0], IncompleteStreamError)
        assert client._session.semaphore.waiting == 0
        running.close()
        assert client.chat().user("Hi").send().content == "Hello."


def test_a_closed_client_can_be_used_again() -> None:
    """`close` lets go of the connections, not of the client."""
    with Loopback(hello) as server, lm(server.url) as client:
        assert client.chat().user("Hi").send().content == "Hello."
        client.close()
        server.connection().wait_left()
        assert client.chat().user("Hi").send().content == "Hello."


def test_closing_the_client_lets_a_running_answer_end() -> None:
    """An answer that is being read when its client is closed is read to its end; then its connection goes, too."""
    with Loopback(hello) as server, lm(server.url) as client:
        with client.chat().user("Hi").stream() as stream:
            client.close()
            assert stream.until_done().content == "Hello."
        server.connection().wait_left()


async def left(connection: Connection) -> None:
    """Wait until the connection is over, without holding the loop."""
    async with asyncio.timeout(PATIENCE):
        while not connection.has_left.is_set():  # noqa: ASYNC110  # set by a thread
            await asyncio.sleep(0.002)


async def send(client: AsyncLMStudio) -> None:
    await client.chat().user("Hi").send()


async def stream_it(client: AsyncLMStudio) -> None:
    async with client.chat().user("Hi").stream() as stream:
        async for _ in stream:
            continue


async def stream_bare(client: AsyncLMStudio) -> None:
    async for _ in client.chat().user("Hi").stream():
        continue


async def call_back(client: AsyncLMStudio) -> None:
    await client.chat().user("Hi").stream(lambda _: None)


Asking = Callable[[AsyncLMStudio], Awaitable[None]]


@pytest.mark.parametrize("ask", [send, stream_it, stream_bare, call_back])
@pytest.mark.parametrize("name", STUCK)
async def test_a_cancelled_task_closes_its_connection(ask: Any, name: str) -> None:
    """`task.cancel()` works in every phase of an answer, and leaves a client that works."""
    with Loopback(STUCK[name], hello) as server:
        async with alm(server.url) as client:
            task = asyncio.create_task(ask(client))
            while not server.requests:  # noqa: ASYNC110  # filled by a thread
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.03)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await left(server.connection())
            assert (await client.chat().user("Hi").send()).content == "Hello."
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def end_once_asked(server: Loopback, limit: asyncio.Timeout) -> None:
    """Let the time be over when the server has the request."""
    await asyncio.to_thread(server.wait_requests, 1)
    limit.reschedule(0.0)


@pytest.mark.parametrize("ask", [send, stream_it])
async def test_a_timeout_block_closes_the_connection(ask: Any) -> None:
    """`asyncio.timeout` of the caller's own is the caller's `TimeoutError`, and no error of ours."""
    with Loopback([HANG], hello) as server:
        async with alm(server.url) as client:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(PATIENCE) as limit:
                    await asyncio.gather(ask(client), end_once_asked(server, limit))
            assert not isinstance(caught.value, LMStudioError)
            await left(server.connection())
            assert (await client.chat().user("Hi").send()).content == "Hello."


async def test_cancelling_a_task_that_has_not_connected() -> None:
    """A request that waits for its turn to be retried ends at once, too."""
    with Loopback([SSE_HEAD, HANG]) as server:
        url = server.url
    async with alm(url, retry_attempts=5, retry_delay=5.0) as client:
        task = asyncio.create_task(send(client))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def leave_async_break(client: AsyncLMStudio) -> None:
    async with client.chat().user("Sing").stream() as stream:
        async for _ in stream:
            break


async def leave_async_bare(client: AsyncLMStudio) -> None:
    async for _ in client.chat().user("Sing").stream():
        break


async def leave_async_text(client: AsyncLMStudio) -> None:
    async for _ in client.chat().user("Sing").stream().text():
        break


async def leave_async_error(client: AsyncLMStudio) -> None:
    with contextlib.suppress(LookupError):
        async with client.chat().user("Sing").stream() as stream:
            async for _ in stream:
                raise LookupError


async def leave_async_close(client: AsyncLMStudio) -> None:
    stream = client.chat().user("Sing").stream()
    await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize(
    "leave", [leave_async_break, leave_async_bare, leave_async_text, leave_async_error, leave_async_close]
)
async def test_leaving_an_async_stream_closes_its_connection(leave: Any) -> None:
    """The async stream is left in as many ways, and all of them end the generation."""
    with Loopback(endless, hello) as server:
        async with alm(server.url) as client:
            await leave(client)
            await left(server.connection())
            assert (await client.chat().user("Hi").send()).content == "Hello."


async def test_closing_from_another_task_wakes_the_reader() -> None:
    """A task that waits in a silent stream gets an error at once when another one closes it."""
    with Loopback(FIRST_WORD, hello) as server:
        async with alm(server.url) as client:
            stream = client.chat().user("Hi").stream()
            await anext(stream)
            reader = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            await stream.aclose()
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(LMStudioError):
                    await reader
            await left(server.connection())
            assert (await client.chat().user("Hi").send()).content == "Hello."


@pytest.mark.parametrize("how", ["read", "enter"])
@pytest.mark.parametrize("name", ["before-head", "in-head", "after-head"])
async def test_closing_from_another_task_takes_effect_before_the_first_chunk(name: str, how: str) -> None:
    """The reader gets an error, its task goes on, and the server sees it leave; a real cancellation stays one."""
    with Loopback(STUCK[name], STUCK[name], hello) as server:
        async with alm(server.url, max_concurrency=2) as client:
            stream = client.chat().user("Hi").stream()
            reader = asyncio.ensure_future(anext(stream) if how == "read" else stream.__aenter__())
            await asyncio.to_thread(server.wait_requests, 1)
            await stream.aclose()
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(IncompleteStreamError):
                    await reader
            await left(server.connection())
            cancelled = asyncio.ensure_future(anext(client.chat().user("Hi").stream()))
            await asyncio.to_thread(server.wait_requests, 2)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert (await client.chat().user("Hi").send()).content == "Hello."


def test_a_collected_stream_closes_its_connection() -> None:
    """A stream that lies in a cycle is closed with it."""
    with Loopback(endless) as server, lm(server.url) as client:
        stream = client.chat().user("Sing").stream()
        next(stream)
        stream.itself = stream  # type: ignore[attr-defined]
        del stream
        assert not server.connection().has_left.wait(0.05)
        gc.collect()
        server.connection().wait_left()


SCRIPT = """
import asyncio, signal, sys
from lmdeck import AsyncLMStudio, LMStudio

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

settings = {settings}

def sync(is_streamed):
    with LMStudio(**settings) as lm:
        chat = lm.chat().user("Hi")
        try:
            for said in chat.stream() if is_streamed else [chat.send()]:
                print(said.content)
        except KeyboardInterrupt:
            print(chat.send().content)

async def stream():
    async with AsyncLMStudio(**settings) as lm:
        async for _ in lm.chat().user("Hi").stream():
            pass

if sys.argv[1] == "async":
    try:
        asyncio.run(stream())
    except KeyboardInterrupt:
        sync(False)
else:
    sync(sys.argv[1] == "stream")
"""


@pytest.mark.parametrize(
    ("how", "name"),
    [("send", "before-head"), ("stream", "before-head"), ("stream", "mid-stream"), ("async", "mid-stream")],
)
def test_ctrl_c_ends_a_blocked_call(how: str, name: str) -> None:
    """Ctrl-C arrives while a call is blocked, closes the connection, and leaves a client that works."""
    with Loopback(STUCK[name], hello) as server:
        script = SCRIPT.replace("{settings}", repr({"base_url": server.url, **SETTINGS}))
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            server.wait_requests(1)
            time.sleep(0.1)
            child.send_signal(signal.SIGINT)
            server.connection().wait_left()
            out, err = child.communicate(timeout=PATIENCE)
    assert (out.split("\n")[-2:], err, child.returncode) == (["Hello.", ""], "", 0)


LEFT = """
import asyncio, sys
from lmdeck import AsyncLMStudio

async def main():
    chat = AsyncLMStudio(base_url=sys.argv[1], model="m").chat().user("x")
    async for _ in chat.run_stream() if sys.argv[2] == "run" else chat.stream():
        break

asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["stream", "run"])
def test_a_left_loop_of_a_client_that_is_never_closed_says_nothing(what: str) -> None:
    """Their connection is closed at the end of the event loop, in Python's development mode, too."""
    with Loopback(lambda _: FIRST_WORD) as server:
        command = [sys.executable, "-X", "dev", "-c", LEFT, server.url, what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
        assert (done.returncode, [line for line in done.stderr.splitlines() if "seconds" not in line]) == (0, [])
