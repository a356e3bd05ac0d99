"""How many tokens a chat has before it is sent, and what is done where they do not fit."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from asking import alm, lm
from bodies import completion
from lmdeck import ContextLengthError, History
from lmdeck.testing import FakeLMStudio
from loopback import Loopback, Request, json_answer

WORDS = "The quick brown fox jumps over the lazy dog. "


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio() as fake:
        fake.add_model("m")
        entry = {"key": "m", "type": "llm", "loaded_instances": [{"id": "m", "config": {"context_length": 1000}}]}
        fake.at("/api/v1/models").body({"models": [entry]})
        yield fake


def test_an_estimate_learns_from_three_answers(fake: FakeLMStudio) -> None:
    """The estimate is within five per cent, for longer and for shorter chats than those."""
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
    """llama.cpp counts with its template and its tokenizer."""
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


def test_a_chat_that_goes_on_is_estimated_from_what_was_counted(fake: FakeLMStudio) -> None:
    """The estimate is within five per cent in any language, since only the new message is estimated."""
    parts = [
        WORDS * 12,
        "Ответь по-русски. " * 9,
        "人工智能是计算机科学的一个分支。" * 8,
        json.dumps({"a": [1.5, 2.25]}) * 6,
    ]
    messages: list[dict[str, str]] = []
    with lm(fake.base_url) as client:
        for number, part in enumerate(parts):
            messages.append({"role": "user", "content": part})
            true = 30 + sum(counted_by_words(each["content"]) + 5 for each in messages)
            guess = client.count_tokens(client.chat().with_messages(messages))
            if number == 3:
                assert abs(guess.tokens - true) <= 0.05 * true
            fake.body(completion(usage={"prompt_tokens": true, "completion_tokens": 1, "total_tokens": true + 1}))
            client.chat().with_messages(messages).send()
            assert client.count_tokens(client.chat().with_messages(messages)).tokens == true
            messages.append({"role": "assistant", "content": "Yes."})


def counted_by_words(text: str) -> int:
    """Count as a tokenizer of another kind does: words in pieces of five bytes, signs one by one."""
    pieces = re.findall(r"\w+|[^\w\s]", text)
    return sum(-(-len(piece.encode()) // 5) for piece in pieces)


@pytest.mark.parametrize("count", [counted_by_words, lambda text: -(-len(text) // 4)], ids=["words", "length"])
def test_estimates_follow_the_tokenizer(fake: FakeLMStudio, count: Any) -> None:
    """Whether it goes by words or by length: other texts of the same kind are within five per cent after three answers."""
    kinds = [
        "The quick brown fox jumps over the lazy dog. ",
        "To be, or not to be: that is the question! ",
        "A bird in hand. ",
    ]
    texts = ["".join(kinds[:number]) * times for number, times in [(1, 9), (2, 9), (3, 20), (3, 5), (2, 30), (1, 25)]]
    with lm(fake.base_url) as client:
        for text in texts[:3]:
            used = 12 + count(text)
            fake.body(completion(usage={"prompt_tokens": used, "completion_tokens": 1, "total_tokens": used + 1}))
            client.chat().user(text).send()
        for text in texts[3:]:
            guess = client.count_tokens(client.chat().user(text))
            assert abs(guess.tokens - 12 - count(text)) <= 0.05 * (12 + count(text))


def asked_for_summaries(fake: FakeLMStudio) -> list[str]:
    """Return the texts that the model was asked to summarise."""
    return [request.last_user for request in fake.requests if "Summarise" in request.last_user]


def long_chat(client: Any, exchanges: int, action: str = "summarise") -> Any:
    chat = client.chat().with_system("Be brief.")
    for number in range(exchanges):
        chat = chat.user(f"{number} {WORDS * 5}").assistant("Yes.")
    return chat.user("Last?").with_context_guard(action)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("stream", [False, True], ids=["send", "stream"])
def test_the_oldest_exchanges_are_summarised(fake: FakeLMStudio, stream: bool, is_async: bool) -> None:
    """The summary stands in the system message, and the reply reports it."""
    fake.when(lambda request: "Summarise" in request.last_user).respond(lambda _: "They talked of foxes.")
    fake.reply("Done.")

    async def main() -> Any:
        async with alm(fake.base_url) as client:
            chat = long_chat(client, 20)
            return await (chat.stream().until_done() if stream else chat.send())

    if is_async:
        reply = asyncio.run(main())
    else:
        with lm(fake.base_url) as client:
            chat = long_chat(client, 20)
            reply = chat.stream().until_done() if stream else chat.send()
    assert reply.content == "Done."
    assert [problem.code for problem in reply.problems] == ["context_summarised"]
    sent = fake.requests[-1].messages
    assert sent[0]["content"] == "Be brief.\n\nSummary of the conversation so far:\nThey talked of foxes."
    assert sent[-1]["content"] == "Last?"
    assert 2 < len(sent) < 42
    asked = asked_for_summaries(fake)
    assert len(asked) > 1
    assert "They talked of foxes." not in asked[0]
    assert all("They talked of foxes." in text for text in asked[1:])
    kept = int(sent[1]["content"].split()[0])
    numbers = [int(line.split()[1]) for text in asked for line in text.splitlines() if line.startswith("User: ")]
    assert numbers == list(range(kept))


def test_a_summary_is_used_again(fake: FakeLMStudio) -> None:
    """It is used while the chat fits with it; later it is summarised with what came after it."""
    fake.when(lambda request: "Summarise" in request.last_user).respond(lambda _: "They talked of foxes.")
    fake.when(lambda request: "Summarise" not in request.last_user).respond(lambda _: "Done.")
    with lm(fake.base_url) as client:
        long_chat(client, 20).send()
        first = len(asked_for_summaries(fake))
        long_chat(client, 20).send()
        long_chat(client, 21).send()
        assert len(asked_for_summaries(fake)) == first
        long_chat(client, 30).send()
        later = asked_for_summaries(fake)[first:]
        assert later
        assert all("They talked of foxes." in text for text in later)


def test_one_exchange_that_does_not_fit_is_not_summarised(fake: FakeLMStudio) -> None:
    """It is the question itself."""
    with lm(fake.base_url) as client, pytest.raises(ContextLengthError):
        client.chat().user(WORDS * 200).with_context_guard("summarise").send()
    assert asked_for_summaries(fake) == []


def test_a_message_that_is_longer_than_the_context_is_cut_for_its_summary(fake: FakeLMStudio) -> None:
    """It is cut in the middle, and the cut is marked."""
    fake.when(lambda request: "Summarise" in request.last_user).respond(lambda _: "Foxes.")
    fake.reply("Done.")
    with lm(fake.base_url) as client:
        chat = client.chat().user(f"BEGIN {WORDS * 300} END").assistant("Yes.").user("Last?")
        assert chat.with_context_guard("summarise").send().content == "Done."
    (asked,) = asked_for_summaries(fake)
    assert "BEGIN" in asked
    assert "END" in asked
    assert "[…]" in asked
    assert len(asked) < len(WORDS) * 100


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_history_is_summarised(fake: FakeLMStudio, is_async: bool) -> None:
    """Either client's chat may write the summary; a history that fits is left as it is."""
    fake.reply("They talked of foxes.")
    history = History().system("Be brief.")
    for number in range(5):
        history = history.user(f"{number} {WORDS * 5}").add({"role": "assistant", "content": "Yes."})

    async def main() -> Any:
        async with alm(fake.base_url) as client:
            assert await history.summarised_async(client.chat(), 10_000) is history
            return await history.summarised_async(client.chat(), 200)

    if is_async:
        shorter = asyncio.run(main())
    else:
        with lm(fake.base_url) as client:
            assert history.summarised(client.chat(), 10_000) is history
            shorter = history.summarised(client.chat(), 200)
    assert shorter.messages[0].content.endswith("Summary of the conversation so far:\nThey talked of foxes.")
    assert shorter.messages[1:] == history.trimmed(200).messages[1:]
    assert len(asked_for_summaries(fake)) == 1


@pytest.mark.engine
def test_a_real_llama_cpp_counts_what_it_will_bill(llama_url: str) -> None:
    """The count before the answer includes the template."""
    with lm(llama_url, model=None, first_token_timeout=240.0, timeout=120.0) as client:
        chat = client.chat().with_system("Be brief.").user("Say hello to Bob.").with_options(max_tokens=1)
        counted = client.count_tokens(chat)
        usage = chat.send().usage
        assert usage is not None
        assert (counted.is_exact, counted.tokens) == (True, usage.prompt_tokens)
