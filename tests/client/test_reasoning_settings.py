"""One word for how much a model reasons: checked against the server's list, and translated for each endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from asking import alm, lm
from bodies import completion
from lmdeck import ConfigurationError
from lmdeck.testing import FakeLMStudio

ON_OFF = {"allowed_options": ["off", "on"], "default": "on"}
LEVELS = {"allowed_options": ["low", "medium", "high"], "default": "low"}
NATIVE = {"model_instance_id": "m", "output": [{"type": "message", "content": "Yes."}], "response_id": "resp_1"}
RESPONSE = {
    "id": "resp_1", "model": "m", "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Yes."}]}],
}  # fmt: skip
MESSAGE = {"id": "msg_1", "model": "m", "content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn"}


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio() as fake:
        yield fake


def listing(fake: FakeLMStudio, reasoning: Any) -> None:
    """Let the server's list tell this of the model."""
    entry = {"key": "m", "type": "llm", "loaded_instances": [{"id": "m"}], "capabilities": {"reasoning": reasoning}}
    fake.at("/api/v1/models").body({"models": [entry]})


@pytest.mark.parametrize(
    ("level", "options", "sent"),
    [
        ("off", ON_OFF, "none"),
        ("on", ON_OFF, "medium"),
        ("high", LEVELS, "high"),
        ("on", LEVELS, "low"),
        ("low", None, "low"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_chat_sends_an_effort(fake: FakeLMStudio, level: Any, options: Any, sent: str, is_async: bool) -> None:
    listing(fake, options)
    fake.body(completion()).body(completion())
    if is_async:

        async def ask() -> None:
            async with alm(fake.base_url) as client:
                await client.chat().user("Hi").with_reasoning(level).send()

        asyncio.run(ask())
    else:
        with lm(fake.base_url) as client:
            chat = client.chat().user("Hi").with_reasoning(level)
            chat.send()
            chat.with_reasoning(None).send()
            assert "reasoning_effort" not in fake.requests[-1].body
    asked = [request.body for request in fake.requests if request.path == "/v1/chat/completions"]
    assert asked[0]["reasoning_effort"] == sent


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_what_the_model_does_not_take_is_not_sent(fake: FakeLMStudio, level: Any) -> None:
    """A level that the model does not support is not sent to any endpoint."""
    listing(fake, ON_OFF)
    with lm(fake.base_url) as client:
        for ask in (
            lambda: client.chat().user("Hi").with_reasoning(level).send(),
            lambda: client.conversation("m", reasoning=level).send("Hi"),
            lambda: client.responses.create(input="Hi", reasoning=level),
            lambda: client.messages.create(messages=[{"role": "user", "content": "Hi"}], reasoning=level),
        ):
            with pytest.raises(ConfigurationError, match="only off, on"):
                ask()
    assert {request.path for request in fake.requests} == {"/api/v1/models"}
    assert len(fake.requests) == 1


def test_each_endpoint_gets_its_own_field(fake: FakeLMStudio) -> None:
    listing(fake, ON_OFF)
    fake.body(NATIVE).body(RESPONSE).body(RESPONSE).body(MESSAGE).body(MESSAGE)
    said = [{"role": "user", "content": "Hi"}]
    with lm(fake.base_url) as client:
        client.conversation("m", reasoning="off").send("Hi")
        client.responses.create(input="Hi", reasoning="off")
        client.responses.create(input="Hi", reasoning={"effort": "xhigh"})
        client.messages.create(messages=said, reasoning="off")
        client.messages.create(messages=said, reasoning="on")
    native, response, as_given, off, on = [request.body for request in fake.requests if request.body]
    assert native["reasoning"] == "off"
    assert response["reasoning"] == {"effort": "none"}
    assert as_given["reasoning"] == {"effort": "xhigh"}
    assert off["thinking"] == {"type": "disabled"}
    assert on["thinking"]["type"] == "enabled"
    assert 1024 <= on["thinking"]["budget_tokens"] < on["max_tokens"]


def test_a_word_that_is_none_is_refused_at_once() -> None:
    with lm("http://localhost:1") as client, pytest.raises(ConfigurationError, match="not a reasoning level"):
        client.chat().with_reasoning("maximal")  # type: ignore[arg-type]  # what is tested
