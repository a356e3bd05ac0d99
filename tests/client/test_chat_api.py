"""The chat's ways to ask give the same replies, and a stream tells at each moment how far it has come."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asking import Way, alm, lm
from bodies import chunk, completion
from lmdeck import (
    Chat,
    Chunk,
    ConfigurationError,
    EndpointNotFoundError,
    IncompleteStreamError,
    InvalidRequestError,
    LMStudioError,
    Message,
    Reply,
    ToolCall,
)
from lmdeck.testing import Answer, FakeLMStudio, RawAnswer, SentRequest
from lmdeck.testing.scripted_answers import PlannedCall

USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


THOUGHTFUL = Answer(
    content=" Let me look. ",
    reasoning="Hm.",
    calls=(PlannedCall(id="call_1", name="get_weather", arguments='{"city": "Paris"}'),),
    prompt_tokens=7,
    completion_tokens=4,
)


def with_callback(url: str) -> Reply:
    with lm(url) as client:
        return client.chat().user("Hi").with_tools([TOOL]).stream(lambda _: None)


async def with_async_callback(url: str) -> Reply:
    async def wait(_: Chunk) -> None:
        await asyncio.sleep(0)

    async with alm(url) as client:
        return await client.chat().user("Hi").with_tools([TOOL]).stream(wait)


def with_send(url: str) -> Reply:
    with lm(url) as client:
        return client.chat().user("Hi").with_tools([TOOL]).send()


async def with_async_send(url: str) -> Reply:
    async with alm(url) as client:
        return await client.chat().user("Hi").with_tools([TOOL]).send()


def with_loop(url: str) -> Reply:
    with lm(url) as client, client.chat().user("Hi").with_tools([TOOL]).stream() as stream:
        assert "".join(said.content for said in stream).strip() == "Let me look."
        return stream.reply


async def with_async_loop(url: str) -> Reply:
    async with alm(url) as client, client.chat().user("Hi").with_tools([TOOL]).stream() as stream:
        assert "".join([said.content async for said in stream]).strip() == "Let me look."
        return stream.reply


@pytest.mark.parametrize(
    "ask", [with_send, with_async_send, with_loop, with_async_loop, with_callback, with_async_callback]
)
def test_every_way_gives_the_same_reply(fake: FakeLMStudio, ask: Callable[[str], Any]) -> None:
    """The reply is the same, whether streamed or not, sync or async, by loop or callback."""
    fake.answer(THOUGHTFUL)
    result = ask(fake.base_url)
    reply = result if isinstance(result, Reply) else asyncio.run(result)
    assert reply.content == "Let me look."
    assert reply.reasoning == "Hm."
    assert reply.tool_calls == [
        ToolCall(id="call_1", name="get_weather", arguments={"city": "Paris"}, raw_arguments='{"city": "Paris"}')
    ]
    assert (reply.finish_reason, reply.model) == ("tool_calls", "m")
    assert f'"id":"{reply.id}"'.encode() in (reply.raw if isinstance(reply.raw, bytes) else b"".join(reply.raw))
    assert reply.usage is not None
    assert reply.usage.to_dict() == USAGE
    assert not reply.problems


def test_the_reply_before_the_end_is_an_error(fake: FakeLMStudio) -> None:
    """A half answer is never taken for a whole one; `partial` is there for those who want it."""
    fake.frames(chunk("Hel"), 0.1, chunk("lo."), chunk(finish="stop"), done=False)
    with lm(fake.base_url) as client:
        stream = client.chat().user("Hi").stream()
        assert stream.partial == Reply()
        with pytest.raises(IncompleteStreamError):
            _ = stream.reply
        assert next(stream).content == "Hel"
        with pytest.raises(IncompleteStreamError) as caught:
            _ = stream.reply
        assert caught.value.partial == stream.partial
        assert stream.partial.content == "Hel"
        assert stream.partial.finish_reason == ""
        assert stream.until_done().content == "Hello."
        assert stream.reply is stream.reply
        assert stream.partial == stream.reply
        assert list(stream) == []


def test_text_gives_the_content_alone(fake: FakeLMStudio) -> None:
    """`text()` is the loop of those who only print."""
    fake.answer(THOUGHTFUL)
    with lm(fake.base_url) as client:
        stream = client.chat().user("Hi").with_tools([TOOL]).stream()
        assert "".join(stream.text()).strip() == "Let me look."
        assert stream.reply.reasoning == "Hm."


async def test_async_text_gives_the_content_alone(fake: FakeLMStudio) -> None:
    """The async client returns the content alone when it is awaited."""
    fake.answer(THOUGHTFUL)
    async with alm(fake.base_url) as client:
        stream = client.chat().user("Hi").with_tools([TOOL]).stream()
        assert "".join([text async for text in stream.text()]).strip() == "Let me look."
        assert stream.reply.reasoning == "Hm."


def test_chunks_come_as_they_are_sent(fake: FakeLMStudio) -> None:
    """A chunk is handed on when it arrives, and not when the answer ends."""
    fake.frames(chunk("Hel"), 60)
    with lm(fake.base_url) as client, client.chat().user("Hi").stream() as stream:
        assert next(stream).content == "Hel"


def test_nothing_is_sent_before_the_stream_is_read(hello: FakeLMStudio) -> None:
    """Making a stream asks nothing yet; entering it does."""
    with lm(hello.base_url) as client:
        stream = client.chat().user("Hi").stream()
        assert not hello.open_connections
        with stream:
            assert len(hello.requests) == 1
            assert stream.until_done().content == "Hello."
        assert len(hello.requests) == 1


def test_a_chat_is_kept_and_branched(hello: FakeLMStudio) -> None:
    """Every call gives a new chat, and the old one stays what it was."""
    hello.add_model("one")
    hello.add_model("two")
    with lm(hello.base_url) as client:
        base = client.chat("one").with_system("Be brief.")
        before = base.messages
        left, right = base.user("Left"), base.user("Right").with_options(temperature=0.5).with_model("two")
        left.send()
        right.send()
        left.with_options(temperature=0.9, seed=None).send()
        base.with_system("Be long.").user("Up").send()
    sent = [request.body for request in hello.requests if request.wants_answer]
    assert base.messages == before == [{"role": "system", "content": "Be brief."}]
    assert [[message["content"] for message in body["messages"]] for body in sent] == [
        ["Be brief.", "Left"],
        ["Be brief.", "Right"],
        ["Be brief.", "Left"],
        ["Be long.", "Up"],
    ]
    assert [body["model"] for body in sent] == ["one", "two", "one", "one"]
    assert [body.get("temperature") for body in sent] == [None, 0.5, 0.9, None]
    assert all("seed" not in body for body in sent)


def test_a_chat_does_not_keep_the_callers_lists() -> None:
    """What the caller does with his list later changes no chat."""
    with lm("http://127.0.0.1:1") as client:
        messages: list[Message | dict[str, Any]] = [{"role": "user", "content": "Hi"}]
        chat = client.chat().with_messages(messages)
        messages.append({"role": "user", "content": "More"})
        chat.messages.append({"role": "user", "content": "Even more"})
        assert len(chat.messages) == 1


def test_a_conversation_goes_round(hello: FakeLMStudio) -> None:
    """The reply's message and a tool's result go back as they came."""
    call = ToolCall(id="call_1", name="get_weather", arguments={"city": "Paris"}, raw_arguments='{"city": "Paris"}')
    with lm(hello.base_url) as client:
        chat: Chat = client.chat().user("Weather?").assistant("", [call]).tool_result(call, "sunny").with_tools([TOOL])
        reply = chat.send()
        chat.with_messages([reply.message, {"role": "user", "content": "Thanks"}]).send()
        first, second = (request.body["messages"] for request in hello.requests)
    assert first[1]["tool_calls"][0]["id"] == first[2]["tool_call_id"]
    assert first[1]["content"] == ""
    assert second[:-2] == first
    assert [message["content"] for message in second[-2:]] == ["Hello.", "Thanks"]


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "data-uri"])
def test_images_reach_the_server(hello: FakeLMStudio, way: Way, tmp_path: Path, kind: str) -> None:
    """Paths, bytes and data URIs all go as the base64 data URI that LM Studio takes."""
    file, uri = tmp_path / "photo.png", "data:image/png;base64," + base64.b64encode(PNG).decode()
    file.write_bytes(PNG)
    image: Any = {"path": file, "text": str(file), "bytes": PNG, "data-uri": uri}[kind]
    if way.is_async:

        async def ask() -> None:
            async with alm(hello.base_url) as client:
                chat = client.chat().user("What is it?", images=[image])
                await (chat.stream().until_done() if way.is_streamed else chat.send())

        asyncio.run(ask())
    else:
        with lm(hello.base_url) as client:
            chat = client.chat().user("What is it?", images=[image])
            _ = chat.stream().until_done() if way.is_streamed else chat.send()
    text, part = hello.requests[0].body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert part == {"type": "image_url", "image_url": {"url": uri}}


def test_bad_images_are_reported_before_anything_is_sent() -> None:
    """What LM Studio would refuse is refused here, with a reason."""
    with lm("http://127.0.0.1:1") as client:
        with pytest.raises(ConfigurationError):
            client.chat().user("Look", images=[b"II*\x00 a TIFF"])
        with pytest.raises(ConfigurationError):
            client.chat().user("Look", images=["/no/such/photo.png"])
        with pytest.raises(InvalidRequestError):
            client.chat().user("Look", images=["https://example.com/cat.png"])


def test_what_was_adjusted_is_reported(hello: FakeLMStudio, way: Way) -> None:
    """A request that was changed for LM Studio's sake says so in the reply."""
    with lm(hello.base_url) as client:
        chat = client.chat().user("Hi").with_tools([{"name": "noop"}, TOOL]).with_tool_choice("noop")
        reply = chat.stream().until_done() if way.is_streamed else chat.send()
        body = hello.requests[0].body
    assert [problem.code for problem in reply.problems] == ["adjusted", "adjusted", "tool_call_missing"]
    assert body["tool_choice"] == "required"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["noop"]
    assert body["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.lmstudio(api_token="sk-lm-secret")
def test_the_token_and_the_names_are_sent(hello: FakeLMStudio, way: Way) -> None:
    """The server gets the token as it wants it, and an id that stands in our log."""
    way.ask(hello.base_url, api_token="sk-lm-secret")
    headers = hello.requests[0].headers
    assert "authorization" in headers  # and is the right one: LM Studio answered
    assert "x-api-key" not in headers
    assert headers["user-agent"].startswith("lmdeck/")
    assert headers["x-request-id"].startswith("req_")
    assert headers["content-type"] == "application/json"
    assert "cookie" not in headers


def test_no_token_no_header(hello: FakeLMStudio, way: Way) -> None:
    """Without a token nothing is said about one, and a server's cookies are not kept."""
    way.ask(hello.base_url)
    assert "authorization" not in hello.requests[0].headers


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/api/v1", "/api/v0", "/v1/chat/completions"])
@pytest.mark.parametrize("prefix", ["", "/proxy/lm"])
def test_every_form_of_base_url_works(fake: FakeLMStudio, prefix: str, tail: str) -> None:
    """The request goes to the one right path, whatever people paste."""
    fake.at(f"{prefix}/v1/chat/completions").body(completion("Hello."))
    with lm(f"{fake.base_url}{prefix}{tail}") as client:
        assert client.chat().user("Hi").send().content == "Hello."


def test_a_wrong_prefix_is_an_endpoint_not_found(fake: FakeLMStudio, way: Way) -> None:
    """LM Studio answers 200 to a path that it does not know; that is an error all the same."""
    with pytest.raises(EndpointNotFoundError) as caught:
        way.ask(f"{fake.base_url}/x")
    assert "base_url" in caught.value.hint


def test_an_empty_chat_is_reported_before_anything_is_sent(hello: FakeLMStudio, way: Way) -> None:
    """A chat without a message asks nothing."""
    with lm(hello.base_url) as client:
        with pytest.raises(ConfigurationError):
            _ = client.chat().stream().until_done() if way.is_streamed else client.chat().send()
        assert not hello.open_connections


def paced(request: SentRequest) -> RawAnswer:
    """Take 150 ms for the first word and half a second for the rest."""
    if request.stream:
        return RawAnswer.frames(0.15, chunk("Hel"), 0.5, chunk("lo."), chunk(finish="stop"))
    return RawAnswer((0.15, json.dumps(completion("Hello.")).encode()))


def test_times_are_measured_where_the_server_is_silent(fake: FakeLMStudio, way: Way) -> None:
    """The client's own clock measures what the server does not report."""
    fake.respond(paced)
    began = time.monotonic()
    stats = way.ask(fake.base_url).stats
    took = time.monotonic() - began
    assert stats.stop_reason is None
    assert stats.time_to_first_token is not None
    assert stats.generation_time is not None
    assert stats.tokens_per_second is not None
    assert 0.14 < stats.time_to_first_token < took
    assert 0 < stats.generation_time < took
    assert stats.measured.total_time is not None
    assert stats.measured.total_time > (0.64 if way.is_streamed else 0.14)
    if way.is_streamed:
        assert stats.measured.total_time == pytest.approx(stats.time_to_first_token + stats.generation_time)
        assert stats.tokens_per_second == pytest.approx(3 / stats.generation_time)
    else:
        assert stats.tokens_per_second == pytest.approx(2 / stats.generation_time)


def test_the_servers_figures_win(fake: FakeLMStudio, way: Way) -> None:
    """What LM Studio measured is what the reply says; the client's own figures stay beside it."""
    said = {"tokens_per_second": 51.5, "time_to_first_token": 0.125, "generation_time": 9.5, "stop_reason": "eosFound"}

    def answer(request: SentRequest) -> RawAnswer:
        if request.stream:
            return RawAnswer.frames(chunk("Hello."), chunk(finish="stop", stats=said))
        return RawAnswer.json(completion("Hello.", stats=said))

    fake.respond(answer)
    began = time.monotonic()
    stats = way.ask(fake.base_url).stats
    took = time.monotonic() - began
    assert (stats.tokens_per_second, stats.time_to_first_token, stats.generation_time) == (51.5, 0.125, 9.5)
    assert stats.stop_reason == "eosFound"
    assert stats.measured.total_time is not None
    assert stats.measured.total_time < took


def test_cookies_are_not_kept(fake: FakeLMStudio) -> None:
    """A server's cookies do not come back to it: the API has no sessions."""

    async def ask_twice(url: str) -> None:
        async with alm(url) as client:
            await client.chat().user("Hi").send()
            await client.chat().user("Hi").send()

    fake.when(lambda _: True).body(completion(), headers={"set-cookie": "session=1; Path=/"})
    asyncio.run(ask_twice(fake.base_url))
    with lm(fake.base_url) as client:
        client.chat().user("Hi").send()
        client.chat().user("Hi").send()
    assert all("cookie" not in request.headers for request in fake.requests)


def test_an_error_is_one_of_the_tree_and_a_builtin(way: Way) -> None:
    """Callers who know only Python's own exceptions catch ours, too."""
    with FakeLMStudio() as gone:
        url = gone.base_url
    with pytest.raises(ConnectionError) as caught:
        way.ask(url)
    assert isinstance(caught.value, LMStudioError)
