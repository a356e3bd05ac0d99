"""How many tokens a chat has before it is sent, and what is done where they do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from asking import alm, lm
from bodies import completion
from lmdeck import ContextLengthError
from lmdeck.testing import FakeLMStudio
from loopback import Loopback, Request, json_answer

WORDS = "The quick brown fox jumps over the lazy dog. "


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio() as fake:
        entry = {"key": "m", "type": "llm", "loaded_instances": [{"id": "m", "config": {"context_length": 1000}}]}
        fake.at("/api/v1/models").body({"models": [entry]})
        yield fake


def test_an_estimate_learns_from_three_answers(fake: FakeLMStudio) -> None:
    """Within five per cent, for longer and shorter chats than those."""
    with lm(fake.base_url) as client:
        first = client.count_tokens(client.chat().user(WORDS * 30))
        assert not first.is_exact
        assert first.error == 0.3
        for count in (3, 12, 40):
            text = WORDS * count
            used = 47 + round(len(text) / 4.4)
            fake.body(completion(usage={"prompt_tokens": used, "completion_tokens": 1, "total_tokens": used + 1}))
            client.chat().user(text).send()
        for count in (5, 20, 90):
            text = WORDS * count
            true = 47 + round(len(text) / 4.4)
            guess = client.count_tokens(client.chat().user(text))
            assert abs(guess.tokens - true) <= 0.05 * true
            assert guess.error <= 0.05


@pytest.mark.parametrize("is_async", [False, True])
def test_llama_cpp_counts_exactly(is_async: bool) -> None:
    """By its template and its tokenizer."""
    answers = {
        "/v1/models": json_answer({"data": [{"id": "m", "owned_by": "llamacpp"}], "object": "list"}),
        "/apply-template": json_answer({"prompt": "<user>Hi"}),
        "/tokenize": json_answer({"tokens": [1, 2, 3]}),
    }

    def serve(request: Request) -> Any:
        return answers.get(request.path, json_answer({"error": {"message": "File Not Found", "code": 404}}, 404))

    with Loopback(serve) as server:
        if is_async:

            async def count() -> int:
                async with alm(server.url) as client:
                    return int(await client.count_tokens(client.chat().user("Hi")))

            assert asyncio.run(count()) == 3
        else:
            with lm(server.url) as client:
                counted = client.count_tokens(client.chat().user("Hi"))
                assert (counted.tokens, counted.is_exact, counted.error) == (3, True, 0.0)


def test_the_oldest_exchanges_are_left_out(fake: FakeLMStudio) -> None:
    """The system message and the last question stay, and the reply says so."""
    fake.body(completion())
    with lm(fake.base_url) as client:
        chat = client.chat().with_system("Be brief.")
        for number in range(20):
            chat = chat.user(f"{number} {WORDS * 5}").assistant("Yes.")
        reply = chat.user("Last?").with_context_guard("trim").send()
        sent = fake.requests[-1].messages
        assert sent[0]["content"] == "Be brief."
        assert sent[-1]["content"] == "Last?"
        assert 2 < len(sent) < 42
        assert [problem.code for problem in reply.problems] == ["context_trimmed"]
        assert client.count_tokens(client.chat().with_messages(sent)).most <= 1000 - 250


@pytest.mark.parametrize("action", ["trim", "raise"])
def test_what_cannot_fit_is_not_sent(fake: FakeLMStudio, action: str) -> None:
    """One question that is too long, whatever is left out."""
    with lm(fake.base_url) as client, pytest.raises(ContextLengthError) as caught:
        client.chat().user(WORDS * 200).with_context_guard(action).send()  # type: ignore[arg-type]
    assert caught.value.context_length == 1000
    assert (caught.value.prompt_tokens or 0) > 1000
    assert {request.path for request in fake.requests} == {"/api/v1/models"}


def test_what_fits_is_sent_as_it_is(fake: FakeLMStudio) -> None:
    fake.body(completion())
    with lm(fake.base_url) as client:
        assert client.chat().user("Hi").with_context_guard("raise").send().problems == []
        with pytest.raises(ContextLengthError):
            client.chat().user("Hi").with_options(max_tokens=999).with_context_guard("raise").send()


@pytest.mark.engine
def test_a_real_llama_cpp_counts_what_it_will_bill(llama_url: str) -> None:
    """Before the answer, template included."""
    with lm(llama_url, model=None, first_token_timeout=240.0, timeout=120.0) as client:
        chat = client.chat().with_system("Be brief.").user("Say hello to Bob.").with_options(max_tokens=1)
        counted = client.count_tokens(chat)
        usage = chat.send().usage
        assert usage is not None
        assert (counted.is_exact, counted.tokens) == (True, usage.prompt_tokens)
