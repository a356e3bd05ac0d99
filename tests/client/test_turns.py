"""How many answers are asked for at once, how that is found out, and who never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from msgspec import structs

from asking import alm, lm, until
from bodies import chunk
from lmdeck import AsyncLMStudio, LMStudio, LMStudioError, Reply, RequestQueued
from lmdeck.testing import FakeLMStudio, RawAnswer
from lmdeck.testing.fake_models import DEFAULT_MODEL
from loopback import PATIENCE, Loopback, Request, Step, hello, json_answer

LIST, CHAT = "/api/v1/models", "/v1/chat/completions"
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def listing(*parallel: int | None) -> RawAnswer:
    instances = [{"id": f"m:{at}", "config": {"parallel": each} if each else {}} for at, each in enumerate(parallel)]
    return RawAnswer.json({"models": [{"key": "m", "type": "llm", "loaded_instances": instances}]})


def ask_many(
    fake: FakeLMStudio, count: int, *, is_async: bool, seconds: float = 0.1, **settings: Any
) -> tuple[list[Reply], list[str]]:
    """Send that many requests at once, each of which takes some time; return the replies and the requested paths."""
    fake.at(CHAT).reply("Hi.", time_to_first_token=seconds)

    async def ask_all(url: str) -> list[Reply]:
        async with alm(url, **settings) as client:
            return list(await asyncio.gather(*(client.chat().user("x").send() for _ in range(count))))

    if is_async:
        replies = asyncio.run(ask_all(fake.base_url))
    else:
        replies = []
        with lm(fake.base_url, **settings) as client:
            threads = [
                threading.Thread(target=lambda: replies.append(client.chat().user("x").send())) for _ in range(count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
    return replies, [request.path for request in fake.requests]


@BOTH
@pytest.mark.parametrize(("parallel", "most"), [((1,), 1), ((2,), 2), ((2, 3, None), 3)])
def test_what_the_loaded_model_works_on_is_asked_once(
    fake: FakeLMStudio, parallel: tuple[Any, ...], most: int, is_async: bool
) -> None:
    """The client asks when a second request is made during the first answer, and before it admits a third."""
    fake.at(LIST).answer(listing(*parallel))
    replies, paths = ask_many(fake, 8, is_async=is_async)
    assert len(replies) == 8
    assert fake.most_at_once == most
    assert paths.count(LIST) == 1
    assert paths.count(CHAT) == 8


@BOTH
def test_a_list_that_comes_after_the_first_answer_is_asked_for_once(fake: FakeLMStudio, is_async: bool) -> None:
    """The requests that this answer lets go on wait for the list, too, which says how many may."""
    late = listing(2)
    fake.at(LIST).answer(structs.replace(late, steps=(0.3, *late.steps)))
    replies, paths = ask_many(fake, 8, is_async=is_async)
    assert (len(replies), paths.count(LIST)) == (8, 1)


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        listing(None),
        RawAnswer.json({"models": []}),
        RawAnswer.json({"error": "Unexpected endpoint or method. (GET /api/v1/models)"}),
        RawAnswer.json("no", status=503),
    ],
)
def test_an_lm_studio_that_does_not_tell_gets_four(fake: FakeLMStudio, answer: RawAnswer, is_async: bool) -> None:
    """Four is its own default; it is asked once all the same."""
    fake.at(LIST).answer(answer)
    replies, paths = ask_many(fake, 9, is_async=is_async, retry_attempts=3)
    assert (len(replies), fake.most_at_once, paths.count(LIST)) == (9, 4, 1)


@BOTH
@pytest.mark.parametrize(
    "answer", [RawAnswer.json({"detail": "Not Found"}, status=404), RawAnswer.json({"data": []}), RawAnswer.json([])]
)
def test_another_server_is_asked_for_everything_at_once(fake: FakeLMStudio, answer: RawAnswer, is_async: bool) -> None:
    """vLLM, llama.cpp, a gateway: those have queues of their own."""
    fake.at(LIST).answer(answer)
    replies, paths = ask_many(fake, 24, is_async=is_async, seconds=0.2)
    assert (len(replies), paths.count(LIST)) == (24, 1)
    assert fake.most_at_once > 4  # how many more depends on how fast they come


@BOTH
@pytest.mark.parametrize("settings", [{}, {"max_concurrency": 8}], ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["send", "stream"])
@pytest.mark.parametrize("clients", [1, 8], ids=["one client", "a client each"])
def test_a_model_that_is_not_loaded_is_asked_by_one_first(
    clients: int, stream: bool, settings: dict[str, Any], is_async: bool
) -> None:
    """LM Studio would load it once for each (bug #1751); after the first byte the others come at once."""
    loaded = threading.Event()

    def answer(request: Request) -> Iterator[Step]:
        if request.path == LIST:
            instances = [{"id": "m", "config": {"parallel": 8}}] if loaded.is_set() else []
            yield from json_answer({"models": [{"key": "m", "type": "llm", "loaded_instances": instances}]})
            return
        is_first = not loaded.is_set()
        if is_first:
            server.until(lambda: any(other.path == LIST for other in server.requests))
            yield 0.05  # in which the others would come
            at_first.append(sum(other.path != LIST for other in server.requests))
            loaded.set()
        yield from hello(request)

    at_first: list[int] = []
    with Loopback(answer) as server:
        replies = ask_all_at_once(server.url, 8, is_async=is_async, stream=stream, clients=clients, **settings)
    assert replies == ["Hello."] * 8
    assert at_first == [1]


@BOTH
def test_after_a_failure_the_next_one_goes_first(is_async: bool) -> None:
    """Nobody waits for an answer that will not come, and each still goes alone."""
    asked: list[int] = []

    def answer(request: Request) -> Iterator[Step]:
        if request.path == LIST:
            yield from json_answer({"models": [{"key": "m", "type": "llm", "loaded_instances": []}]})
            return
        asked.append(len(asked))
        if len(asked) == 1:
            server.until(lambda: any(other.path == LIST for other in server.requests))
        yield 0.03
        yield from json_answer({"error": {"message": "no"}}, 400) if len(asked) < 4 else hello(request)

    with Loopback(answer) as server:
        replies = ask_all_at_once(server.url, 6, is_async=is_async)
    assert sorted(replies) == ["Hello."] * 3 + ["InvalidRequestError"] * 3


def ask_all_at_once(
    url: str, count: int, *, is_async: bool, stream: bool = False, clients: int = 1, **settings: Any
) -> list[str]:
    """Return what each request of these clients got: the content, or the name of its error."""
    if is_async:

        async def ask_async(client: AsyncLMStudio) -> str:
            chat = client.chat().user("x")
            try:
                return (await (chat.stream().until_done() if stream else chat.send())).content
            except LMStudioError as error:
                return type(error).__name__

        async def main() -> list[str]:
            async with AsyncExitStack() as stack:
                made = [await stack.enter_async_context(alm(url, **settings)) for _ in range(clients)]
                return list(await asyncio.gather(*(ask_async(made[at % clients]) for at in range(count))))

        return asyncio.run(main())
    told: list[str] = []

    def ask(client: LMStudio) -> None:
        chat = client.chat().user("x")
        try:
            told.append((chat.stream().until_done() if stream else chat.send()).content)
        except LMStudioError as error:
            told.append(type(error).__name__)

    with ExitStack() as stack:
        made = [stack.enter_context(lm(url, **settings)) for _ in range(clients)]
        threads = [threading.Thread(target=ask, args=(made[at % clients],)) for at in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    return told


def test_a_sync_client_does_not_wait_for_its_own_thread() -> None:
    """A blocking call inside a coroutine stops the loop that another client's first request needs."""

    async def main(url: str) -> list[str]:
        async with alm(url) as first:
            asked = asyncio.create_task(first.chat().user("x").send())
            await asyncio.to_thread(server.until, lambda: any(each.path == CHAT for each in server.requests))
            with lm(url) as second:
                said = second.chat().user("x").send().content
            released.set()
            return [said, (await asked).content]

    def answer(request: Request) -> Iterator[Step]:
        if request.path == LIST:
            yield from json_answer({"models": [{"key": "m", "type": "llm", "loaded_instances": []}]})
            return
        if len([each for each in server.requests if each.path == CHAT]) == 1:
            released.wait(PATIENCE)
        yield from hello(request)

    released = threading.Event()
    with Loopback(answer) as server:
        assert asyncio.run(main(server.url)) == ["Hello."] * 2


@BOTH
def test_a_long_queue_is_logged_once(
    fake: FakeLMStudio, is_async: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names what limits the queue."""
    monkeypatch.setattr("lmdeck._pipeline.concurrency.PATIENCE", 0.01)
    replies, _ = ask_many(fake, 5, is_async=is_async, max_concurrency=1)
    assert len(replies) == 5
    told = [record.getMessage() for record in caplog.records if "queue" in record.getMessage()]
    assert len(told) == 1
    assert "at most 1 requests at once" in told[0]
    assert "max_concurrency" in told[0]


@BOTH
def test_a_server_that_never_answers_the_question_holds_nobody_up_for_long(
    fake: FakeLMStudio, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question is waited for two seconds at most, and here for less; the answers take longer."""
    monkeypatch.setattr("lmdeck._plans.session.PROBE_SECONDS", 0.2)
    fake.at(LIST).fail("hang")
    fake.at(CHAT).reply("Hi.", time_to_first_token=1.0)
    replies, _ = ask_many(fake, 6, is_async=is_async)
    assert (len(replies), fake.most_at_once) == (6, 4)


@BOTH
def test_one_after_the_other_costs_no_question(fake: FakeLMStudio, is_async: bool) -> None:
    """Sequential requests never look up the limit, whatever it is."""
    for _ in range(3):
        fake.reply("Hello.")

    async def ask(url: str) -> None:
        async with alm(url) as client:
            for _ in range(3):
                await client.chat().user("x").send()

    if is_async:
        asyncio.run(ask(fake.base_url))
    else:
        with lm(fake.base_url) as client:
            for _ in range(3):
                client.chat().user("x").send()
    assert [request.path for request in fake.requests] == [CHAT] * 3
    _, paths = ask_many(fake, 5, is_async=is_async, max_concurrency=2)
    assert (fake.most_at_once, paths.count(LIST)) == (2, 1)  # whether the model is loaded


def test_a_list_that_was_read_before_is_not_asked_for_again(fake: FakeLMStudio) -> None:
    """The choice of a model has it already."""
    fake.add_model("m", parallel=2)
    fake.remove_model(DEFAULT_MODEL)
    _, paths = ask_many(fake, 6, is_async=True, model=None)
    assert fake.most_at_once == 2
    assert paths.count(LIST) <= 6  # of choosing, at the start at once; none of them is for the queue
    fake.requests.clear()
    with lm(fake.base_url) as client:
        client.models.list()
        threads = [threading.Thread(target=lambda: client.chat().user("x").send()) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [request.path for request in fake.requests].count(LIST) == 1


@pytest.fixture
def slow(fake: FakeLMStudio) -> FakeLMStudio:
    """A fake that streams two words, the second of them after a while, and gives whole answers at once."""
    fake.when(lambda request: request.stream).frames(chunk("Hel"), 0.3, chunk("lo."), chunk(finish="stop"))
    fake.when(lambda request: not request.stream).reply("Hello.")
    return fake


def test_who_asks_in_the_middle_of_its_own_stream_does_not_wait_for_itself(slow: FakeLMStudio) -> None:
    """The request is admitted however small the limit is, since nobody else could free a slot."""
    with lm(slow.base_url, max_concurrency=1) as client:
        said = []
        with client.chat().user("Tell").stream() as stream:
            for piece in stream:
                if piece.content:
                    said.append(client.chat().user("What does that mean?").send().content)
    assert said == ["Hello.", "Hello."]


async def test_a_task_does_not_wait_for_itself_either(slow: FakeLMStudio) -> None:
    """Another task does, and has its turn afterwards."""
    order: list[str] = []
    async with alm(slow.base_url, max_concurrency=1) as client:

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


def test_another_thread_waits(slow: FakeLMStudio) -> None:
    """A thread that holds nothing is no exception; it is told how long it waited."""
    heard: list[RequestQueued] = []
    with lm(slow.base_url, max_concurrency=1) as client:
        client.on(RequestQueued, heard.append)
        asked = threading.Thread(target=lambda: client.chat().user("x").stream().until_done())
        with client.chat().user("x").stream() as stream:
            next(stream)
            asked.start()
            until(lambda: client_waiting(client) == 1)
        asked.join(PATIENCE)
        assert len(slow.requests) == 2
    (event,) = heard
    assert (event.seconds > 0, event.limit) == (True, 1)


def client_waiting(client: LMStudio) -> int:
    return client._session.semaphore.waiting


async def test_a_blocking_client_does_not_wait_for_a_task_of_its_own_thread(slow: FakeLMStudio) -> None:
    """The wait would never end, because that task could not go on meanwhile."""
    with lm(slow.base_url, max_concurrency=1) as client:

        async def ask() -> str:
            return client.chat().user("x").send().content

        with client.chat().user("Tell").stream() as stream:
            next(stream)
            assert await asyncio.create_task(ask()) == "Hello."
