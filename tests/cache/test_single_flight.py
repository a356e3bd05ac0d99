"""Equal requests at the same time: one is sent, and all get its answer while it arrives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asking import Way, alm, lm, until
from lmdeck import LMStudio, LMStudioError, Reply, ServerError
from lmdeck.cache import Cache
from lmdeck.testing import FakeLMStudio
from loopback import DONE, PATIENCE, RESET, SSE_HEAD, Loopback, Request, Step, chunk, http_chunks, json_answer

CHAT = "/v1/chat/completions"
LIST = {"GET /api/v1/models": json_answer({"models": [{"type": "llm", "key": "m"}]})}


class Paced:
    """A stream whose pieces are sent when the test says so; each request gets the same."""

    def __init__(self, *pieces: bytes | Any) -> None:
        self.pieces = pieces
        self.may_send = [threading.Event() for _ in pieces]

    def __call__(self, request: Request) -> Iterator[Step]:
        yield SSE_HEAD
        for piece, event in zip(self.pieces, self.may_send, strict=True):
            assert event.wait(PATIENCE)
            yield http_chunks(piece, last=piece == DONE) if isinstance(piece, bytes) else piece

    def send(self, count: int) -> None:
        """Let the first pieces go out."""
        for event in self.may_send[:count]:
            event.set()


def server(paced: Paced) -> Loopback:
    return Loopback(routes={**LIST, f"POST {CHAT}": paced})


def asked(loopback: Loopback) -> int:
    return sum(request.path == CHAT for request in loopback.requests)


def waiting(cache: Cache) -> Callable[[], int]:
    """Return what counts the requests that read the one answer on its way."""

    def count() -> int:
        bodies = [flight.body for flight in list(cache.flights._flights.values())]
        return sum(body._readers for body in bodies if body is not None)

    return count


def greeting() -> Paced:
    return Paced(chunk("Hel"), chunk("lo."), chunk(finish="stop"), DONE)


async def test_a_thousand_equal_requests_are_one_for_the_server(fake: FakeLMStudio) -> None:
    """Tasks of one loop: one request, a thousand right answers."""
    fake.reply("Hello.")
    async with alm(fake.base_url, cache="memory:") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        replies = await asyncio.gather(*(chat.send() for _ in range(1000)))
    assert {reply.content for reply in replies} == {"Hello."}
    assert sum(request.wants_answer for request in fake.requests) == 1
    assert [reply.cache for reply in replies].count("miss") == 1


def test_threads_share_one_request(fake: FakeLMStudio) -> None:
    """Two hundred threads send one request, whole or streamed."""
    fake.at(CHAT).reply("Hello.")
    start = threading.Barrier(200, timeout=PATIENCE)

    def ask(number: int) -> Reply:
        start.wait()
        return chat.stream().until_done() if number % 2 else chat.send()

    with lm(fake.base_url, cache="memory:") as client, ThreadPoolExecutor(200) as pool:
        chat = client.chat().user("Hi").with_options(temperature=0)
        replies = list(pool.map(ask, range(200)))
    assert {reply.content for reply in replies} == {"Hello."}
    assert sum(request.wants_answer for request in fake.requests) == 2


def test_a_follower_reads_the_stream_while_it_arrives() -> None:
    """A follower in a thread gets what has arrived at once, then each piece as it comes."""
    paced = greeting()
    with server(paced) as loopback, lm(loopback.url, cache="memory:") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        paced.send(1)
        with chat.stream() as leader, chat.stream() as follower:
            assert (next(leader).content, next(follower).content) == ("Hel", "Hel")
            paced.send(2)
            assert (next(follower).content, next(leader).content) == ("lo.", "lo.")
            paced.send(4)
            assert follower.until_done().content == "Hello."
            assert leader.until_done().content == "Hello."
            assert (leader.reply.cache, follower.reply.cache) == ("miss", "shared")
            assert leader.reply.raw == follower.reply.raw
        assert chat.stream().until_done().cache == "hit"
        assert asked(loopback) == 1


async def test_a_follower_reads_the_stream_while_it_arrives_in_tasks() -> None:
    paced = greeting()
    with server(paced) as loopback:
        async with alm(loopback.url, cache="memory:") as client:
            chat = client.chat().user("Hi").with_options(temperature=0)
            paced.send(1)
            async with chat.stream() as leader, chat.stream() as follower:
                assert ((await anext(leader)).content, (await anext(follower)).content) == ("Hel", "Hel")
                nexts = [asyncio.ensure_future(anext(stream)) for stream in (follower, leader)]
                await asyncio.sleep(0)
                paced.send(2)
                assert [(await one).content for one in nexts] == ["lo.", "lo."]
                paced.send(4)
                assert (await follower.until_done()).raw == (await leader.until_done()).raw
                assert (leader.reply.cache, follower.reply.cache) == ("miss", "shared")
            assert asked(loopback) == 1


def test_the_sender_of_a_shared_request_may_leave() -> None:
    """The others read on, on the same connection, and the whole answer is kept; in threads."""
    paced = greeting()
    with server(paced) as loopback, lm(loopback.url, cache="memory:") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        paced.send(1)
        with chat.stream() as leader:
            next(leader)
            follower = chat.stream()
            assert next(follower).content == "Hel"
        paced.send(4)
        assert follower.until_done().content == "Hello."
        assert chat.stream().until_done().cache == "hit"
        assert asked(loopback) == 1


async def test_a_cancelled_sender_leaves_the_answer_to_the_others() -> None:
    """No byte is lost, even if the sender is cancelled while it waits for the next piece."""
    paced = greeting()
    cache = Cache.open("memory:")
    with server(paced) as loopback:
        async with alm(loopback.url, cache=cache) as client:
            chat = client.chat().user("Hi").with_options(temperature=0)
            paced.send(1)
            leading = asyncio.create_task(chat.stream().until_done())
            await asyncio.to_thread(until, lambda: waiting(cache)() == 1)
            following = [asyncio.create_task(chat.stream().until_done()) for _ in range(3)]
            await asyncio.to_thread(until, lambda: waiting(cache)() == 4)
            leading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leading
            paced.send(4)
            assert [reply.content for reply in await asyncio.gather(*following)] == ["Hello."] * 3
            assert asked(loopback) == 1


async def test_the_connection_is_closed_when_the_last_reader_leaves() -> None:
    """The server stops then."""
    paced = greeting()
    with server(paced) as loopback:
        async with alm(loopback.url, cache="memory:") as client:
            chat = client.chat().user("Hi").with_options(temperature=0)
            paced.send(1)
            async with chat.stream() as leader, chat.stream() as follower:
                await anext(leader)
                await anext(follower)
            paced.send(4)
            connection = next(loopback.connections[one.connection] for one in loopback.requests if one.path == CHAT)
            await asyncio.to_thread(connection.wait_left)


async def test_a_cancelled_sender_hands_on_before_the_answer(fake: FakeLMStudio) -> None:
    """Another one sends the request; it is no failure."""
    fake.at(CHAT).frames(30.0).reply("Hello.")
    async with alm(fake.base_url, cache="memory:") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        leading = asyncio.create_task(chat.send())
        await asyncio.to_thread(until, lambda: any(one.wants_answer for one in fake.requests))
        following = [asyncio.create_task(chat.send()) for _ in range(5)]
        await asyncio.sleep(0.01)
        leading.cancel()
        replies = await asyncio.gather(*following)
    assert [reply.content for reply in replies] == ["Hello."] * 5
    assert sum(request.wants_answer for request in fake.requests) == 2


async def test_a_failed_sender_hands_on(fake: FakeLMStudio) -> None:
    """It gets its error, and the others an answer."""
    fake.at(CHAT).error(500).reply("Hello.")
    async with alm(fake.base_url, cache="memory:") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        results = await asyncio.gather(*(chat.send() for _ in range(20)), return_exceptions=True)
    failed = [one for one in results if isinstance(one, BaseException)]
    assert [type(one) for one in failed] == [ServerError]
    assert {one.content for one in results if isinstance(one, Reply)} == {"Hello."}
    assert sum(request.wants_answer for request in fake.requests) == 2


async def test_followers_do_not_wait_for_repeated_failures(fake: FakeLMStudio) -> None:
    """Each sends its own request after two failed senders, so that all fail soon."""
    fake.at(CHAT).error(500)
    async with alm(fake.base_url, cache="memory:", max_concurrency=50) as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        results = await asyncio.gather(*(chat.send() for _ in range(30)), return_exceptions=True)
    assert {type(one) for one in results} == {ServerError}
    assert sum(request.wants_answer for request in fake.requests) == 30


@pytest.mark.parametrize(
    "last", [RESET, http_chunks(b'data: {"error": {"message": "broken"}}\n\n')], ids=["reset", "error"]
)
async def test_an_interrupted_answer_fails_for_all_readers(last: Step) -> None:
    """Each reader that has a part gets an error of its own with it; the next request is sent anew."""
    paced = Paced(chunk("Hel"), last)
    with server(paced) as loopback:
        async with alm(loopback.url, cache="memory:") as client:
            chat = client.chat().user("Hi").with_options(temperature=0)
            paced.send(1)
            async with chat.stream() as leader, chat.stream() as follower:
                await anext(leader)
                await anext(follower)
                paced.send(2)
                errors = []
                for stream in (leader, follower):
                    with pytest.raises(LMStudioError) as caught:
                        await stream.until_done()
                    errors.append(caught.value)
            assert errors[0] is not errors[1]
            assert errors[0].request_id != errors[1].request_id
            assert [error.partial and error.partial.content for error in errors] == ["Hel", "Hel"]
            with pytest.raises(LMStudioError):
                await chat.stream().until_done()
            assert asked(loopback) == 2


def test_a_waiting_follower_can_be_closed_from_another_thread() -> None:
    """It waits for a read of the sender, and ends with the stream."""
    paced = greeting()
    cache = Cache.open("memory:")
    with server(paced) as loopback, lm(loopback.url, cache=cache) as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        paced.send(1)
        errors: list[BaseException] = []

        def read(stream: Any) -> None:
            try:
                stream.until_done()
            except LMStudioError as error:
                errors.append(error)

        with chat.stream() as leader, chat.stream() as follower:
            threads = [threading.Thread(target=read, args=(one,)) for one in (leader, follower)]
            threads[0].start()
            until(lambda: any(flight.body and flight.body._is_reading for flight in cache.flights._flights.values()))
            threads[1].start()
            follower.close()
            threads[1].join(PATIENCE)
            assert not threads[1].is_alive()
            paced.send(4)
            threads[0].join(PATIENCE)
        assert len(errors) == 1
        assert leader.reply.content == "Hello."


def test_two_clients_share_a_cache(fake: FakeLMStudio, way: Way) -> None:
    """A sync and an async one, too: what the one got, the other has."""
    cache = Cache.open("memory:")
    fake.reply("Hello.")
    options = {"cache": cache}
    with lm(fake.base_url, **options) as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        assert (chat.stream().until_done() if way.is_streamed else chat.send()).cache == "miss"

    async def again() -> str | None:
        async with alm(fake.base_url, **options) as client:
            chat = client.chat().user("Hi").with_options(temperature=0)
            return (await (chat.stream().until_done() if way.is_streamed else chat.send())).cache

    if way.is_async:
        assert asyncio.run(again()) == "hit"
    else:
        with LMStudio(base_url=fake.base_url, model="m", cache=cache) as other:
            chat = other.chat().user("Hi").with_options(temperature=0)
            assert (chat.stream().until_done() if way.is_streamed else chat.send()).cache == "hit"
