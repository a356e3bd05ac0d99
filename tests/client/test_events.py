"""Events: who listens hears what happens, in order, and can break nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest

from asking import alm, lm, until
from bodies import chunk
from lmdeck import (
    ConfigurationError,
    ContentReceived,
    ModelLoadProgress,
    ReasoningReceived,
    RequestAbandoned,
    RequestFailed,
    RequestFinished,
    RequestRetried,
    RequestStarted,
    RoundFinished,
    ServerError,
    StreamEnded,
    StreamStarted,
    ToolCallFinished,
    ToolCallInvalid,
    ToolCallStarted,
    ToolExecutionFailed,
    ToolFinished,
    ToolStarted,
    tool,
)
from lmdeck.events import EVENTS
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE

CHAT = "/v1/chat/completions"
DOCS = Path(__file__).parents[2] / "docs"


def listen(client: Any) -> list[object]:
    seen: list[object] = []
    for kind in EVENTS:
        client.on(kind, seen.append)
    return seen


def names(seen: list[object]) -> list[str]:
    return [type(one).__name__ for one in seen]


@pytest.mark.parametrize("way", ["send", "stream"])
def test_a_chat_publishes_its_events(fake: FakeLMStudio, way: str) -> None:
    fake.when(lambda request: request.stream).frames(chunk("Hel"), chunk("lo.", "stop"))
    fake.when(lambda request: not request.stream).reply("Hello.")
    with lm(fake.base_url) as client:
        seen = listen(client)
        chat = client.chat().user("Hi")
        reply = chat.send() if way == "send" else chat.stream().until_done()
        again = names(seen)
    assert again[:2] == ["RequestStarted", "StreamStarted"]
    assert again[-2:] == ["StreamEnded", "RequestFinished"]
    assert "".join(one.text for one in seen if isinstance(one, ContentReceived)) == reply.content == "Hello."
    assert len({one.request_id for one in seen}) == 1  # type: ignore[attr-defined]
    started, finished = seen[0], seen[-1]
    assert isinstance(started, RequestStarted)
    assert (started.method, started.url) == ("POST", f"{fake.base_url}{CHAT}")
    assert isinstance(finished, RequestFinished)
    assert (finished.status, finished.attempts) == (200, 1)

    async def main() -> list[str]:
        async with alm(fake.base_url) as client:
            seen = listen(client)
            chat = client.chat().user("Hi")
            await (chat.send() if way == "send" else chat.stream().until_done())
            return names(seen)

    assert asyncio.run(main()) == again


def test_retries_and_failures_are_reported(fake: FakeLMStudio) -> None:
    fake.at(CHAT).error(500, "oops")
    with lm(fake.base_url, retry_attempts=3) as client:
        seen = listen(client)
        with pytest.raises(ServerError) as caught:
            client.chat().user("Hi").send()
    assert names(seen) == ["RequestStarted", "RequestRetried", "RequestRetried", "RequestFailed"]
    assert [one.attempt for one in seen if isinstance(one, RequestRetried)] == [1, 2]
    assert isinstance(seen[-1], RequestFailed)
    assert seen[-1].error is caught.value


def test_a_stream_that_is_cut_fails_aloud(fake: FakeLMStudio) -> None:
    fake.frames(chunk("Hel"), done=False)
    with lm(fake.base_url) as client:
        seen = listen(client)
        with pytest.raises(Exception, match="finish reason"):
            client.chat().user("Hi").stream().until_done()
    assert names(seen) == ["RequestStarted", "StreamStarted", "ContentReceived", "RequestFailed"]


def test_reasoning_and_calls_are_reported_as_they_are_written(fake: FakeLMStudio) -> None:
    text = '<think>Hm.</think><tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    fake.reply(text)
    with lm(fake.base_url) as client:
        seen = listen(client)
        client.chat().user("Hi").with_tools([{"name": "f"}]).stream().until_done()
    told = names(seen)
    assert told.index("ReasoningReceived") < told.index("ToolCallStarted") < told.index("ToolCallFinished")
    assert "".join(one.text for one in seen if isinstance(one, ReasoningReceived)) == "Hm."
    begun = next(one for one in seen if isinstance(one, ToolCallStarted))
    whole = next(one for one in seen if isinstance(one, ToolCallFinished))
    assert begun.name == whole.call.name == "f"
    assert begun.id == whole.call.id


def test_a_run_publishes_the_events_of_its_tools(fake: FakeLMStudio) -> None:
    @tool
    def works() -> str:
        return "ok"

    @tool
    def fails() -> None:
        raise ValueError

    fake.tool_calls([("works", {}), ("fails", {}), ("nothing", {})]).reply("Done.")
    with lm(fake.base_url) as client:
        seen = listen(client)
        client.chat().user("Hi").with_tools([works, fails]).run()
    kinds = {type(one) for one in seen}
    assert kinds >= {ToolStarted, ToolFinished, ToolExecutionFailed, ToolCallInvalid, RoundFinished, ToolCallFinished}
    assert [one.round for one in seen if isinstance(one, RoundFinished)] == [1, 2]


def test_a_handler_that_raises_breaks_nothing(hello: FakeLMStudio, caplog: pytest.LogCaptureFixture) -> None:
    def bad(_: object) -> None:
        raise RuntimeError("my own fault")

    after: list[object] = []
    with lm(hello.base_url) as client:
        client.on(RequestStarted, bad)
        client.on(RequestStarted, after.append)
        with caplog.at_level(logging.ERROR, logger="lmdeck.events"):
            assert client.chat().user("Hi").send().content == "Hello."
    assert "my own fault" in caplog.text
    assert len(after) == 1


def test_once_decorated_and_removed(hello: FakeLMStudio) -> None:
    first: list[object] = []
    every: list[object] = []
    within: list[object] = []
    with lm(hello.base_url) as client:
        client.on(StreamStarted, first.append, once=True)

        @client.on(StreamEnded)
        def ended(one: StreamEnded) -> None:
            every.append(one)

        chat = client.chat().user("Hi")
        with client.on(RequestStarted, within.append) as listening:
            chat.send()
        listening.remove()  # again, for nothing
        chat.send()
    assert (len(first), len(every), len(within)) == (1, 2, 1)
    assert callable(ended)


def test_async_handlers_run_in_the_async_client_alone(hello: FakeLMStudio, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    async def later(one: ContentReceived) -> None:
        await asyncio.sleep(0)
        heard.append(one.text)

    async def breaks(_: ContentReceived) -> None:
        raise RuntimeError("later fault")

    async def main() -> None:
        async with alm(hello.base_url) as client:
            client.on(ContentReceived, later)
            client.on(ContentReceived, breaks)
            await client.chat().user("Hi").stream().until_done()
            async with asyncio.timeout(PATIENCE):
                while "".join(heard) != "Hello." or "later fault" not in caplog.text:  # noqa: ASYNC110  # by other tasks
                    await asyncio.sleep(0.005)

    with caplog.at_level(logging.ERROR, logger="lmdeck.events"):
        asyncio.run(main())
    with lm(hello.base_url) as client, pytest.raises(ConfigurationError, match="AsyncLMStudio"):
        client.on(ContentReceived, later)
    with lm(hello.base_url) as client, pytest.raises(ConfigurationError, match="not an event type"):
        client.on(str, print)


def test_the_loading_of_a_model_is_reported(fake: FakeLMStudio) -> None:
    """`ensure_loaded` and the events of LM Studio's own chat both report the loading."""
    output = [{"type": "message", "content": "Hi."}]
    fake.at("/api/v1/models").body({"models": []})
    fake.at("/api/v1/models/load").body({"type": "llm", "instance_id": "m", "status": "loaded"})
    fake.frames(
        {"type": "model_load.progress", "model_instance_id": "m", "progress": 0.5},
        {"type": "model_load.progress", "model_instance_id": "m", "progress": 1.0},
        {"type": "chat.end", "result": {"model_instance_id": "m", "output": output}},
    )
    with lm(fake.base_url) as client:
        seen = listen(client)
        client.models.ensure_loaded("m")
        client.conversation("m").stream("Hi").until_done()
    told = [(one.model, one.progress) for one in seen if isinstance(one, ModelLoadProgress)]
    assert told == [("m", 0.0), ("m", 1.0), ("m", 0.5), ("m", 1.0)]


def test_the_table_of_events_is_current() -> None:
    spec = importlib.util.spec_from_file_location("_events", DOCS.parent / "scripts" / "event_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / "events.md").read_text(encoding="utf-8")
    assert module.page(text) == text, "run python scripts/event_table.py"


def test_the_end_of_a_request_reports_what_it_cost(fake: FakeLMStudio) -> None:
    """Model, endpoint, tokens and reply; a log of the event shows neither question nor answer."""
    fake.reply("My secret.")
    with lm(fake.base_url) as client:
        seen = listen(client)
        reply = client.chat().user("What is it?").stream().until_done()
    started, finished = seen[0], seen[-1]
    assert isinstance(started, RequestStarted)
    assert (started.endpoint, started.model) == (CHAT, "m")
    assert b"What is it?" in (started.body or b"")
    assert isinstance(finished, RequestFinished)
    assert (finished.endpoint, finished.usage, finished.finish_reason) == (CHAT, reply.usage, "stop")
    assert finished.reply is not None
    assert finished.reply.content == "My secret."
    assert (finished.problems, finished.cache) == (reply.problems, None)
    assert finished.time_to_first_token is not None
    assert "What is it?" not in repr(started)
    assert "My secret." not in repr(finished)
    assert "request_id=" in repr(started)


def test_embeddings_report_their_tokens(fake: FakeLMStudio) -> None:
    """An answer that is no chat has no reply, but its token counts."""
    with lm(fake.base_url) as client:
        seen = listen(client)
        vectors = client.embed("text")
    finished = seen[-1]
    assert isinstance(finished, RequestFinished)
    assert (finished.endpoint, finished.reply, finished.problems) == ("/v1/embeddings", None, ())
    assert finished.usage == vectors.usage is not None


def test_an_answer_that_is_left_is_reported(fake: FakeLMStudio) -> None:
    """The event is neither finished nor failed, so that a gauge of running requests falls."""
    fake.frames(chunk("one"), 30.0).frames(chunk("one"), 30.0)
    with lm(fake.base_url) as client:
        seen = listen(client)
        with client.chat().user("Hi").stream() as stream:
            next(stream)
        assert names(seen)[-1] == "RequestAbandoned"
        assert "RequestFinished" not in names(seen)
        left = seen[-1]
        assert isinstance(left, RequestAbandoned)
        assert (left.endpoint, left.model, left.chunks) == (CHAT, "m", 1)

    async def main() -> list[str]:
        async with alm(fake.base_url) as client:
            seen = listen(client)
            async with client.chat().user("Hi").stream() as stream:
                await anext(stream)
            return names(seen)

    assert asyncio.run(main())[-1] == "RequestAbandoned"


def test_a_cancelled_request_is_reported(fake: FakeLMStudio) -> None:
    """A request that is cancelled before its first chunk is reported as well."""
    fake.at(CHAT).frames(30.0)

    async def main() -> list[str]:
        async with alm(fake.base_url) as client:
            seen = listen(client)
            asking = asyncio.create_task(client.chat().user("Hi").send())
            await asyncio.to_thread(until, lambda: fake.requests)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            return names(seen)

    assert asyncio.run(main()) == ["RequestStarted", "RequestAbandoned"]
