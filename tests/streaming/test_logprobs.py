"""How likely each token was, in every form that servers send it in."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from asking import WAYS, Way, alm, lm
from bodies import chunk, completion
from lmdeck import Chunk, Completion, Reply, TokenLogprob
from lmdeck.testing import FakeLMStudio, RawAnswer

HEL: dict[str, Any] = {
    "token": "Hel",
    "logprob": -0.1,
    "bytes": [72, 101, 108],
    "top_logprobs": [{"token": "Hel", "logprob": -0.1}],
}
LO: dict[str, Any] = {"token": "lo.", "logprob": -2, "bytes": None, "top_logprobs": []}
READ = [
    TokenLogprob(token="Hel", logprob=-0.1, bytes=b"Hel", top_logprobs=[TokenLogprob(token="Hel", logprob=-0.1)]),
    TokenLogprob(token="lo.", logprob=-2.0),
]  # fmt: skip


def likely(*entries: Any) -> dict[str, Any]:
    return {"content": list(entries)}


def streamed(*pairs: tuple[str | None, Any]) -> RawAnswer:
    """Stream pieces of text, each with its logprobs."""
    choices = [{"index": 0, "delta": {"content": text} if text else {}, "logprobs": given} for text, given in pairs]
    return RawAnswer.frames(*({**chunk(), "choices": [each]} for each in choices), chunk(finish="stop"))


def whole(given: Any) -> RawAnswer:
    body = completion("Hello.")
    body["choices"][0]["logprobs"] = given
    return RawAnswer.json(body)


def ask(fake: FakeLMStudio, way: Way, answer: RawAnswer, **options: Any) -> tuple[Reply, list[Chunk]]:
    """Ask for them, and give the reply and its chunks."""
    options = {"logprobs": True, **options}

    async def ask_async(url: str) -> tuple[Reply, list[Chunk]]:
        async with alm(url) as client:
            chat = client.chat().user("Hi").with_options(**options)
            if not way.is_streamed:
                return await chat.send(), []
            async with chat.stream() as stream:
                chunks = [each async for each in stream]
            return stream.reply, chunks

    fake.answer(answer)
    if way.is_async:
        return asyncio.run(ask_async(fake.base_url))
    with lm(fake.base_url) as client:
        chat = client.chat().user("Hi").with_options(**options)
        if not way.is_streamed:
            return chat.send(), []
        with chat.stream() as stream:
            chunks = list(stream)
        return stream.reply, chunks


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_they_are_typed(fake: FakeLMStudio, way: Way) -> None:
    """The reply has them, and so have the chunks that they came with."""
    answer = streamed(("Hel", likely(HEL)), ("lo.", likely(LO))) if way.is_streamed else whole(likely(HEL, LO))
    reply, chunks = ask(fake, way, answer, top_logprobs=1)
    assert reply.content == "Hello."
    assert reply.logprobs == READ
    assert reply.problems == []
    if way.is_streamed:
        assert [(each.content, list(each.logprobs)) for each in chunks if each.content] == [
            ("Hel", READ[:1]),
            ("lo.", READ[1:]),
        ]


def test_tokens_that_show_nothing_come_in_a_chunk_of_their_own(fake: FakeLMStudio) -> None:
    """Text that is held back, because it may begin a call, does not hold back its tokens."""
    reply, chunks = ask(fake, WAYS[1], streamed((None, likely(HEL)), ("Hello.", likely(LO))))
    assert [(each.content, len(each.logprobs)) for each in chunks] == [("", 1), ("Hello.", 1), ("", 0)]
    assert [each.token for each in reply.logprobs] == ["Hel", "lo."]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("given", [None, [], {}, {"content": None}, {"content": []}, "odd", 5])
def test_a_server_that_sends_none_is_reported(fake: FakeLMStudio, way: Way, given: Any) -> None:
    """The problem is reported once, and only if log probabilities were requested."""
    answer = streamed(("Hel", given), ("lo.", given)) if way.is_streamed else whole(given)
    reply, _ = ask(fake, way, answer)
    assert (reply.content, reply.logprobs) == ("Hello.", [])
    assert [problem.code for problem in reply.problems] == ["logprobs_missing"]
    assert ask(fake, way, answer, logprobs=False)[0].problems == []


@pytest.mark.parametrize(
    "odd",
    [
        None,
        5,
        {},
        {"token": "a"},
        {"token": "a", "logprob": None},
        {"token": "a", "logprob": True},
        {"token": 1, "logprob": 0},
    ],
)
def test_an_odd_entry_costs_nothing_but_itself(fake: FakeLMStudio, odd: Any) -> None:
    """The others stay, and so does the answer."""
    reply, _ = ask(fake, WAYS[0], whole(likely(HEL, odd, LO)))
    assert reply.logprobs == READ
    assert reply.content == "Hello."


@pytest.mark.parametrize("odd", [[72, 300], "Hel", [None], {}])
def test_odd_bytes_are_left_out(fake: FakeLMStudio, odd: Any) -> None:
    """Only lists of bytes are read as bytes."""
    reply, _ = ask(fake, WAYS[0], whole(likely({**HEL, "bytes": odd})))
    assert (reply.logprobs[0].token, reply.logprobs[0].bytes) == ("Hel", None)


def complete(fake: FakeLMStudio, given: Any, **options: Any) -> Completion:
    body = {"choices": [{"text": " went on", "finish_reason": "stop", "logprobs": given}], "model": "m"}
    fake.body(body)
    with lm(fake.base_url) as client:
        return client.complete("It", **options)


def test_plain_completions_send_lists_side_by_side(fake: FakeLMStudio) -> None:
    """OpenAI's older form; a token of an echoed prompt has no probability."""
    given = {
        "tokens": ["It", " went", " on"],
        "token_logprobs": [None, -0.5, -1],
        "top_logprobs": [None, {" went": -0.5, " goes": -1.5, "odd": None}],
        "text_offset": [0, 2, 7],
    }
    done = complete(fake, given, logprobs=2)
    assert done.logprobs == [
        TokenLogprob(
            token=" went",
            logprob=-0.5,
            top_logprobs=[TokenLogprob(token=" went", logprob=-0.5), TokenLogprob(token=" goes", logprob=-1.5)],
        ),
        TokenLogprob(token=" on", logprob=-1.0),
    ]
    assert math.isclose(math.exp(done.logprobs[0].logprob), 0.60653, abs_tol=1e-4)
    assert complete(fake, likely(HEL, LO), logprobs=2).logprobs == READ  # llama.cpp's newer form
    assert [problem.code for problem in complete(fake, None, logprobs=2).problems] == ["logprobs_missing"]
    assert complete(fake, None).problems == []


@pytest.mark.parametrize("is_streamed", [False, True])
def test_responses_send_them_too(fake: FakeLMStudio, is_streamed: bool) -> None:
    """With `include=["message.output_text.logprobs"]` they come on each delta or on the whole text."""
    text = {"type": "output_text", "text": "Hello.", "logprobs": [HEL, LO]}
    body = {"id": "r", "status": "completed", "output": [{"type": "message", "content": [text]}]}
    said = [
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel", "logprobs": [HEL]},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "lo.", "logprobs": [LO]},
        {"type": "response.completed", "response": body},
    ]

    _ = fake.frames(*said) if is_streamed else fake.body(body)
    asked: Any = {"input": "Hi", "include": ["message.output_text.logprobs"]}
    with lm(fake.base_url) as client:
        reply = client.responses.stream(**asked).until_done() if is_streamed else client.responses.create(**asked)
    assert (reply.content, reply.logprobs) == ("Hello.", READ)
    fake.frames(chunk("Hi"), chunk(finish="stop"))
    with lm(fake.base_url) as client:
        assert client.chat().user("Hi").stream().until_done().logprobs == []
