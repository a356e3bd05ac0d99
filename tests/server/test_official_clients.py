"""The official `openai` and `anthropic` packages against the embedded engine: the server is correct if they understand it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic import Anthropic
    from openai import OpenAI

    from lmdeck.engine import EngineServer

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"
USER: list[Any] = [{"role": "user", "content": QUESTION}]
FRANCE: list[Any] = [{"role": "system", "content": "Be brief."}, *USER]
WEATHER = "What is the weather in Paris?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": "Tell the weather.", "parameters": PARAMETERS}


@pytest.fixture(scope="module")
def openai_client(engine: EngineServer) -> Iterator[OpenAI]:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{engine.base_url}/v1", api_key="lm-studio", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(engine: EngineServer) -> Iterator[Anthropic]:
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=engine.base_url, api_key="lm-studio", max_retries=0, timeout=120) as client:
        yield client


def test_openai_chat(openai_client: OpenAI, engine: EngineServer) -> None:
    answer = openai_client.chat.completions.create(model=engine.model, messages=FRANCE, temperature=0, max_tokens=16)
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.prompt_tokens > 5


def test_openai_chat_streamed(openai_client: OpenAI, engine: EngineServer) -> None:
    stream = openai_client.chat.completions.create(
        model=engine.model,
        messages=FRANCE,
        temperature=0,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0


def test_openai_chat_calls_a_tool(openai_client: OpenAI, engine: EngineServer) -> None:
    answer = openai_client.chat.completions.create(
        model=engine.model,
        messages=[{"role": "user", "content": WEATHER}],
        temperature=0,
        max_tokens=64,
        tools=[{"type": "function", "function": TOOL}],
        tool_choice="required",
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_openai_completion(openai_client: OpenAI, engine: EngineServer) -> None:
    answer = openai_client.completions.create(
        model=engine.model, prompt="The capital of France is", temperature=0, max_tokens=8
    )
    assert answer.choices[0].text


def test_openai_embeddings_of_similar_texts_are_close(openai_client: OpenAI, engine: EngineServer) -> None:
    texts = ["A cat sleeps on the sofa.", "The kitten naps on a couch.", "Interest rates rose sharply in March."]
    answer = openai_client.embeddings.create(model=f"text-embedding-{engine.model}", input=texts)
    cat, kitten, rates = (entry.embedding for entry in answer.data)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert _cosine(cat, cat) == pytest.approx(1, abs=1e-5)
    assert _cosine(cat, kitten) > _cosine(cat, rates) + 0.1
    assert answer.usage.prompt_tokens > 10


def test_openai_embeddings_are_packed_by_default(openai_client: OpenAI, engine: EngineServer) -> None:
    raw = openai_client.embeddings.with_raw_response.create(model=f"text-embedding-{engine.model}", input="A cat.")
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)
    assert len(raw.parse().data[0].embedding) > 8


def test_anthropic_counts_tokens(anthropic_client: Anthropic, engine: EngineServer) -> None:
    messages: list[Any] = [{"role": "user", "content": "Say hello."}]
    counted = anthropic_client.messages.count_tokens(model=engine.model, messages=messages)
    billed = anthropic_client.messages.create(model=engine.model, max_tokens=1, messages=messages).usage
    assert counted.input_tokens == billed.input_tokens


def test_openai_models(openai_client: OpenAI, engine: EngineServer) -> None:
    assert [model.id for model in openai_client.models.list()] == [engine.model, f"text-embedding-{engine.model}"]


def test_openai_response_and_its_continuation(openai_client: OpenAI, engine: EngineServer) -> None:
    first = openai_client.responses.create(
        model=engine.model, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=24
    )
    assert first.output_text
    assert first.usage
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
    second = openai_client.responses.create(
        model=engine.model,
        input="And of Italy?",
        previous_response_id=first.id,
        temperature=0,
        max_output_tokens=24,
    )
    assert second.previous_response_id == first.id
    assert second.usage
    assert second.usage.input_tokens > first.usage.total_tokens


def test_openai_response_streamed(openai_client: OpenAI, engine: EngineServer) -> None:
    with openai_client.responses.stream(
        model=engine.model, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=16
    ) as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type in {"response.completed", "response.incomplete"}  # the model decides how long its answer is
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text
    assert events[-1].response.output_text == text


def test_openai_response_calls_a_tool(openai_client: OpenAI, engine: EngineServer) -> None:
    with openai_client.responses.stream(
        model=engine.model,
        input=WEATHER,
        tools=[{"type": "function", "strict": False, **TOOL}],
        tool_choice="required",
        temperature=0,
        max_output_tokens=64,
    ) as stream:
        final = stream.get_final_response() if list(stream) else None
    assert final is not None
    (call,) = (item for item in final.output if item.type == "function_call")
    assert call.name == "get_weather"
    assert "city" in json.loads(call.arguments)


def test_openai_errors_are_typed(openai_client: OpenAI) -> None:
    import openai

    with pytest.raises(openai.NotFoundError, match="Your models"):
        openai_client.chat.completions.create(model="nope", messages=FRANCE)
    choice: Any = {"type": "function", "function": {"name": "x"}}
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model="", messages=FRANCE, tool_choice=choice)
    assert "tool_choice" in caught.value.response.json()["error"]


def test_anthropic_message(anthropic_client: Anthropic, engine: EngineServer) -> None:
    answer = anthropic_client.messages.create(
        model=engine.model, max_tokens=16, messages=USER, system="Be brief.", extra_body={"temperature": 0}
    )
    (block,) = answer.content
    assert block.type == "text"
    assert block.text
    assert answer.stop_reason in {"end_turn", "max_tokens"}
    assert answer.usage.input_tokens > 5


def test_anthropic_message_streamed(anthropic_client: Anthropic, engine: EngineServer) -> None:
    with anthropic_client.messages.stream(
        model=engine.model, max_tokens=16, messages=USER, extra_body={"temperature": 0}, system="Be brief."
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.usage.output_tokens > 0


def test_anthropic_message_calls_a_tool_and_reads_its_result(anthropic_client: Anthropic, engine: EngineServer) -> None:
    tool: Any = {"name": "get_weather", "description": "Tell the weather.", "input_schema": PARAMETERS}
    turns: list[Any] = [{"role": "user", "content": WEATHER}]
    with anthropic_client.messages.stream(
        model=engine.model,
        max_tokens=64,
        messages=turns,
        tools=[tool],
        tool_choice={"type": "tool", "name": "get_weather"},
        extra_body={"temperature": 0},
    ) as stream:
        asked = stream.get_final_message()
    (call,) = (block for block in asked.content if block.type == "tool_use")
    assert asked.stop_reason == "tool_use"
    assert "city" in call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees Celsius and clear"}
    turns += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    told = anthropic_client.messages.create(
        model=engine.model, max_tokens=32, messages=turns, extra_body={"temperature": 0}
    )
    assert "21" in "".join(block.text for block in told.content if block.type == "text")


def test_anthropic_errors_are_typed(anthropic_client: Anthropic, engine: EngineServer) -> None:
    import anthropic

    turns: list[Any] = [{"role": "system", "content": "x"}]
    with pytest.raises(anthropic.BadRequestError, match="Expected 'user'"):
        anthropic_client.messages.create(model=engine.model, max_tokens=16, messages=turns)
    with pytest.raises(anthropic.NotFoundError, match="Your models"):
        anthropic_client.messages.create(model="nope", max_tokens=16, messages=USER)


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_openai_decisions(openai_client: OpenAI, engine: EngineServer) -> None:
    """The engine decodes one letter of the options, and the scores of the letters are the probabilities."""
    decision = openai_client.decisions.create(
        model=engine.model,
        input="I was charged twice! Give my money back!",
        questions=[
            {"type": "predicate", "name": "angry", "instructions": "Is the customer angry?"},
            {
                "type": "choice",
                "name": "team",
                "instructions": "Which team is asked?",
                "choices": [{"value": "billing"}, {"value": "travel", "description": "flights and hotels"}],
            },
        ],
    )
    angry, team = decision.answers
    assert angry.type == "predicate"
    assert 0 <= angry.probability <= 1
    assert team.type == "choice"
    assert sum(each.probability for each in team.probabilities) == pytest.approx(1)
    assert team.choice == max(team.probabilities, key=lambda each: each.probability).value
    assert decision.usage.input_tokens > 20
