"""Every client in every cell of the table in `docs/clients/index.md`, with the real packages.

The packages are large: `pip install --group frameworks` brings them, `nox -s frameworks` runs this in CI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from clients import CLIENTS, MODEL, Client

from lmdeck.testing import FakeLMStudio

PARIS = [("get_weather", {"city": "Paris"})]
EVERY = pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.__name__)
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the packages' own
    pytest.mark.timeout(120),
]


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as server:
        yield server


def client(kind: type[Client], fake: FakeLMStudio) -> Client:
    if not kind.is_installed():
        assert "LMDECK_ALL_FRAMEWORKS" not in os.environ, f"{kind.package} is not installed"
        pytest.skip(f"NOT TESTED: {kind.package} is not installed (pip install --group frameworks)")
    return kind(fake.base_url)


def works(call: Any) -> Any:
    """Run a cell; one that the client has no word for is no cell."""
    try:
        return call()
    except NotImplementedError:
        pytest.skip("this client has no such call")


@EVERY
@STREAM
def test_a_call_in_the_text_is_a_call(fake: FakeLMStudio, kind: type[Client], stream: bool) -> None:
    fake.tool_call("get_weather", city="Paris", dialect="qwen3-coder-xml").reply("It is 21.")
    assert works(lambda: client(kind, fake).calls(stream=stream)) == PARIS
    fake.reset()


@EVERY
@STREAM
def test_broken_arguments_are_mended(fake: FakeLMStudio, kind: type[Client], stream: bool) -> None:
    if kind.__name__ == "AnthropicClient":
        pytest.skip("Anthropic's whole answers hold arguments as objects")
    broken = {
        "index": 0,
        "id": "",
        "type": "function",
        "function": {"name": "get_weather", "arguments": "{'city': 'Paris',}"},
    }
    head: dict[str, Any] = {"id": "c", "created": 1, "model": MODEL}
    delta = {"role": "assistant", "tool_calls": [broken]}
    if stream:
        chunk = {**head, "object": "chat.completion.chunk"}
        fake.frames(
            {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        )
    else:
        choice = {"index": 0, "message": {"content": "", **delta}, "finish_reason": "stop"}
        fake.body({**head, "object": "chat.completion", "choices": [choice]})
    fake.reply("It is 21.")
    assert works(lambda: client(kind, fake).calls(stream=stream)) == PARIS
    fake.reset()


@EVERY
@STREAM
@pytest.mark.parametrize("fault", ["cut", "empty_reply", "server_error", "context_overflow_keep_first"])
def test_half_an_answer_is_an_error(fake: FakeLMStudio, kind: type[Client], stream: bool, fault: str) -> None:
    fake.fail_always(fault)
    with pytest.raises(Exception, match=r"\w") as caught:  # each library has its own classes
        works(lambda: client(kind, fake).text(stream=stream))
    assert not isinstance(caught.value, AttributeError | TypeError | KeyError | IndexError | ValueError), caught.value
    fake.reset()


@EVERY
@STREAM
def test_a_whole_answer_is_itself(fake: FakeLMStudio, kind: type[Client], stream: bool) -> None:
    fake.reply("Sunny, 21 degrees.")
    assert works(lambda: client(kind, fake).text(stream=stream)) == "Sunny, 21 degrees."
    fake.reset()


@EVERY
@STREAM
def test_a_tool_can_be_demanded_by_name(fake: FakeLMStudio, kind: type[Client], stream: bool) -> None:
    """Typed outputs of some frameworks are tools of other names, so the fake calls whichever is offered."""

    def call_it(request: Any) -> Any:
        from lmdeck.testing import Answer
        from lmdeck.testing.answers import PlannedCall

        tools = request.body.get("tools")
        if request.body.get("tool_choice") in (None, "auto") or not tools:
            return "It is 21."
        name = tools[0].get("name") or tools[0]["function"]["name"]
        return Answer(calls=(PlannedCall(name=name, arguments={"city": "Paris"}),), dialect="hermes-json")

    fake.respond(call_it).respond(call_it)
    assert works(lambda: client(kind, fake).calls(stream=stream, named=True)) == PARIS
    fake.reset()


@EVERY
@STREAM
def test_the_second_round_is_accepted(fake: FakeLMStudio, kind: type[Client], stream: bool) -> None:
    """Its first message has null content in most clients."""
    fake.tool_call("get_weather", city="Paris").reply("It is 21.")
    assert works(lambda: client(kind, fake).answer_after_tools(stream=stream)) == "It is 21."


@EVERY
def test_json_can_be_asked_for(fake: FakeLMStudio, kind: type[Client]) -> None:
    fake.reply('{"city": "Paris"}')
    assert works(client(kind, fake).json) == {"city": "Paris"}
    fake.reset()


@EVERY
def test_json_in_the_reasoning_is_found_where_json_was_asked_for(fake: FakeLMStudio, kind: type[Client]) -> None:
    if kind.__name__ == "DSPy":
        pytest.skip("it asks this model for JSON in words alone")
    fake.reply("", reasoning='So: {"city": "Paris"}')
    assert works(client(kind, fake).json) == {"city": "Paris"}
    fake.reset()


@EVERY
def test_embeddings_are_numbers(fake: FakeLMStudio, kind: type[Client]) -> None:
    fake.embeds("Paris", [0.5, -0.25, 1.0])
    assert works(lambda: client(kind, fake).embed("Paris")) == [0.5, -0.25, 1.0]
