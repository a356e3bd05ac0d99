"""How many answers are asked for at once, how that is found out, and who never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from asking import alm, lm
from lmdeck import LMStudio, Reply, RequestQueued
from loopback import (
    DONE,
    HANG,
    SSE_HEAD,
    Answer,
    Loopback,
    Request,
    Step,
    chunk,
    completion,
    hello,
    http_chunks,
    json_answer,
)

LIST, CHAT = "/api/v1/models", "/v1/chat/completions"
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def listing(*parallel: int | None) -> Answer:
    instances = [{"id": f"m:{at}", "config": {"parallel": each} if each else {}} for at, each in enumerate(parallel)]
    return json_answer({"models": [{"key": "m", "type": "llm", "loaded_instances": instances}]})


class Counted:
    """A chat endpoint that knows how many it was answering at once at most."""

    def __init__(self, seconds: float = 0.03) -> None:
        self.running = self.most = 0
        self._seconds = seconds
        self._lock = threading.Lock()

    def __call__(self, _: Request) -> Iterator[Step]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        yield self._seconds
        with self._lock:
            self.running -= 1
        yield from json_answer(completion("Hi."))


def ask_many(count: int, routes: dict[str, Any], *, is_async: bool, **settings: Any) -> tuple[list[Reply], list[str]]:
    """Ask so often at once; give the replies and the paths that were asked for."""

    async def ask_all(url: str) -> list[Reply]:
        async with alm(url, **settings) as client:
            return list(await asyncio.gather(*(client.chat().user("x").send() for _ in range(count))))

    with Loopback(routes=routes) as server:
        if is_async:
            replies = asyncio.run(ask_all(server.url))
        else:
            replies = []
            with lm(server.url, **settings) as client:
                threads = [
                    threading.Thread(target=lambda: replies.append(client.chat().user("x").send()))
                    for _ in range(count)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(5)
        return replies, [request.path for request in server.requests]


@BOTH
@pytest.mark.parametrize(("parallel", "most"), [((1,), 1), ((2,), 2), ((2, 3, None), 3)])
def test_what_the_loaded_model_works_on_is_asked_once(parallel: tuple[Any, ...], most: int, is_async: bool) -> None:
    """When a second answer is wanted while the first is being written, and before a third is let in."""
    chat = Counted()
    replies, paths = ask_many(8, {LIST: listing(*parallel), CHAT: chat}, is_async=is_async)
    assert len(replies) == 8
    assert chat.most == most
    assert paths.count(LIST) == 1
    assert paths.count(CHAT) == 8


@BOTH
@pytest.mark.parametrize(
    "answer",
    [listing(None), listing(), json_answer({"models": []}), json_answer({"data": []}), json_answer("no", 503)],
)
def test_a_server_that_does_not_tell_gets_four(answer: Answer, is_async: bool) -> None:
    """Which is what LM Studio's own default is; it is asked once all the same."""
    chat = Counted()
    replies, paths = ask_many(9, {LIST: answer, CHAT: chat}, is_async=is_async, retry_attempts=3)
    assert (len(replies), chat.most, paths.count(LIST)) == (9, 4, 1)


@BOTH
def test_a_server_that_never_answers_the_question_holds_nobody_up_for_long(is_async: bool) -> None:
    """The question is waited for two seconds at most, and here for less."""
    chat = Counted(0.3)
    replies, _ = ask_many(6, {LIST: [HANG], CHAT: chat}, is_async=is_async, timeout=0.5, first_token_timeout=0.5)
    assert (len(replies), chat.most) == (6, 4)


@BOTH
def test_one_after_the_other_costs_no_question(is_async: bool) -> None:
    """Nor does a limit that was given."""

    async def ask(url: str) -> None:
        async with alm(url) as client:
            for _ in range(3):
                await client.chat().user("x").send()

    with Loopback(routes={CHAT: hello}) as server:
        if is_async:
            asyncio.run(ask(server.url))
        else:
            with lm(server.url) as client:
                for _ in range(3):
                    client.chat().user("x").send()
        assert [request.path for request in server.requests] == [CHAT] * 3
    chat = Counted()
    _, paths = ask_many(5, {LIST: listing(4), CHAT: chat}, is_async=is_async, max_concurrency=2)
    assert (chat.most, paths.count(LIST)) == (2, 0)


def test_a_list_that_was_read_before_is_not_asked_for_again() -> None:
    """The choice of a model has it already."""
    chat = Counted()
    _, paths = ask_many(6, {LIST: listing(2), CHAT: chat}, is_async=True, model=None)
    assert chat.most == 2
    assert paths.count(LIST) <= 6  # of choosing, at the start at once; none of them is for the queue
    with Loopback(routes={LIST: listing(2), CHAT: Counted()}) as server, lm(server.url) as client:
        client.models.list()
        threads = [threading.Thread(target=lambda: client.chat().user("x").send()) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert [request.path for request in server.requests].count(LIST) == 1


def test_who_asks_in_the_middle_of_its_own_stream_does_not_wait_for_itself() -> None:
    """However small the limit: nobody else could ever let it in."""
    with Loopback(routes={CHAT: slow_streams}) as server, lm(server.url, max_concurrency=1) as client:
        said = []
        with client.chat().user("Tell").stream() as stream:
            for piece in stream:
                if piece.content:
                    said.append(client.chat().user("What does that mean?").send().content)
    assert said == ["Hello.", "Hello."]


async def test_a_task_does_not_wait_for_itself_either() -> None:
    """Another task does, and has its turn afterwards."""
    order: list[str] = []
    with Loopback(routes={CHAT: slow_streams}) as server:
        async with alm(server.url, max_concurrency=1) as client:

            async def other() -> None:
                await client.chat().user("x").send()
                order.append("other")

            async with client.chat().user("Tell").stream() as stream:
                await anext(stream)
                waiting = asyncio.create_task(other())
                await asyncio.sleep(0.05)
                await client.chat().user("x").send()
                order.append("own")
            await waiting
    assert order == ["own", "other"]


def test_another_thread_waits() -> None:
    """A thread that holds nothing is no exception; it is told how long it waited."""
    heard: list[RequestQueued] = []
    with Loopback(routes={CHAT: slow_streams}) as server, lm(server.url, max_concurrency=1) as client:
        client.on(RequestQueued, heard.append)
        asked = threading.Thread(target=lambda: client.chat().user("x").stream().until_done())
        with client.chat().user("x").stream() as stream:
            next(stream)
            asked.start()
            Loopback.until(lambda: client_waiting(client) == 1)
        asked.join(5)
        assert len(server.requests) == 2
    (event,) = heard
    assert (event.seconds > 0, event.limit) == (True, 1)


def paced(_: Request) -> Iterator[Step]:
    """Stream two words, the second of them after a while."""
    yield SSE_HEAD
    yield http_chunks(chunk("Hel"), last=False)
    yield 0.3
    yield http_chunks(chunk("lo."), chunk(finish="stop"), DONE)


def slow_streams(request: Request) -> Any:
    return paced(request) if request.json["stream"] else hello(request)


def client_waiting(client: LMStudio) -> int:
    return client._session.gate.waiting
