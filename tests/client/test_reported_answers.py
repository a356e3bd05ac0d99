"""What a reply reports besides its text: another model, a missing call, a draft model; and the streams of other endpoints."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from asking import WAYS, Way, alm, lm
from bodies import chunk, completion
from lmdeck import (
    ConfigurationError,
    DraftTokens,
    EmptyReplyError,
    IncompleteStreamError,
    ServerError,
    ToolCallMissingError,
    ToolError,
)
from lmdeck._plans import session
from lmdeck.testing import FakeLMStudio

TOOL = {"name": "noop", "parameters": {"type": "object", "properties": {}}}
COMPLETION = {"id": "cmpl-1", "object": "text_completion", "model": "m"}


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio() as fake:
        yield fake


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("answered", "differs"),
    [
        ("other", True),
        ("m", False),
        ("lmstudio/M@q4_k_m", False),
        ("m:2", False),
        ("/models/m.gguf", False),
        ("", False),
    ],
)
def test_another_model_answered(fake: FakeLMStudio, way: Way, answered: str, differs: bool) -> None:
    """A variant, an instance and a path are no other model."""
    given = {"model": answered}
    _ = fake.frames(chunk("Hi", "stop", **given)) if way.is_streamed else fake.body(completion(**given))
    reply = way.ask(fake.base_url)
    assert [problem.code for problem in reply.problems] == ["model_differs"] * differs
    if differs:
        assert "other answered instead of m" in reply.problems[0].detail


def test_an_instance_may_have_any_name(fake: FakeLMStudio) -> None:
    """What the list says belongs together is one model."""
    entry = {"key": "qwen", "type": "llm", "loaded_instances": [{"id": "mine"}]}
    fake.at("/api/v1/models").body({"models": [entry]})
    fake.body(completion(model="qwen"))
    with lm(fake.base_url, model=None) as client:
        assert client.chat().user("Hi").send().problems == []


@pytest.mark.parametrize(
    ("more", "drafted"),
    [
        (
            {
                "stats": {
                    "tokens_per_second": 9.0,
                    "total_draft_tokens_count": 5,
                    "accepted_draft_tokens_count": 3,
                    "rejected_draft_tokens_count": 2,
                }
            },
            DraftTokens(total=5, accepted=3, rejected=2),
        ),
        ({"timings": {"draft_n": 5, "draft_n_accepted": 4}}, DraftTokens(total=5, accepted=4, rejected=1)),
        ({"stats": {"total_draft_tokens_count": 0}}, DraftTokens(total=0)),
        ({"stats": {"tokens_per_second": 9.0}}, None),
        ({}, None),
    ],
)
def test_a_draft_model_is_reported(fake: FakeLMStudio, more: dict[str, Any], drafted: DraftTokens | None) -> None:
    fake.body(completion(**more)).body({**COMPLETION, "choices": [{"text": "x", "finish_reason": "stop"}], **more})
    with lm(fake.base_url) as client:
        assert client.chat().user("Hi").send().stats.draft_tokens == drafted
        assert client.complete("Hi").stats.draft_tokens == drafted


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_answer_that_was_ended_early_is_no_answer(fake: FakeLMStudio, way: Way) -> None:
    """A model that somebody unloads in LM Studio; a plain completion keeps its text, too."""
    stats = {"stats": {"stop_reason": "modelUnloaded"}}
    fake.body(completion("One", **stats)).body(
        {**COMPLETION, "choices": [{"text": "x", "finish_reason": "stop"}], **stats}
    )
    error = way.fail(fake.base_url)
    with lm(fake.base_url) as client, pytest.raises(IncompleteStreamError, match="unloaded") as caught:
        client.complete("Hi")
    assert isinstance(error, IncompleteStreamError)
    assert [each.partial.content for each in (error, caught.value) if each.partial] == ["One", "x"]


@pytest.mark.parametrize("choice", ["required", "noop"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_call_that_was_demanded_and_did_not_come(fake: FakeLMStudio, choice: str, is_streamed: bool) -> None:
    """Told by `send`; with `strict` and in a run it is an error."""
    for _ in range(3):
        fake.reply("No call.")
    with lm(fake.base_url, model=None) as client:
        chat = client.chat().user("Hi").with_tools([TOOL]).with_tool_choice(choice)
        reply = chat.stream().until_done() if is_streamed else chat.send()
        assert [problem.code for problem in reply.problems if problem.code != "adjusted"] == ["tool_call_missing"]
        with pytest.raises(ToolCallMissingError) as caught:
            chat.with_strict().send()
        assert isinstance(caught.value, ToolError)
        assert caught.value.partial is not None
        assert caught.value.partial.content == "No call."
        with pytest.raises(ToolCallMissingError):
            chat.run()


def test_a_run_ends_with_a_text_behind_which_a_call_was_announced(fake: FakeLMStudio) -> None:
    """Some servers announce one behind every text (LocalAI #6218); an empty answer has lost its call."""
    announced = {"finish": "tool_calls"}
    fake.body(completion("Found.", **announced)).body(completion("", **announced)).body(completion("x", **announced))
    with lm(fake.base_url, model=None) as client:
        chat = client.chat("m").user("Hi").with_tools([TOOL])
        reply = chat.run()
        with pytest.raises(ToolCallMissingError):
            chat.run()
        with pytest.raises(ToolCallMissingError):
            chat.with_tool_choice("required").run()
    assert reply.content == "Found."
    assert [problem.code for problem in reply.problems] == ["tool_call_missing"]


def test_an_empty_answer_to_a_demand_is_an_error(fake: FakeLMStudio) -> None:
    """Empty for `send`, without the call for a run."""
    fake.fail("empty_reply").fail("empty_reply")
    with lm(fake.base_url, model=None) as client:
        chat = client.chat().user("Hi").with_tools([TOOL]).with_tool_choice("required")
        with pytest.raises(EmptyReplyError):
            chat.send()
        with pytest.raises(ToolCallMissingError):
            chat.run()


def test_only_who_asks_for_no_tokens_gets_an_empty_answer(fake: FakeLMStudio) -> None:
    """`max_tokens=0` processes the prompt alone; otherwise an empty answer is an error."""
    fake.fail("empty_reply").fail("empty_reply")
    with lm(fake.base_url, model=None) as client:
        chat = client.chat().user("Hi")
        assert chat.with_options(max_tokens=0).send().content == ""
        with pytest.raises(EmptyReplyError):
            chat.with_options(max_tokens=5).send()


def test_other_endpoints_miss_a_call_too(fake: FakeLMStudio) -> None:
    fake.reply("No call.").reply("No call.")
    tool = {"type": "function", **TOOL}
    anthropic = {"name": "noop", "input_schema": TOOL["parameters"]}
    with lm(fake.base_url, model=None) as client:
        replies = [
            client.responses.create(input="Hi", tools=[tool], tool_choice="required"),
            client.messages.create(messages=[{"role": "user", "content": "Hi"}], tools=[anthropic], tool_choice="any"),
        ]
    assert [[problem.code for problem in reply.problems] for reply in replies] == [["tool_call_missing"]] * 2


def test_a_parse_stream_is_left_like_any_stream(fake: FakeLMStudio) -> None:
    """It has the reply when it was read; leaving it early stops the answer."""
    fake.json({"value": [1, 2]}).reply('{"value": [1, 2, 3, 4]}', tokens_per_second=1)
    with lm(fake.base_url, model=None) as client:
        with client.chat().user("Count").parse_stream(list[int]) as stream:
            assert list(stream)[-1] == [1, 2]
        assert stream.value == [1, 2]
        assert stream.reply.finish_reason == "stop"
        with client.chat().user("Count").parse_stream(list[int]) as stream:
            pass
        with pytest.raises(IncompleteStreamError):
            _ = stream.reply
    fake.wait_until_idle()


def test_an_async_parse_stream_too(fake: FakeLMStudio) -> None:
    fake.json({"value": 3})

    async def ask() -> tuple[int, str]:
        async with alm(fake.base_url, model=None) as client, client.chat().user("Hi").parse_stream(int) as stream:
            async for _ in stream:
                continue
            return stream.value, stream.reply.content

    assert asyncio.run(ask())[0] == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_completion_is_streamed(fake: FakeLMStudio, is_async: bool) -> None:
    """Text as the model wrote it, with the figures at the end."""
    fake.reply(" def f():\n    return 1\n").reply("x")

    async def ask() -> tuple[list[str], Any]:
        async with alm(fake.base_url, model=None) as client:
            async with client.complete("code", stream=True, max_tokens=9) as stream:
                said = [chunk.content async for chunk in stream]
            assert (await client.complete("code")).text == "x"
            return said, stream.reply

    if is_async:
        said, reply = asyncio.run(ask())
    else:
        with lm(fake.base_url, model=None) as client:
            with client.complete("code", stream=True, max_tokens=9) as stream:
                said = [chunk.content for chunk in stream]
            reply = stream.reply
            assert client.complete("code").text == "x"
    assert "".join(said) == " def f():\n    return 1\n"
    assert reply.finish_reason == "stop"
    assert reply.usage is not None
    assert fake.requests[-2].body["max_tokens"] == 9


def test_a_streamed_completion_that_is_cut_is_an_error(fake: FakeLMStudio) -> None:
    fake.frames({**COMPLETION, "choices": [{"text": "half", "index": 0, "finish_reason": None}]}, done=False)
    with lm(fake.base_url) as client, pytest.raises(IncompleteStreamError) as caught:
        client.complete("x", stream=True).until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.content == "half"
    fake.error(500)
    with lm(fake.base_url, model=None) as client, pytest.raises(ServerError):
        client.complete("x", stream=True).until_done()


@pytest.mark.parametrize(
    ("model", "prompt"),
    [
        ("qwen2.5-coder-7b", "<|fim_prefix|>a{suffix}<|fim_suffix|>z<|fim_middle|>"),
        ("mistralai/codestral-22b", "[SUFFIX]z[PREFIX]a{suffix}"),
        ("codellama-7b", "<PRE> a{suffix} <SUF>z <MID>"),
    ],
)
def test_the_middle_is_filled_in_the_model_s_own_marks(fake: FakeLMStudio, model: str, prompt: str) -> None:
    fake.body({**COMPLETION, "model": model, "choices": [{"text": "m", "finish_reason": "stop"}]})
    with lm(fake.base_url, model=model) as client:
        assert client.complete("a{suffix}", suffix="z").text == "m"
        assert fake.requests[-1].body["prompt"] == prompt
        assert "suffix" not in fake.requests[-1].body
        with pytest.raises(ConfigurationError, match="fill-in-the-middle tokens"):
            client.complete("a", suffix="z", model="llama-3")


@pytest.mark.parametrize(("seconds", "has_speed"), [(0.0, False), (1.0, True)])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_that_arrives_at_once_has_no_speed(
    fake: FakeLMStudio, monkeypatch: pytest.MonkeyPatch, is_streamed: bool, seconds: float, has_speed: bool
) -> None:
    """Tokens divided by next to nothing would be a speed that no model has; `seconds` pass between two looks at the clock."""
    times = itertools.count(0.0, seconds)
    made = session.Session.__init__

    def make(self: session.Session, settings: Any, **seams: Any) -> None:
        made(self, settings, clock=lambda: next(times), **seams)

    monkeypatch.setattr(session.Session, "__init__", make)
    _ = fake.frames(chunk("One two", "stop")) if is_streamed else fake.body(completion(content="One two"))
    with lm(fake.base_url) as client:
        chat = client.chat().user("Hi")
        stats = (chat.stream().until_done() if is_streamed else chat.send()).stats
    assert (stats.tokens_per_second is not None) is has_speed
    assert stats.measured.total_time is not None
