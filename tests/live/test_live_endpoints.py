"""The endpoints beside chat completions, with a real LM Studio (`make live`) and with the embedded engine."""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck import AsyncLMStudio, InvalidRequestError, LMStudio, tool

QUESTION = "What is the capital of France?"


def chat_model(lm: LMStudio) -> str:
    return next(model.key for model in lm.models.list() if model.is_chat_model)


def test_a_conversation_goes_on_and_branches(lm: LMStudio) -> None:
    conversation = lm.conversation(chat_model(lm), system_prompt="Be brief.", max_output_tokens=24)
    first = conversation.send(QUESTION)
    assert first.content
    assert first.id.startswith("resp_")
    other = conversation.branch()
    second = conversation.send("And of Italy?")
    assert second.usage
    assert first.usage
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert other.send("And of Spain?").id != second.id


def test_a_conversation_streams_the_documented_events(lm: LMStudio) -> None:
    with lm.conversation(chat_model(lm), max_output_tokens=16).stream(QUESTION) as stream:
        events = [type(chunk.event).__name__ for chunk in stream if chunk.event is not None]
    assert events[0] == "ChatStart"
    assert events[-1] == "ChatEnd"
    assert {"PromptProcessingStart", "PromptProcessingEnd", "MessageStart", "MessageDelta"} <= set(events)
    assert stream.reply.content
    assert stream.reply.usage


def test_a_forgotten_answer_is_replayed_only_on_request(lm: LMStudio) -> None:
    with pytest.raises(InvalidRequestError, match="recover"):
        lm.conversation(chat_model(lm), previous_response_id=f"resp_{'0' * 48}").send("Hi")


def test_a_response_is_continued_and_streamed(lm: LMStudio) -> None:
    model = chat_model(lm)
    first = lm.responses.create(model=model, input=QUESTION, max_output_tokens=16)
    assert first.content
    with lm.responses.stream(
        model=model, input="And of Italy?", previous_response_id=first.id, max_output_tokens=16
    ) as stream:
        text = "".join(chunk.content for chunk in stream)
    assert text.strip() == stream.reply.content


def test_a_response_calls_a_tool(lm: LMStudio) -> None:
    def get_weather(city: str) -> str:
        """Tell the weather in a city."""
        return f"clear in {city}"

    reply = lm.responses.create(
        model=chat_model(lm),
        input="What is the weather in Paris?",
        tools=[tool(get_weather)],
        tool_choice="required",
        max_output_tokens=64,
    )
    assert [call.name for call in reply.tool_calls] == ["get_weather"]
    assert reply.finish_reason == "tool_calls"


def test_a_message_is_answered_whole_and_streamed(lm: LMStudio) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    model = chat_model(lm)
    assert lm.messages.create(model=model, **asked).content
    with lm.messages.stream(model=model, **asked) as stream:
        for _ in stream:
            pass
    assert stream.reply.content
    assert stream.reply.usage


async def test_the_same_asynchronously(settings: dict[str, Any]) -> None:
    async with AsyncLMStudio(**settings) as alm:
        model = next(model.key for model in await alm.models.list() if model.is_chat_model)
        assert (await alm.conversation(model, max_output_tokens=8).send(QUESTION)).content
        assert (await alm.responses.create(model=model, input=QUESTION, max_output_tokens=8)).content
        async with alm.messages.stream(
            model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=8
        ) as stream:
            assert [chunk async for chunk in stream]
        assert stream.reply.content


def test_texts_become_vectors(lm: LMStudio) -> None:
    model = next((model.key for model in lm.models.list() if model.type == "embedding"), None)
    if model is None:
        pytest.skip("NO EMBEDDING MODEL: download one, for example `lms get nomic-embed-text-v1.5`")
    embeddings = lm.embed(["a cat", "a kitten", "a mortgage"], model=model)
    cat, kitten, mortgage = embeddings.vectors
    assert len(cat) == len(kitten) > 1
    near, far = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, mortgage))
    assert near > far


def test_a_model_is_unloaded_and_loaded_for_the_next_question(lm: LMStudio) -> None:
    model = chat_model(lm)
    for instance in lm.models.get(model).instances:
        lm.models.unload(instance.id)
    assert not lm.models.get(model).loaded
    with lm.conversation(model, max_output_tokens=8).stream("Hi") as stream:
        events = {type(chunk.event).__name__ for chunk in stream if chunk.event is not None}
    assert {"ModelLoadStart", "ModelLoadProgressEvent", "ModelLoadEnd"} <= events
    assert stream.reply.stats.model_load_time is not None
    assert lm.models.ensure_loaded(model).already_loaded
