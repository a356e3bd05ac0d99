"""`parse`: whatever a model or server makes of a schema, there is an object of the type or a clear error."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from asking import alm, lm
from bodies import chunk
from lmdeck import ConfigurationError, InvalidRequestError, StructuredOutputError
from lmdeck.testing import FakeLMStudio, RawAnswer

CHAT = "/v1/chat/completions"


@dataclass
class City:
    name: str
    people: int
    rivers: list[str]


class Row(msgspec.Struct):
    name: str
    people: int
    rivers: list[str]


class Typed(TypedDict):
    name: str
    people: int
    rivers: list[str]


class Model(pydantic.BaseModel):
    name: str
    people: int
    rivers: list[str]


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


GOOD = {"name": "Rome", "people": 2800000, "rivers": ["Tiber"]}
TEXT = json.dumps(GOOD)


def both(url: str, kind: Any, **options: Any) -> list[Callable[[], Any]]:
    async def later() -> Any:
        async with alm(url) as client:
            return await client.chat().user("Tell me of Rome.").parse(kind, **options)

    def now() -> Any:
        with lm(url) as client:
            return client.chat().user("Tell me of Rome.").parse(kind, **options)

    return [now, lambda: asyncio.run(later())]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (City, TEXT, City(**GOOD)), (Row, TEXT, Row(**GOOD)), (Typed, TEXT, GOOD), (Model, TEXT, Model(**GOOD)),
        (list[int], '{"value": [1, 2]}', [1, 2]), (list[int], "[1, 2]", [1, 2]), (int, '{"value": 5}', 5), (int, "5", 5),
        (Mood, '{"value": "good"}', Mood.GOOD), (Mood, "good", Mood.GOOD), (Literal["a", "b"], '{"value": "b"}', "b"),
        (dict[str, int], '{"a": 1}', {"a": 1}), (str, '{"value": "words"}', "words"),
        (Tree, '{"value": 1, "children": [{"value": 2}]}', Tree(1, [Tree(2)])),
    ],
)  # fmt: skip
def test_any_type_comes_back(fake: FakeLMStudio, kind: Any, text: str, value: Any) -> None:
    fake.at(CHAT).reply(text)
    for parse in both(fake.base_url, kind):
        made = parse()
        assert made == value
        assert type(made) is type(value)
    asked = fake.requests[0].body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["schema"]["type"] == "object"


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{TEXT}\n```", f"Here it is:\n```\n{TEXT}\n```\nAnything else?", f"Of course! {TEXT} I hope this helps.",
        "{'name': 'Rome', 'people': 2800000, 'rivers': ['Tiber',],}", TEXT[:-1], json.dumps({**GOOD, "people": "2800000"}),
        json.dumps({**GOOD, "rivers": "Tiber"}), f"[see note] {TEXT}", f"{{not this}} but {TEXT}",
        '{"name": "Rome", "people": 2800000, "rivers": ["Tiber"]} // done', json.dumps({"value": GOOD}),
    ],
)  # fmt: skip
def test_json_is_found_and_put_right(fake: FakeLMStudio, text: str) -> None:
    if text == json.dumps({"value": GOOD}):
        text = json.dumps(GOOD)
    fake.at(CHAT).reply(text)
    for parse in both(fake.base_url, City):
        assert parse() == City(**GOOD)


def test_json_is_found_in_the_reasoning(fake: FakeLMStudio) -> None:
    fake.at(CHAT).reply("", reasoning=f"I should say {TEXT}.")
    for parse in both(fake.base_url, City):
        assert parse() == City(**GOOD)


def test_what_does_not_fit_is_asked_for_once_more_with_the_faults(fake: FakeLMStudio) -> None:
    fake.reply('{"name": "Rome"}').reply(TEXT)
    with lm(fake.base_url) as client:
        assert client.chat().user("Rome?").parse(City) == City(**GOOD)
        again = fake.requests[1].body
    assert [message["role"] for message in again["messages"]] == ["user", "assistant", "user"]
    assert '"people" is a required property' in again["messages"][2]["content"]
    assert "JSON Schema" in again["messages"][2]["content"]
    assert "response_format" not in again


def test_what_never_fits_is_an_error_that_says_why(fake: FakeLMStudio) -> None:
    fake.at(CHAT).reply("I would rather not.")
    for parse in both(fake.base_url, City):
        with pytest.raises(StructuredOutputError, match="City") as caught:
            parse()
        assert caught.value.raw == "I would rather not."
        assert caught.value.hint
    assert len(fake.requests) == 4
    for parse in both(fake.base_url, City, attempts=0):
        with pytest.raises(StructuredOutputError):
            parse()
    assert len(fake.requests) == 6


def test_an_answer_cut_by_the_limit_says_so(fake: FakeLMStudio) -> None:
    fake.reply('{"name": "Ro', finish_reason="length")
    with lm(fake.base_url) as client, pytest.raises(StructuredOutputError, match="cut off by the token limit"):
        client.chat().user("Rome?").parse(City, attempts=0)


REFUSAL = {"error": "'response_format.type' must be 'json_schema' or 'text'"}


def test_a_server_that_refuses_the_schema_is_asked_in_words(fake: FakeLMStudio) -> None:
    fake.body(REFUSAL, status=400).reply(TEXT)
    with lm(fake.base_url) as client:
        assert client.chat().user("Rome?").parse(City) == City(**GOOD)
        assert "response_format" not in fake.requests[1].body
        assert "JSON Schema" in fake.requests[1].body["messages"][-1]["content"]
    fake.at(CHAT).body(REFUSAL, status=400)
    for parse in both(fake.base_url, City):
        with pytest.raises(InvalidRequestError):
            parse()


def test_an_empty_answer_under_a_schema_is_asked_for_in_words(fake: FakeLMStudio) -> None:
    """LM Studio 0.4.7 returned empty answers to json_schema requests, so the schema is then sent as an instruction."""
    fake.reply("").reply(TEXT)
    with lm(fake.base_url) as client:
        assert client.chat().user("Rome?").parse(City) == City(**GOOD)


def test_a_type_that_json_cannot_hold_says_so() -> None:
    with lm("http://localhost:9") as client, pytest.raises(ConfigurationError, match="complex"):
        client.chat().user("Hi").parse(complex)


def streamed(text: str, size: int = 3) -> RawAnswer:
    """Stream a text in pieces of a size."""
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return RawAnswer.frames(*map(chunk, pieces), chunk(finish="stop"))


def test_an_object_grows_while_it_is_written(fake: FakeLMStudio) -> None:
    fake.at(CHAT).answer(streamed(TEXT))
    with lm(fake.base_url) as client:
        stream = client.chat().user("Rome?").parse_stream(City)
        seen = list(stream)
        assert stream.value == City(**GOOD)

    async def main() -> list[Any]:
        async with alm(fake.base_url) as client:
            stream = client.chat().user("Rome?").parse_stream(City)
            found = [value async for value in stream]
            assert stream.value == City(**GOOD)
            return found

    assert asyncio.run(main()) == seen
    assert seen[-1] == GOOD
    assert {"name": "Ro"} in seen or {"name": "R"} in seen or {"name": "Rom"} in seen
    assert all(set(value) <= set(GOOD) for value in seen)
    assert len(seen) > 8


def test_a_growing_list_and_a_stream_that_does_not_fit(fake: FakeLMStudio) -> None:
    fake.answer(streamed('{"value": [1, 2, 3]}', 1)).reply("No.")
    with lm(fake.base_url) as client:
        seen = list(client.chat().user("Hi").parse_stream(list[int]))
        assert seen[-1] == [1, 2, 3]
        assert [1, 2] in seen
    with lm(fake.base_url) as client, pytest.raises(StructuredOutputError):
        list(client.chat().user("Hi").parse_stream(City))


@pytest.mark.no_cover  # the same lines for twenty thousand numbers
def test_a_long_answer_is_not_read_again_for_every_word(fake: FakeLMStudio) -> None:
    """The number of values that are yielded grows with the logarithm of the text."""
    text = json.dumps({"value": list(range(20000))})
    fake.answer(streamed(text, 10))
    with lm(fake.base_url) as client:
        stream = client.chat().user("Hi").parse_stream(list[int])
        assert len(list(stream)) < 600
        assert len(stream.value) == 20000
