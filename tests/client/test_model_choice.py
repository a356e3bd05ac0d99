"""Which model answers when none was named, what lists of models are read, and whether a server is well.

Servers of other products are no LM Studio, and so no fake of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from asking import SETTINGS, Way, alm, lm
from bodies import chunk, completion
from lmdeck import (
    AuthenticationError,
    EndpointNotFoundError,
    MalformedStreamError,
    ModelNotFoundError,
    NoModelLoadedError,
    ServerUnreachableError,
    ToolCallParseError,
)
from lmdeck._plans import session
from lmdeck._plans.known_models import CHOICE_SECONDS
from lmdeck.testing import FakeLMStudio, RawAnswer
from lmdeck.testing.fake_models import DEFAULT_MODEL
from loopback import Loopback, json_answer

CHAT = "/v1/chat/completions"
LISTS = ("/api/v1/models", "/api/v0/models", "/v1/models")
NOT_THERE = RawAnswer.json({"error": "Unexpected endpoint or method. (GET /api/v1/models)"})
NO_SUCH_PATH = RawAnswer((b"no such path",), 404, {"content-type": "text/plain"})
WEB_PAGE = RawAnswer((b"<html></html>",), 200, {"content-type": "text/html"})


def v1(*models: dict[str, Any]) -> RawAnswer:
    return RawAnswer.json({"models": list(models)})


def model(key: str, size: int = 1, *, loaded: str = "", kind: str = "llm") -> dict[str, Any]:
    instances = [{"id": loaded, "config": {"context_length": 4096}}] if loaded else []
    return {"key": key, "type": kind, "display_name": key, "size_bytes": size, "loaded_instances": instances}


V0 = RawAnswer.json({"data": [{"id": "old", "type": "llm", "state": "loaded"}, {"id": "other", "state": "not-loaded"}]})
V1_OPENAI = RawAnswer.json({"data": [{"id": "text-embed"}, {"id": "only", "owned_by": "organization_owner"}]})


def lists(fake: FakeLMStudio, given: dict[str, RawAnswer]) -> None:
    """Let these be the lists of models that there are."""
    for path in LISTS:
        fake.at(path).answer(given.get(path, NO_SUCH_PATH))


def asked(fake: FakeLMStudio, way: Way, **settings: Any) -> tuple[list[str], Any]:
    """Ask without a model's name; give the paths that were asked for, and the model that was named."""
    _ = fake.frames(chunk("Hello.", "stop")) if way.is_streamed else fake.body(completion())
    way.ask(fake.base_url, **{**SETTINGS, "model": None, **settings})
    return [request.path for request in fake.requests], fake.requests[-1].body.get("model")


EMBEDDER = model("embedder", kind="embedding", loaded="embedder")
CHOICES: dict[str, tuple[dict[str, RawAnswer], list[str], str | None]] = {
    "loaded": (
        {LISTS[0]: v1(EMBEDDER, model("small", 1), model("big", 9, loaded="big:2"))},
        [LISTS[0]],
        "big:2",
    ),
    "smallest": ({LISTS[0]: v1(EMBEDDER, model("big", 9), model("small", 2))}, [LISTS[0]], "small"),
    "v0": ({LISTS[0]: NOT_THERE, LISTS[1]: V0}, [*LISTS[:2]], "old"),
    "openai": ({LISTS[0]: NOT_THERE, LISTS[1]: NOT_THERE, LISTS[2]: V1_OPENAI}, [*LISTS], "only"),
    "openai-404": ({LISTS[2]: V1_OPENAI}, [*LISTS], "only"),
    "odd-v1": ({LISTS[0]: RawAnswer.json({"object": "list"}), LISTS[1]: V0}, [*LISTS[:2]], "old"),
    "no-list": ({}, [*LISTS], None),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_model_is_chosen(fake: FakeLMStudio, way: Way, name: str) -> None:
    """The loaded one, else the smallest; where there is no list the server chooses itself."""
    given, paths, chosen = CHOICES[name]
    lists(fake, given)
    assert asked(fake, way) == ([*paths, CHAT], chosen)


def test_no_chat_model_is_reported(fake: FakeLMStudio, way: Way) -> None:
    """A server with embedding models only says what to download."""
    fake.remove_model("m")
    fake.remove_model(DEFAULT_MODEL)
    with pytest.raises(NoModelLoadedError) as caught:
        way.ask(fake.base_url, **{**SETTINGS, "model": None})
    assert "lms get" in caught.value.hint


def test_a_named_model_asks_for_no_list(fake: FakeLMStudio, way: Way) -> None:
    """A request with a model's name costs one request."""
    assert asked(fake, way, model="mine") == ([CHAT], "mine")


def test_the_architecture_helps_to_read_calls_and_is_never_needed(fake: FakeLMStudio) -> None:
    """Inkling's calls begin with a bare name; without the list that name is text, and the call is found all the same."""
    text = 'look_up<|content_invoke_tool_json|>{"name": "look_up", "args": {"place": "Rome"}}<|end_message|>'
    fake.add_model("ink").architecture = "inkling"
    fake.remove_model("m")
    fake.remove_model(DEFAULT_MODEL)
    fake.reply(text).reply(text)
    tool = {"type": "function", "function": {"name": "look_up"}}
    for chosen, content in ((None, ""), ("ink", "look_up")):
        with lm(fake.base_url, model=chosen) as client:
            reply = client.chat().with_tools([tool]).user("Rome?").send()
        assert reply.content == content
        assert [call.arguments for call in reply.tool_calls] == [{"place": "Rome"}]


@pytest.mark.parametrize(
    "written", ['<tool_call>{"name": "f", "arguments": [</tool_call>', '<tool_call>{"name": "f", "argu']
)
def test_a_call_in_the_text_that_cannot_be_read_is_a_problem_or_with_strict_an_error(
    fake: FakeLMStudio, written: str
) -> None:
    fake.reply(written).reply(written)
    with lm(fake.base_url) as client:
        chat = client.chat().with_tools([{"type": "function", "function": {"name": "f"}}]).user("Hi")
        reply = chat.send()
        assert reply.tool_calls == []
        assert written in reply.content or written in reply.problems[-1].detail
        with pytest.raises(ToolCallParseError) as caught:
            chat.with_strict().send()
        assert caught.value.raw.startswith('<tool_call>{"name": "f"')


def test_a_choice_is_remembered_for_a_while(hello: FakeLMStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few requests look at the list, and none relies on an old one."""
    past = 0.0
    made = session.Session.__init__
    monkeypatch.setattr(
        session.Session, "__init__", lambda self, settings, **seams: made(self, settings, clock=lambda: past, **seams)
    )
    with lm(hello.base_url, model=None, timeout=100.0) as client:
        client.chat().user("Hi").send()
        client.chat().user("Hi").stream().until_done()
        past = CHOICE_SECONDS + 1
        client.chat().user("Hi").send()
    assert [request.path for request in hello.requests] == [LISTS[0], CHAT, CHAT, LISTS[0], CHAT]


async def test_a_model_that_vanished_is_chosen_anew(fake: FakeLMStudio) -> None:
    """A remembered model that the server no longer knows costs one more list, and no error."""
    fake.at(LISTS[0]).answer(v1(model("first", loaded="first"))).answer(v1(model("second", loaded="second")))
    fake.add_model("first")
    fake.add_model("second")
    fake.reply("Hello.").error(404, body={"error": {"message": "gone", "code": "model_not_found"}}).reply("Hello.")
    async with alm(fake.base_url, **{**SETTINGS, "model": None}) as client:
        for _ in range(2):
            assert (await client.chat().user("Hi").send()).content == "Hello."
    assert [request.path for request in fake.requests] == [LISTS[0], CHAT, CHAT, LISTS[0], CHAT]
    assert [request.body["model"] for request in fake.requests if request.body] == ["first", "first", "second"]


def test_a_named_model_that_is_not_there_is_an_error(fake: FakeLMStudio, way: Way) -> None:
    """Nobody who named a model is given another one."""
    error = {"message": 'Model "mine" not found. Your models:\n\na\nb', "code": "model_not_found"}
    fake.body({"error": error}, status=404)
    with pytest.raises(ModelNotFoundError) as caught:
        way.ask(fake.base_url, model="mine")
    assert caught.value.available == ["a", "b"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_models_are_listed(fake: FakeLMStudio, is_async: bool) -> None:
    """`list`, `loaded` and `get`, which knows a key and an instance's id."""
    fake.at(LISTS[0]).answer(v1(EMBEDDER, model("a"), model("b", loaded="b:2")))

    async def ask(url: str) -> tuple[list[str], list[str], str, str]:
        async with alm(url) as client:
            models = client.models
            return (
                [found.key for found in await models.list()],
                [found.key for found in await models.loaded()],
                (await models.get("a")).key,
                (await models.get("b:2")).key,
            )

    if is_async:
        result = asyncio.run(ask(fake.base_url))
    else:
        with lm(fake.base_url) as client:
            models = client.models
            keys = [[found.key for found in found_models] for found_models in (models.list(), models.loaded())]
            result = (*keys, models.get("a").key, models.get("b:2").key)
            with pytest.raises(ModelNotFoundError) as caught:
                models.get("c")
            assert caught.value.available == ["embedder", "a", "b"]
    assert result == (["embedder", "a", "b"], ["embedder", "b"], "a", "b")


def test_no_list_at_all_is_an_error(fake: FakeLMStudio) -> None:
    """A server without any list of models says so."""
    lists(fake, {})
    with lm(fake.base_url) as client, pytest.raises(EndpointNotFoundError):
        client.models.list()
    fake.reset()
    lists(fake, dict.fromkeys(LISTS, WEB_PAGE))
    with lm(fake.base_url) as client, pytest.raises(MalformedStreamError):
        client.models.list()


def health(is_async: bool, url: str, **settings: Any) -> Any:
    async def ask() -> Any:
        async with alm(url, **settings) as client:
            return await client.health()

    if is_async:
        return asyncio.run(ask())
    with lm(url, **settings) as client:
        return client.health()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_health(fake: FakeLMStudio, is_async: bool) -> None:
    """What answers, over which API, and what it has loaded."""
    fake.at(LISTS[0]).answer(v1(model("a"), model("b", loaded="b:2")))
    began = time.monotonic()
    well = health(is_async, fake.base_url)
    took = time.monotonic() - began
    assert (well.reachable, well.product, well.api, well.models_loaded) == (True, "LM Studio", "v1", ["b:2"])
    assert 0 < well.latency < took
    assert well.error is None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_health_of_other_servers(is_async: bool) -> None:
    """Another OpenAI-compatible server is named where its list tells, and is no error."""
    other = json_answer({"data": [{"id": "x", "owned_by": "vllm"}]})
    with Loopback(routes={LISTS[2]: other}) as server:
        assert health(is_async, server.url).product == "vLLM"
    unknown = json_answer({"data": []})
    with Loopback(routes={LISTS[2]: unknown}) as server:
        assert "OpenAI-compatible" in health(is_async, server.url).product


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_health_of_a_server_that_is_not_well(fake: FakeLMStudio, is_async: bool) -> None:
    """`health` raises nothing: it tells what keeps the server from answering."""
    fake.at(LISTS[0]).body({"error": {"message": "no", "code": "invalid_api_key"}}, status=401).fail("hang")
    refused = health(is_async, fake.base_url)
    assert refused.reachable
    assert isinstance(refused.error, AuthenticationError)
    assert not health(is_async, fake.base_url, timeout=0.15).reachable
    fake.reset()
    lists(fake, dict.fromkeys(LISTS, WEB_PAGE))
    web_page = health(is_async, fake.base_url)
    assert web_page.reachable
    assert isinstance(web_page.error, MalformedStreamError)
    url = fake.base_url
    fake.close()
    gone = health(is_async, url)
    assert not gone.reachable
    assert isinstance(gone.error, ServerUnreachableError)
    assert gone.latency is None


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("Paris is in France.\n</think>\n\nParis.", "Paris.", "Paris is in France."),
        ("Hm.</think>\nParis.", "Paris.", "Hm."),
        ("The tag `</think>` ends it.", "The tag `</think>` ends it.", ""),
        ("The tag </think> ends it.", "The tag </think> ends it.", ""),
        ("<think>Hm.</think>\nParis.", "Paris.", "Hm."),
        ("One\n</think>\nTwo\n</think>\nThree", "One\n</think>\nTwo\n</think>\nThree", ""),
    ],
)
@pytest.mark.parametrize("tools", [[], [{"name": "f"}]])
def test_a_whole_answer_shows_what_the_template_opened(
    fake: FakeLMStudio, text: str, content: str, reasoning: str, tools: Any
) -> None:
    """LM Studio bug tracker #1368: the answer has only the end tag."""
    fake.reply(text)
    with lm(fake.base_url) as client:
        reply = client.chat().with_tools(tools).user("Hi").send()
    assert (reply.content, reply.reasoning) == (content, reasoning)
