"""The same conversations with a real LM Studio (`make live`) and with the embedded engine.

A small model may say anything, so what is checked is the shape of each answer and not its wisdom.
"""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck import APIError, AsyncLMStudio, InvalidRequestError, LMStudio, ModelNotFoundError

SHORT = {"max_tokens": 24, "temperature": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_a_plain_question(lm: LMStudio) -> None:
    """One question is answered by one whole reply."""
    reply = lm.chat().user("Say hello.").with_options(**SHORT).send()
    assert reply.content or reply.reasoning
    assert reply.finish_reason in {"stop", "length"}
    assert reply.model
    assert reply.id
    assert reply.usage is not None
    assert 0 < reply.usage.completion_tokens <= SHORT["max_tokens"]
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.stats.tokens_per_second


def test_a_streamed_question(lm: LMStudio) -> None:
    """The chunks add up to the reply, and the reply knows its cost."""
    with lm.chat().user("Count from one to five.").with_options(**SHORT).stream() as stream:
        chunks = list(stream)
    reply = stream.reply
    assert "".join(chunk.content for chunk in chunks).strip() == reply.content
    assert "".join(chunk.reasoning for chunk in chunks).strip() == reply.reasoning.strip()
    assert chunks[-1].finish_reason == reply.finish_reason
    assert reply.usage is not None
    assert reply.stats.time_to_first_token
    assert reply.stats.generation_time


async def test_the_async_client(settings: dict[str, Any]) -> None:
    """The async client has the same conversation."""
    async with AsyncLMStudio(**settings) as lm:
        chat = lm.chat().user("Say hello.").with_options(**SHORT)
        sent = await chat.send()
        streamed = await chat.stream().until_done()
    assert sent.content or sent.reasoning
    assert streamed.content or streamed.reasoning


def test_a_system_message_and_a_second_round(lm: LMStudio) -> None:
    """A reply's message goes back into the conversation."""
    chat = lm.chat().with_system("You answer in one short sentence.").user("What is Python?").with_options(**SHORT)
    first = chat.send()
    second = chat.with_messages([first.message]).user("Who made it?").send()
    assert second.content or second.reasoning
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


@pytest.mark.parametrize("is_streamed", [False, True], ids=["send", "stream"])
def test_a_tool_that_must_be_called(lm: LMStudio, is_streamed: bool) -> None:
    """`required` makes the answer a call of the tool, with readable arguments."""
    chat = lm.chat().user("What is the weather in Paris?").with_tools([WEATHER]).with_tool_choice("required")
    chat = chat.with_options(max_tokens=256, temperature=0)
    reply = chat.stream().until_done() if is_streamed else chat.send()
    assert reply.finish_reason == "tool_calls"
    call = reply.tool_calls[0]
    assert call.name == "get_weather"
    assert isinstance(call.arguments.get("city"), str)
    assert call.id
    answer = chat.with_tool_choice("none").with_messages([reply.message]).tool_result(call, '{"sky": "clear"}').send()
    assert answer.finish_reason in {"stop", "length"}


def test_a_stream_that_is_left(lm: LMStudio) -> None:
    """A stream can be left, and the next question is answered."""
    with lm.chat().user("Tell a long story.").with_options(max_tokens=512).stream() as stream:
        next(stream)
    assert lm.chat().user("Say hello.").with_options(**SHORT).send().finish_reason in {"stop", "length"}


def test_the_models(lm: LMStudio) -> None:
    """There is a model that answers chats, and it can be found by its key."""
    models = lm.models.list()
    chat_models = [model for model in models if model.is_chat_model]
    assert chat_models
    assert lm.models.get(chat_models[0].key) == chat_models[0]


def test_the_health(lm: LMStudio) -> None:
    """The server is well, and says what it is."""
    health = lm.health()
    assert health.reachable
    assert health.error is None
    assert health.product in {"LM Studio", "lmdeck engine"}
    assert health.api == "v1"
    assert health.latency is not None


def test_a_model_that_is_not_there(lm: LMStudio) -> None:
    """A name that no server knows is an error that tells the names it knows, or at least that it is wrong."""
    with pytest.raises(APIError) as caught:
        lm.chat("no-such-model/at-all-9000b").user("Hi").with_options(**SHORT).send()
    assert isinstance(caught.value, (ModelNotFoundError, InvalidRequestError))
    assert caught.value.hint
    assert caught.value.attempts == 1
