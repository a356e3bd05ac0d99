"""Handlers of the application around every request, written once for the sync and the async client."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from asking import Way
from lmdeck import (
    AsyncLMStudio,
    ConfigurationError,
    LMStudio,
    LMStudioError,
    RetryPolicy,
    ServerError,
    ToolRegistry,
    tool,
)
from lmdeck.handlers import Call, Handler, Plan, R, ResponseStream, StreamObserver
from lmdeck.testing import FakeLMStudio

EXAMPLE = Path(__file__).parents[2] / "examples" / "caching_handler.py"


@pytest.fixture
def cache() -> Any:
    """The documented example, with an empty memory."""
    return runpy.run_path(str(EXAMPLE))["Cache"]


def test_the_example_is_short_and_uses_public_names_only() -> None:
    """The two classes have at most sixty lines and use no name of lmdeck's with an underscore."""
    source = EXAMPLE.read_text(encoding="utf-8")
    assert source.count("\n") <= 60
    assert "lmdeck._" not in source
    assert "._" not in source


async def test_a_cache_answers_a_repeated_question(fake: FakeLMStudio, way: Way, cache: Any) -> None:
    """The server gets one request, and both answers are equal: whole and streamed, sync and async."""
    options = {"base_url": fake.base_url, "model": "m", "handlers": [cache]}
    fake.reply("Red.")
    with LMStudio(**options) as client:
        first = client.chat().user("A colour?").with_options(temperature=0)
        assert [first.send().content, first.send().content] == ["Red.", "Red."]
    fake.reply("Blue.")
    async with AsyncLMStudio(**options) as async_client:
        chat = async_client.chat().user("Another?").with_options(seed=1)
        streamed = []
        for _ in range(2):
            async with chat.stream() as stream:
                streamed.append("".join([chunk.content async for chunk in stream]))
            assert stream.reply.content == "Blue."
        assert streamed == ["Blue.", "Blue."]
    fake.assert_exhausted()


def test_handlers_stand_in_the_given_order_around_every_request(fake: FakeLMStudio) -> None:
    """The first is outermost; model lists go through them, too."""
    seen: list[str] = []

    def named(name: str) -> Any:
        def factory(inner: Handler) -> Handler:
            def handler(call: Call[R], /) -> Plan[ResponseStream[R]]:
                seen.append(f"{name} {call.request.method}")
                return (yield from inner(call))

            return handler

        return factory

    fake.reply("Hello.")
    with LMStudio(base_url=fake.base_url, handlers=[named("outer"), named("inner")]) as client:
        client.models.list()
        client.chat("m").user("Hi").send()
    assert seen == ["outer GET", "inner GET", "outer POST", "inner POST"]


def test_an_observer_follows_a_stream(fake: FakeLMStudio) -> None:
    """Bytes, chunks and the end; attached when the first chunk was there, it misses nothing."""
    data: list[bytes] = []
    text: list[str] = []
    ended: list[bool] = []

    class Watch(StreamObserver):
        def on_data(self, piece: bytes) -> None:
            data.append(piece)

        def on_chunks(self, chunks: Any) -> None:
            text.extend(chunk.content for chunk in chunks)

        def on_finished(self) -> None:
            ended.append(True)

    class Watched:
        def __init__(self, inner: Handler) -> None:
            self.inner = inner

        def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
            stream = yield from self.inner(call)
            stream.observe(Watch())
            return stream

    fake.reply("one two three")
    with (
        LMStudio(base_url=fake.base_url, model="m", handlers=[Watched]) as client,
        client.chat().user("x").stream() as s,
    ):
        assert s.until_done().content == "one two three"
    assert "".join(text) == "one two three"
    assert b"".join(data).startswith(b"data: ")
    assert ended == [True]


def test_an_observer_learns_of_a_broken_stream(fake: FakeLMStudio) -> None:
    """The observer is called once, with the error that the application gets."""
    errors: list[Exception] = []

    class Watched:
        def __init__(self, inner: Handler) -> None:
            self.inner = inner

        def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
            stream = yield from self.inner(call)
            observer = StreamObserver()
            observer.on_failed = errors.append  # type: ignore[method-assign]
            stream.observe(observer)
            return stream

    fake.fail("reset", reply="one two three four", after_chunks=2)
    with LMStudio(base_url=fake.base_url, model="m", handlers=[Watched]) as client:
        stream = client.chat().user("x").stream()
        with pytest.raises(LMStudioError) as caught:
            stream.until_done()
    assert errors == [caught.value]


def test_a_retry_policy_replaces_the_settings(fake: FakeLMStudio) -> None:
    """Five attempts without a wait."""
    for _ in range(4):
        fake.fail("server_error")
    fake.reply("At last.")
    with LMStudio(base_url=fake.base_url, model="m", retry=RetryPolicy(attempts=5, delay=0.0)) as client:
        assert client.chat().user("x").send().content == "At last."
    fake.fail("server_error")
    with (
        LMStudio(base_url=fake.base_url, model="m", retry=RetryPolicy(attempts=1)) as client,
        pytest.raises(ServerError),
    ):
        client.chat().user("x").send()


def test_clients_may_share_a_registry_of_tools(fake: FakeLMStudio) -> None:
    """A tool that one client registers is offered by the other."""

    @tool
    def add(a: int, b: int) -> int:
        return a + b

    registry = ToolRegistry()
    with (
        LMStudio(base_url=fake.base_url, tools=registry) as one,
        LMStudio(base_url=fake.base_url, tools=registry) as other,
    ):
        one.tools.add(add)
        assert other.chat("m").with_tools(["add"]).spec.handlers == (add,)


def test_headers_go_out_with_every_request(fake: FakeLMStudio) -> None:
    """Chats and lists send the client's headers alike."""
    fake.reply("Hello.")
    with LMStudio(base_url=fake.base_url, model="m", headers={"X-Team": "blue"}) as client:
        client.chat().user("x").send()
    assert fake.requests[-1].headers["x-team"] == "blue"


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"Authorization": "Bearer x"}, "set by lmdeck"),
        ({"authorization": "Bearer x"}, "set by lmdeck"),
        ({"Host": "evil"}, "set by lmdeck"),
        ({"X-A": "one\r\nX-B: two"}, "not one line"),
        ({"X-A": "\0"}, "not one line"),
        ({"X-A": "→"}, "Latin-1"),
        ({"X A": "1"}, "not a header name"),
        ({"": "1"}, "not a header name"),
    ],
)
def test_a_header_that_could_do_harm_is_refused(headers: dict[str, str], word: str) -> None:
    """It is refused before anything is sent, and the token's own header cannot be replaced by accident."""
    with pytest.raises(ConfigurationError, match=word):
        LMStudio(headers=headers)
