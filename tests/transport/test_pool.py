"""Connections are kept while they are good, and only then; a client is shared by threads, tasks and loops."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Self

import pytest

from asking import Way, alm, lm
from lmdeck import AsyncLMStudio, ConnectionLostError, LMStudio, LMStudioError
from lmdeck._transport import urllib3 as urllib3_transport
from lmdeck._transport.aiohttp import response as aiohttp_response
from lmdeck._transport.urllib3 import pools
from loopback import (
    CLOSE,
    DONE,
    HANG,
    PATIENCE,
    SSE_HEAD,
    Answer,
    Loopback,
    Request,
    Step,
    chunk,
    completion,
    events,
    head,
    hello,
    http_chunks,
    json_answer,
    text_answer,
)

ENDED = [chunk("Hello."), chunk(finish="stop"), DONE]
LATE_END = [SSE_HEAD, http_chunks(*ENDED, last=False), 0.05, b"0\r\n\r\n"]
NO_END = [SSE_HEAD, http_chunks(*ENDED, last=False), HANG]


class Shared:
    """A client of either kind that is asked several times, on one loop if it has one."""

    def __init__(self, way: Way, url: str, **settings: object) -> None:
        self._way = way
        self._runner = asyncio.Runner() if way.is_async else None
        self.client: LMStudio | AsyncLMStudio = alm(url, **settings) if way.is_async else lm(url, **settings)

    def ask(self) -> str:
        if isinstance(self.client, LMStudio):
            chat = self.client.chat().user("Hi")
            return (chat.stream().until_done() if self._way.is_streamed else chat.send()).content
        assert self._runner is not None
        return self._runner.run(self._ask(self.client))

    def rest(self, seconds: float) -> None:
        """Let time pass."""
        if self._runner is None:
            time.sleep(seconds)
        else:
            self._runner.run(asyncio.sleep(seconds))

    def close(self) -> None:
        if isinstance(self.client, LMStudio):
            self.client.close()
        else:
            assert self._runner is not None
            self._runner.run(self.client.aclose())
            self._runner.close()

    async def _ask(self, client: AsyncLMStudio) -> str:
        chat = client.chat().user("Hi")
        return (await (chat.stream().until_done() if self._way.is_streamed else chat.send())).content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_requests_in_turn_share_a_connection(way: Way) -> None:
    """A whole answer leaves its connection for the next request."""
    with Loopback(hello) as server, Shared(way, server.url) as shared:
        assert [shared.ask() for _ in range(5)] == ["Hello."] * 5
        assert len(server.connections) == 1


STREAM_ENDS: dict[str, tuple[Answer, int]] = {"late": (LATE_END, 1), "never": (NO_END, 3)}


@pytest.mark.parametrize("name", STREAM_ENDS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_answer_ends_with_its_end_mark(is_async: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `[DONE]` the framing has a moment to end; a connection on which it does not is not used again."""
    answer, connections = STREAM_ENDS[name]
    if name == "late":
        for module in (aiohttp_response, urllib3_transport):
            monkeypatch.setattr(module, "DRAIN_SECONDS", PATIENCE)
    way = Way(is_async, is_streamed=True)
    with Loopback(answer) as server, Shared(way, server.url) as shared:
        assert [shared.ask() for _ in range(3)] == ["Hello."] * 3
        assert len(server.connections) == connections


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_answer_that_drips_on_after_its_end_mark_is_over(is_async: bool) -> None:
    """What a server sends after `[DONE]` delays nobody for long."""

    def dripping(_: Request) -> Iterator[Step]:
        yield SSE_HEAD
        yield http_chunks(*ENDED, last=False) + b"0\r\n"
        while True:
            yield b"X-More: 1\r\n"
            yield 0.02

    way = Way(is_async, is_streamed=True)
    with Loopback(dripping, hello) as server, Shared(way, server.url) as shared:
        assert shared.ask() == "Hello."
        server.connection().wait_left()
        assert shared.ask() == "Hello."


def test_a_refusal_leaves_its_connection(way: Way) -> None:
    """An error that was read to its end costs no connection."""
    with Loopback(json_answer({"error": "no"}, 400), hello) as server, Shared(way, server.url) as shared:
        with pytest.raises(LMStudioError):
            shared.ask()
        assert shared.ask() == "Hello."
        assert len(server.connections) == 1


def test_an_idle_connection_is_dropped_before_the_server_does(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """LM Studio closes a connection that was idle for five seconds: after four it is not used any more."""
    past = 0.0

    def now() -> float:
        return time.monotonic() + past

    for module in (urllib3_transport, pools):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr("aiohttp.connector.monotonic", now)
    with Loopback(hello) as server, Shared(way, server.url) as shared:
        shared.ask()
        past = 3.5
        shared.ask()
        assert len(server.connections) == 1
        past = 3.5 + 4.5
        shared.ask()
        assert len(server.connections) == 2
        server.connection(0).wait_left()


SMUGGLED = text_answer(json.dumps(completion("smuggled")), content_type="application/json")[0]
LEFT_BEHIND = {
    "an answer": SMUGGLED,
    "half an answer": SMUGGLED[:30],
    "a byte": b"\r",
    "a line": b"\r\n",
    "an interim answer": head(103),
    "garbage": b"garbage\r\n\r\n",
    "no HTTP": b"\x00\xff",
}


@pytest.mark.parametrize("pause", [None, 0.0, 0.05], ids=["in one piece", "next", "later"])
@pytest.mark.parametrize("name", LEFT_BEHIND)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_bytes_that_no_request_asked_for_answer_none(is_async: bool, name: str, pause: float | None) -> None:
    """A connection on which more came than its answer is not used again, whenever that came."""

    def answer(request: Request) -> Iterator[Step]:
        own = json_answer(completion(f"answer {len(server.requests)}"))[0]
        assert isinstance(own, bytes)
        if pause is None:
            yield own + LEFT_BEHIND[name]
        else:
            yield own
            yield pause
            yield LEFT_BEHIND[name]
        sent.release()

    sent = threading.Semaphore(0)
    way = Way(is_async, is_streamed=False)
    with Loopback(answer) as server, Shared(way, server.url) as shared:
        for number in range(1, 5):
            assert shared.ask() == f"answer {number}"
            assert sent.acquire(timeout=PATIENCE)
            server.connection(len(server.connections) - 1).wait_received()
        is_blank = LEFT_BEHIND[name].isspace()  # and may precede an answer (RFC 9112, 2.2)
        if not (is_async and is_blank and not pause):
            assert len(server.connections) == 4


def test_a_connection_that_the_server_closed_is_not_used(way: Way) -> None:
    """A pooled connection that was closed at the other end costs no attempt."""

    def hello_and_close(request: Request) -> Iterator[Step]:
        yield from hello(request)
        yield CLOSE

    with Loopback(hello_and_close) as server, Shared(way, server.url) as shared:
        for _ in range(3):
            assert shared.ask() == "Hello."
            shared.rest(0.03)
        assert len(server.connections) == 3


def test_a_connection_that_closes_under_a_request_is_retried(way: Way) -> None:
    """Where the server closes in the very moment of the request, the request is sent again."""
    with Loopback(hello, [CLOSE], hello) as server, Shared(way, server.url, retry_attempts=2) as shared:
        assert [shared.ask(), shared.ask()] == ["Hello."] * 2
        assert [request.connection for request in server.requests] == [0, 0, 1]


def test_connection_close_is_honoured(way: Way) -> None:
    """A server that says `Connection: close` gets a new one."""

    def hello_once(request: Request) -> list[Step]:
        start, *rest = hello(request)
        assert isinstance(start, bytes)
        return [start.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), *rest, CLOSE]

    with Loopback(hello_once) as server, Shared(way, server.url) as shared:
        assert [shared.ask() for _ in range(3)] == ["Hello."] * 3
        assert len(server.connections) == 3


def test_a_large_request_after_a_stream_has_time() -> None:
    """The short limits of an answer's end are not those of the next request's beginning."""
    with Loopback(events(), hello) as server, lm(server.url) as client:
        client.chat().user("Hi").stream().until_done()
        server.connection().read_after = 0.5
        assert client.chat().user("x" * (24 << 20)).send().content == "Hello."
        assert len(server.connections) == 1


def test_many_threads_share_a_client() -> None:
    """Threads get their own answers, and connections are kept for the next ones."""

    def echo(request: Request) -> list[Step]:
        text = request.json["messages"][-1]["content"]
        return events(text) if request.json.get("stream") else json_answer(completion(text))

    with Loopback(routes={"/v1/chat/completions": echo}) as server, lm(server.url) as client:

        def ask(number: int) -> bool:
            chat = client.chat().user(f"This is {number}")
            reply = chat.stream().until_done() if number % 2 else chat.send()
            return reply.content == f"This is {number}"

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(ask, range(96)))
        assert sum(request.method == "POST" for request in server.requests) == 96
        assert len(server.connections) <= 12


async def test_many_tasks_share_a_client() -> None:
    """Tasks get their own answers."""

    def echo(request: Request) -> list[Step]:
        text = request.json["messages"][-1]["content"]
        return events(text) if request.json.get("stream") else json_answer(completion(text))

    with Loopback(routes={"/v1/chat/completions": echo}) as server:
        async with alm(server.url) as client:

            async def ask(number: int) -> str:
                chat = client.chat().user(f"This is {number}")
                return (await (chat.stream().until_done() if number % 2 else chat.send())).content

            replies = await asyncio.gather(*(ask(number) for number in range(48)))
        assert replies == [f"This is {number}" for number in range(48)]
        assert len(server.connections) <= 48


def test_an_async_client_serves_one_loop_after_another(caplog: pytest.LogCaptureFixture) -> None:
    """Two `asyncio.run` with one client, never closed: no warning, no log, and every connection ends with its loop."""
    with Loopback(hello) as server:
        client = alm(server.url)

        async def ask() -> str:
            asyncio.get_running_loop().slow_callback_duration = PATIENCE  # of which a debugged loop warns
            await client.chat().user("Hi").stream().until_done()
            return (await client.chat().user("Hi").send()).content

        for number in range(3):
            assert asyncio.run(ask(), debug=True) == "Hello."
            server.connection(number).wait_left()
        gc.collect()
        assert len(server.connections) == 3
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_unfinished_stream_ends_with_its_loop(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that ends in the middle of an answer takes the connection with it."""
    with Loopback([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG]) as server:
        client = alm(server.url)
        kept = []

        async def begin() -> None:
            stream = client.chat().user("Hi").stream()
            kept.append(stream)
            await anext(stream)

        asyncio.run(begin())
        server.connection().wait_left()
        kept.clear()
        gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_dropped_async_client_closes_its_connections(caplog: pytest.LogCaptureFixture) -> None:
    """A client that nobody closed goes quietly."""
    with Loopback(hello) as server:
        await alm(server.url).chat().user("Hi").send()
        gc.collect()
        async with asyncio.timeout(PATIENCE):
            while not server.connection().has_left.is_set():  # noqa: ASYNC110  # set by a thread
                await asyncio.sleep(0.002)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_dropped_client_closes_its_connections() -> None:
    """The sync client goes as quietly."""
    with Loopback(hello) as server:
        assert lm(server.url).chat().user("Hi").send().content == "Hello."
        gc.collect()
        server.connection().wait_left()


def test_an_error_that_is_kept_keeps_no_connection() -> None:
    """A closed client has closed its connections, also while an error's traceback still names them."""
    with Loopback(json_answer({"error": "no"}, 400)) as server:
        client = lm(server.url)
        with pytest.raises(LMStudioError) as caught:
            client.chat().user("Hi").send()
        client.close()
        server.connection().wait_left()
        assert caught.value.__traceback__ is not None


def test_a_large_body_is_sent(way: Way) -> None:
    """A request of several megabytes, as images make them, is sent whole and without a warning."""
    with Loopback(hello) as server:
        assert way.ask(server.url, text="ä" * (3 << 20)).content == "Hello."
        assert len(server.requests[0].json["messages"][0]["content"]) == 3 << 20


def test_an_early_refusal_of_a_large_body_is_reported(way: Way) -> None:
    """A server that refuses before it has read everything, and closes, is understood or at least told as lost."""
    refusal = text_answer('{"error": {"message": "too large"}}', 413)
    with Loopback(greeting=[0.05, *refusal, 0.05, CLOSE]) as server:
        error = way.fail(server.url, text="x" * (6 << 20))
    assert isinstance(error, ConnectionLostError) or "too large" in error.message


def test_the_pool_is_no_place_for_threads() -> None:
    """The sync client starts no thread of its own."""
    with Loopback(hello) as server, lm(server.url) as client:
        before = {thread.name for thread in threading.enumerate() if thread.name != "loopback"}
        client.chat().user("Hi").stream().until_done()
        assert {thread.name for thread in threading.enumerate() if thread.name != "loopback"} == before
