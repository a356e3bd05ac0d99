"""What the cache answers, what it keeps, and what it never keeps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from asking import Way, alm, lm
from bodies import USAGE, chunk, completion
from lmdeck import (
    AsyncLMStudio,
    CacheMissError,
    ConfigurationError,
    LMStudio,
    LMStudioError,
    Reply,
    RequestFinished,
    RequestStarted,
)
from lmdeck.cache import Cache, MemoryStore
from lmdeck.testing import FakeLMStudio

ONCE = {"temperature": 0}


@pytest.fixture
def cache() -> Cache:
    return Cache.open("memory:")


def ask(way: Way, client: LMStudio | AsyncLMStudio, times: int = 1, cached: Any = None, **options: Any) -> list[Reply]:
    """Ask the same question some times, one after the other, and close the client."""
    if isinstance(client, LMStudio):
        with client:
            chat = client.chat("m").user("Hi").with_options(**options)
            chat = chat if cached is None else chat.cached(cached)
            return [chat.stream().until_done() if way.is_streamed else chat.send() for _ in range(times)]
    return asyncio.run(_ask_async(way, client, times, cached, options))


async def _ask_async(way: Way, client: AsyncLMStudio, times: int, cached: Any, options: Any) -> list[Reply]:
    async with client:
        chat = client.chat("m").user("Hi").with_options(**options)
        chat = chat if cached is None else chat.cached(cached)
        return [await (chat.stream().until_done() if way.is_streamed else chat.send()) for _ in range(times)]


def client(way: Way, fake: FakeLMStudio, cache: Any, **settings: Any) -> LMStudio | AsyncLMStudio:
    return (alm if way.is_async else lm)(fake.base_url, cache=cache, **settings)


def chats(fake: FakeLMStudio) -> int:
    return sum(request.wants_answer for request in fake.requests)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.0}, {"seed": 7, "temperature": 1.0}])
def test_a_repeated_question_is_answered_from_the_cache(
    fake: FakeLMStudio, way: Way, cache: Cache, options: dict[str, Any]
) -> None:
    """The same content, calls and tokens, and the same bytes, in each of the four ways."""
    fake.reasoning("Hm.").reply("Not this one.")
    first, second, third = ask(way, client(way, fake, cache), 3, **options)
    assert [one.cache for one in (first, second, third)] == ["miss", "hit", "hit"]
    assert second.raw == first.raw == third.raw
    assert (second.content, second.reasoning, second.usage, second.id) == (
        first.content, first.reasoning, first.usage, first.id,
    )  # fmt: skip
    assert chats(fake) == 1


def test_a_replayed_stream_has_the_chunks_of_the_first(fake: FakeLMStudio, cache: Cache) -> None:
    """Content, reasoning, tool calls and the finish reason, one by one."""
    fake.tool_call("f", a=1)
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_tools([{"name": "f"}]).with_options(**ONCE)
        first, second = list(chat.stream()), list(chat.stream())
    assert [(c.content, c.tool_call_delta, c.finish_reason) for c in first] == [
        (c.content, c.tool_call_delta, c.finish_reason) for c in second
    ]
    assert len(first) > 2


def test_complete_answers_and_streams_have_separate_entries(fake: FakeLMStudio, cache: Cache) -> None:
    """Each entry has its own wire format; a stream is not made from a whole answer."""
    fake.reply("one").reply("two")
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_options(**ONCE)
        assert (chat.send().content, chat.stream().until_done().content) == ("one", "two")
        assert (chat.send().content, chat.stream().until_done().content) == ("one", "two")


def test_a_client_without_a_cache_reports_none(fake: FakeLMStudio, way: Way) -> None:
    fake.reply("Hello.")
    assert way.ask(fake.base_url).cache is None


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}])
def test_requests_with_random_answers_are_not_cached(
    fake: FakeLMStudio, way: Way, cache: Cache, options: dict[str, Any]
) -> None:
    fake.reply("one").reply("two")
    first, second = ask(way, client(way, fake, cache), 2, **options)
    assert (first.content, second.content) == ("one", "two")
    assert (first.cache, second.cache) == (None, None)


def test_a_chat_may_ask_for_the_cache(fake: FakeLMStudio, way: Way, cache: Cache) -> None:
    """`cached(ttl)` stores an answer at any temperature."""
    fake.reply("one").reply("two")
    first, second = ask(way, client(way, fake, cache), 2, cached=60, temperature=0.9)
    assert (second.content, second.cache) == ("one", "hit")
    assert first.raw == second.raw


def test_a_chat_may_refuse_the_cache(fake: FakeLMStudio, way: Way, cache: Cache) -> None:
    """`cached(False)` neither uses nor fills it."""
    fake.reply("one").reply("two").reply("three").reply("four")
    assert [one.cache for one in ask(way, client(way, fake, cache), 2, cached=False, **ONCE)] == [None, None]
    assert ask(way, client(way, fake, cache), 1, **ONCE)[0].content == "three"


def test_an_answer_older_than_asked_for_is_not_used(
    fake: FakeLMStudio, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cached(ttl)` and the cache's own `ttl` limit the age; a new answer replaces the old one."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for text in ("one", "two", "three"):
        fake.reply(text)
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_options(**ONCE)
        assert chat.send().content == "one"
        now += 61
        assert chat.send().content == "one"
        assert chat.cached(60).send().content == "two"
        assert chat.cached(60).send().cache == "hit"
    cache.ttl = 30
    now += 31
    with lm(fake.base_url, cache=cache) as one:
        assert one.chat().user("Hi").with_options(**ONCE).send().content == "three"


@pytest.mark.parametrize("ttl", [0, -1, 0.5])
def test_a_time_to_live_is_at_least_a_second(fake: FakeLMStudio, ttl: float) -> None:
    with lm(fake.base_url) as one, pytest.raises(ConfigurationError, match="cached"):
        one.chat().cached(ttl)


def test_cache_control_headers_are_obeyed(fake: FakeLMStudio, way: Way, cache: Cache) -> None:
    """`no-cache` asks anew and keeps the answer, `no-store` keeps nothing, `only-if-cached` asks nobody."""
    for text in ("one", "two", "three"):
        fake.reply(text)

    def with_header(value: str) -> Reply:
        return ask(way, client(way, fake, cache, headers={"Cache-Control": value}), **ONCE)[0]

    with pytest.raises(CacheMissError) as caught:
        with_header("only-if-cached")
    assert caught.value.status == 504
    assert with_header("no-store").content == "one"
    assert with_header("no-cache").content == "two"
    assert (with_header("only-if-cached").content, with_header("max-age=60").cache) == ("two", "hit")
    assert with_header("max-age=0").content == "three"
    assert with_header("Max-Age = 60, no-transform").content == "three"


FAULTS = [
    "server_error",
    "channel_error",
    "reset",
    "cut",
    "early_end",
    "half_chunk",
    "bad_json",
    "empty_body",
    "empty_reply",
]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([chunk("Hel"), chunk(finish="length")], id="truncated"),
        pytest.param([{**chunk("Hello.", "stop"), "model": "another-model"}], id="another model"),
        pytest.param([chunk('<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>', "stop")], id="repaired"),
        pytest.param([chunk("<tool_call>{broken</tool_call>", "stop")], id="unreadable call"),
    ],
)
def test_answers_with_problems_are_not_kept(fake: FakeLMStudio, cache: Cache, frames: list[Any]) -> None:
    fake.when(lambda _: True).frames(*frames)
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_tools([{"name": "f"}]).with_options(**ONCE)
        replies = [chat.stream().until_done() for _ in range(2)]
    assert [one.cache for one in replies] == ["miss", "miss"]
    assert chats(fake) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_are_not_kept(fake: FakeLMStudio, way: Way, cache: Cache, fault: str) -> None:
    """The next request is sent again, whatever went wrong before."""
    fake.fail(fault)
    fake.reply("Hello.")
    failing = client(way, fake, cache)
    with pytest.raises(LMStudioError):
        ask(way, failing, **ONCE)
    assert ask(way, client(way, fake, cache), **ONCE)[0].content == "Hello."


def test_an_abandoned_stream_is_not_stored(fake: FakeLMStudio, cache: Cache) -> None:
    fake.frames(chunk("one"), 30.0).reply("whole")
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_options(**ONCE)
        with chat.stream() as stream:
            next(stream)
        assert chat.stream().until_done().content == "whole"


def test_embeddings_are_cached(fake: FakeLMStudio, cache: Cache) -> None:
    """Embeddings are always cached, since nothing in them is sampled."""
    with lm(fake.base_url, cache=cache, model=None) as one:
        assert one.embed(["a", "b"]).vectors == one.embed(["a", "b"]).vectors
        assert one.embed(["a"]).vectors
    assert chats(fake) == 2


def test_answers_that_the_server_stores_are_not_cached(fake: FakeLMStudio, cache: Cache) -> None:
    """A stored response has an id that later requests name; without `store` it can be cached, in its own wire format."""
    fake.when(lambda _: True).reply("Hello.")
    with lm(fake.base_url, cache=cache) as one:
        replies = [one.responses.create(input="Hi", temperature=0) for _ in range(2)]
        assert [reply.cache for reply in replies] == [None, None]
        replies = [one.responses.create(input="Hi", temperature=0, store=False) for _ in range(2)]
        assert [reply.cache for reply in replies] == ["miss", "hit"]
        messages = [
            one.messages.create(messages=[{"role": "user", "content": "Hi"}], max_tokens=9, temperature=0) for _ in "12"
        ]
        assert [reply.cache for reply in messages] == ["miss", "hit"]
        assert replies[1].raw == replies[0].raw


def test_another_quantization_is_not_answered_from_the_cache(fake: FakeLMStudio, cache: Cache) -> None:
    """An answer of a model that was replaced under the same name is not used."""
    listed = {"models": [{"type": "llm", "key": "m", "quantization": {"name": "Q4_K_M", "bits_per_weight": 4}}]}
    other = {"models": [{"type": "llm", "key": "m", "quantization": {"name": "Q8_0", "bits_per_weight": 8}}]}
    fake.reply("small").reply("large")
    fake.at("/api/v1/models").body(listed).body(other)
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_options(**ONCE)
        assert [chat.send().content for _ in range(2)] == ["small", "small"]
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_options(**ONCE)
        assert [chat.send().content for _ in range(2)] == ["large", "large"]


def test_an_answer_from_the_future_has_no_age(
    fake: FakeLMStudio, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock went back after it was stored: with a time to live it would be used for too long."""
    fake.reply("first").reply("second")
    now = time.time()
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").cached(60)
        with monkeypatch.context() as patch:
            patch.setattr("lmdeck.cache.handler.time.time", lambda: now + 86400)
            assert chat.send().content == "first"
        assert [chat.send().content for _ in range(2)] == ["second", "second"]


def test_the_cache_answers_while_the_server_is_unreachable(fake: FakeLMStudio, tmp_path: Path) -> None:
    """A new client answers from the file."""
    fake.reply("Hello.")
    settings: dict[str, Any] = {"cache": f"sqlite:///{tmp_path / 'answers.db'}"}
    with lm(fake.base_url, **settings) as one:
        one.chat().user("Hi").with_options(**ONCE).send()
    fake.close_port()
    with lm(fake.base_url, **settings) as one:
        assert one.chat().user("Hi").with_options(**ONCE).send().cache == "hit"


def test_events_report_a_cached_answer(fake: FakeLMStudio, cache: Cache) -> None:
    fake.reply("Hello.")
    results = []
    with lm(fake.base_url, cache=cache) as one:
        one.on(RequestFinished, lambda event: results.append((event.cache, event.usage is not None)))
        one.on(RequestStarted, lambda event: results.append(event.model))
        for _ in range(2):
            one.chat().user("Hi").with_options(**ONCE).send()
    assert results == ["m", ("miss", True), "m", ("hit", True)]


def test_a_run_answers_its_rounds_from_the_cache(fake: FakeLMStudio, way: Way, cache: Cache) -> None:
    """Each round is a request of its own; tools run again."""
    calls: list[str] = []

    def weather(city: str) -> str:
        """Return the weather."""
        calls.append(city)
        return "Sunny."

    fake.tool_call("weather", city="Paris").reply("It is sunny.")

    def run() -> Reply:
        with lm(fake.base_url, cache=cache) as one:
            return one.chat().user("Paris?").with_tools([weather]).with_options(**ONCE).run()

    assert (run().content, run().content) == ("It is sunny.", "It is sunny.")
    assert calls == ["Paris", "Paris"]
    assert chats(fake) == 2


def test_an_error_of_the_store_is_only_logged(fake: FakeLMStudio, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        def get(self, key: bytes) -> Any:
            raise OSError("disk on fire")

        put = get  # type: ignore[assignment]

    fake.reply("Hello.")
    assert ask(way, client(way, fake, Cache(Broken())), **ONCE)[0].content == "Hello."
    assert "disk on fire" in caplog.text


@pytest.mark.parametrize("url", ["mongodb://x", "s3:bucket"])
def test_an_unknown_scheme_of_a_cache_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown scheme"):
        LMStudio(cache=url)


def test_a_cached_answer_has_the_usage_of_the_first(fake: FakeLMStudio, cache: Cache) -> None:
    fake.when(lambda _: True).body(completion("Hello."))
    with lm(fake.base_url, cache=cache) as one:
        chat = one.chat().user("Hi").with_options(**ONCE)
        chat.send()
        hit = chat.send()
    assert hit.usage is not None
    assert hit.usage.prompt_tokens == USAGE["prompt_tokens"]
