"""Typed questions for decision models: what is sent, what the answers become, and what stands in for such a model."""

from __future__ import annotations

import asyncio
import base64
from enum import Enum
from typing import Any, Literal

import pytest

import lmdeck
from asking import alm, lm
from lmdeck import (
    ConfigurationError,
    Decisions,
    EndpointNotFoundError,
    InvalidRequestError,
    MalformedStreamError,
    NoModelLoadedError,
    Question,
)
from lmdeck.testing import FakeLMStudio, RawAnswer

INPUT = "I was charged twice."
PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde" + b"\0\0\0\0IEND\xaeB`\x82"
DECISIONS, SYSTEMONE = "/v1/decisions", "/v1/systemone"
NOT_THERE = RawAnswer.json({"error": "Unexpected endpoint or method. (POST /v1/decisions)"})


class Team(Enum):
    BILLING = "billing"
    TECHNICAL = 2


QUESTIONS: dict[str, Any] = {
    "angry": (bool, "Is the customer angry?"),
    "team": (Team, "Which team?"),
    "tone": Question(Literal["calm", "rude"], "Which tone?", {"rude": "insults"}),
    "urgency": (range(1, 6), "How urgent?"),
    "topic": ({"refund": "money back", "bug": ""}, "Which topic?"),
    "private": (bool, "Is it private?"),
}
SCRIPTED: dict[str, Any] = {
    "angry": 0.9,
    "team": {"billing": 0.25, "TECHNICAL": 0.75},
    "tone": "rude",
    "urgency": {"2": 0.5, "4": 0.5},
    "topic": "bug",
    "private": None,
}


@pytest.fixture
def decider() -> Any:
    with FakeLMStudio() as fake:
        fake.add_model("kev-0.8b", type="decision", size_bytes=1)
        yield fake


def decide(fake: FakeLMStudio, is_async: bool, *given: Any, **options: Any) -> Decisions:
    """Decide with a client of either kind."""
    if not is_async:
        with lm(fake.base_url, model=None) as client:
            return client.decide(*given, **options)

    async def ask() -> Decisions:
        async with alm(fake.base_url, model=None) as client:
            return await client.decide(*given, **options)

    return asyncio.run(ask())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("path", [DECISIONS, SYSTEMONE])
def test_answers_have_the_types_of_the_questions(decider: FakeLMStudio, path: str, is_async: bool) -> None:
    """This holds over either endpoint; the second is used if the server does not have the first."""
    if path == SYSTEMONE:
        decider.at(DECISIONS).answer(NOT_THERE)
    decided = decide(decider.decides(**SCRIPTED), is_async, INPUT, QUESTIONS)
    assert {name: answer.value for name, answer in decided.answers.items()} == {
        "angry": True, "team": Team.TECHNICAL, "tone": "rude", "urgency": 3, "topic": "bug", "private": None,
    }  # fmt: skip
    assert decided["angry"].probability == pytest.approx(0.9)
    assert decided["angry"].probabilities == pytest.approx({True: 0.9, False: 0.1})
    assert decided["team"].probabilities == {Team.BILLING: 0.25, Team.TECHNICAL: 0.75}
    assert decided["urgency"].score == pytest.approx(3.0)
    assert decided["urgency"].probabilities[4] == 0.5
    assert [name for name in decided if decided[name].refused] == ["private"]
    assert decided.model == "kev-0.8b"
    assert decided.usage is not None
    assert decided.usage.prompt_tokens == decided.usage.total_tokens == 5
    assert decider.requests[-1].path == path


def test_a_bool_that_is_false_has_the_probability_of_being_false(decider: FakeLMStudio) -> None:
    decided = decide(decider.decides(angry=0.2), False, INPUT, {"angry": (bool, "Angry?")})
    assert decided["angry"].value is False
    assert decided["angry"].probability == pytest.approx(0.8)


def test_data_goes_as_json_and_images_inline(decider: FakeLMStudio) -> None:
    """LM Studio's decision models take inline images only."""
    question: dict[str, Any] = {"angry": (bool, "Angry?")}
    decide(decider.decides(), False, {"stars": 1}, question, images=[PNG])
    parts = decider.requests[-1].body["input"][0]["content"]
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert parts == [{"type": "input_text", "text": '{"stars":1}'}, {"type": "input_image", "image_url": url}]
    decider.at(DECISIONS).answer(NOT_THERE)
    decide(decider.decides(), False, INPUT, question, images=[PNG])
    assert decider.requests[-1].body["state"] == {"text": INPUT, "images": [url]}
    with pytest.raises(InvalidRequestError, match="does not fetch images"):
        decide(decider, False, INPUT, question, images=["https://example.com/a.png"])


def test_a_decision_model_is_never_asked_to_chat(decider: FakeLMStudio) -> None:
    """A chat does not choose it, however small it is and even if it is loaded."""
    decider.evict()
    with lm(decider.reply("Hello").base_url, model=None) as client:
        assert client.chat().user("Hi").send().content == "Hello"
        assert client.models.get("kev-0.8b").type == "decision"
        assert not client.models.get("kev-0.8b").is_chat_model
        with pytest.raises(InvalidRequestError):
            client.chat("kev-0.8b").user("Hi").send()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_chat_model_stands_in_where_that_was_asked_for(is_async: bool) -> None:
    """Its answer is restricted to the possible words, requested once more if it does not fit, and reported."""
    picked = {
        "angry": "true",
        "team": "TECHNICAL",
        "tone": "calm",
        "urgency": "4",
        "topic": "refund",
        "private": "false",
    }
    with FakeLMStudio() as fake:
        with pytest.raises(NoModelLoadedError, match="a decision model") as caught:
            decide(fake, is_async, INPUT, QUESTIONS)
        assert "emulate=True" in caught.value.hint
        fake.json({**picked, "tone": "furious"}).json(picked)
        decided = decide(fake, is_async, INPUT, QUESTIONS, emulate=True)
        values = {name: answer.value for name, answer in decided.answers.items()}
        assert values == {
            "angry": True, "team": Team.TECHNICAL, "tone": "calm", "urgency": 4, "topic": "refund", "private": False,
        }  # fmt: skip
        assert [problem.code for problem in decided.problems] == ["emulated"]
        assert decided["angry"].probability is None
        schema = next(request.schema for request in fake.requests if request.schema)
        assert schema["properties"]["urgency"]["enum"] == ["1", "2", "3", "4", "5"]


def test_a_chat_model_that_was_named_stands_in_as_well() -> None:
    """LM Studio refuses to decide with a model that chats."""
    with FakeLMStudio() as fake:
        with pytest.raises(InvalidRequestError, match="not a decision model"):
            decide(fake, False, INPUT, {"angry": (bool, "Angry?")}, model="qwen2.5-7b-instruct")
        fake.json({"angry": "false"})
        decided = decide(fake, False, INPUT, {"angry": (bool, "?")}, model="qwen2.5-7b-instruct", emulate=True)
        assert decided["angry"].value is False


def test_an_older_server_is_reported_as_old(decider: FakeLMStudio) -> None:
    for path in (DECISIONS, SYSTEMONE):
        decider.at(path).answer(NOT_THERE)
    with pytest.raises(EndpointNotFoundError) as caught:
        decide(decider, False, INPUT, {"angry": (bool, "Angry?")})
    assert "Update LM Studio" in caught.value.hint


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [{"type": "predicate", "name": "angry", "probability": 1.5}],
        [{"type": "predicate", "name": "angry"}],
        ["yes"],
        None,
    ],
)
def test_an_answer_that_is_none_is_an_error(decider: FakeLMStudio, answers: Any) -> None:
    """Never a value that the server did not give."""
    decider.at(DECISIONS).body({"answers": answers, "model": "m"})
    with pytest.raises(MalformedStreamError):
        decide(decider, False, INPUT, {"angry": (bool, "Angry?")})


@pytest.mark.parametrize(
    ("given", "questions"),
    [
        ("", {"angry": (bool, "Angry?")}),
        (INPUT, {}),
        (INPUT, {"angry": (str, "How?")}),
        (INPUT, {"angry": (Literal["only"], "How?")}),
        (INPUT, {"angry": (Literal["1", 1], "How?")}),
        (INPUT, {"angry": (range(1), "How?")}),
        (INPUT, {"angry": (bool, " ")}),
        (INPUT, {"angry": bool}),
        (object(), {"angry": (bool, "Angry?")}),
    ],
)
def test_what_cannot_be_decided_is_refused_before_anything_is_sent(given: Any, questions: Any) -> None:
    with pytest.raises(ConfigurationError):
        lmdeck.decide(given, questions)


def test_openais_own_client_decides_with_the_fake(decider: FakeLMStudio) -> None:
    openai = pytest.importorskip("openai", "3.30")  # the first that was tried with `decisions`
    decider.decides(**SCRIPTED)
    with openai.OpenAI(base_url=f"{decider.base_url}/v1", api_key="x") as client:
        decision = client.decisions.create(
            model="kev-0.8b",
            input=[{"role": "user", "content": [{"type": "input_text", "text": INPUT}]}],
            questions=[
                {"type": "predicate", "name": "angry", "instructions": "Angry?"},
                {"type": "score", "name": "urgency", "instructions": "?", "levels": [{"label": n} for n in "12345"]},
                {"type": "predicate", "name": "private", "instructions": "Private?"},
            ],
        )
    assert [answer.type for answer in decision.answers] == ["predicate", "score", "refusal"]
    assert decision.answers[0].probability == 0.9
    assert decision.answers[1].score == 2.0
