"""Every client in every cell of the table in `docs/clients/index.md`, with the real packages.

Each client is tried with lmdeck's transport, and as it is through a gateway. The packages are large: `pip install --group
frameworks` brings them, `nox -s frameworks` runs this in CI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from clients import CLIENTS, MODEL, Client

from gateways import config_of, gateway
from lmdeck.testing import FakeLMStudio

PARIS = [("get_weather", {"city": "Paris"})]
EVERY = pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.__name__)
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the packages' own
    pytest.mark.timeout(120),
]


Clients: TypeAlias = Callable[[type[Client]], Client]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as running:
        yield running


@pytest.fixture(scope="module")
def gateway_url(server: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway that keeps the host in use, however many faults it has."""
    config = config_of([server], "[routing]\nfaults = 1000\n")
    with gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running.url


@pytest.fixture
def fake(server: FakeLMStudio) -> Iterator[FakeLMStudio]:
    yield server
    server.reset()


@pytest.fixture(params=["transport", "gateway"])
def client(request: pytest.FixtureRequest, fake: FakeLMStudio) -> Clients:
    """Return how a client is made: with lmdeck's transport, or without it, in front of a gateway."""
    is_plain = request.param == "gateway"
    url = request.getfixturevalue("gateway_url") if is_plain else fake.base_url

    def make(kind: type[Client]) -> Client:
        if not kind.is_installed():
            assert "LMDECK_ALL_FRAMEWORKS" not in os.environ, f"{kind.package} is not installed"
            pytest.skip(f"NOT TESTED: {kind.package} is not installed (nox -s frameworks installs it)")
        return kind(url, is_plain=is_plain)

    return make


def works(call: Any) -> Any:
    """Run a cell; one that the client has no word for is no cell."""
    try:
        return call()
    except NotImplementedError:
        pytest.skip("this client has no such call")


@EVERY
@STREAM
def test_a_call_in_the_text_is_a_call(fake: FakeLMStudio, client: Clients, kind: type[Client], stream: bool) -> None:
    fake.tool_call("get_weather", city="Paris", dialect="qwen3-coder-xml").reply("It is 21.")
    assert works(lambda: client(kind).calls(stream=stream)) == PARIS


@EVERY
@STREAM
def test_broken_arguments_are_mended(fake: FakeLMStudio, client: Clients, kind: type[Client], stream: bool) -> None:
    if kind.kind != "chat":
        pytest.skip("the answer is written by hand, in the format of chats")
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
    assert works(lambda: client(kind).calls(stream=stream)) == PARIS


@EVERY
@STREAM
@pytest.mark.parametrize("fault", ["cut", "empty_reply", "server_error", "context_overflow_keep_first"])
def test_half_an_answer_is_an_error(
    fake: FakeLMStudio, client: Clients, kind: type[Client], stream: bool, fault: str
) -> None:
    fake.fail_always(fault)
    with pytest.raises(Exception, match=r"\w") as caught:  # each library has its own classes
        works(lambda: client(kind).text(stream=stream))
    assert not isinstance(caught.value, AttributeError | TypeError | KeyError | IndexError | ValueError), caught.value


@EVERY
@STREAM
def test_a_whole_answer_is_itself(fake: FakeLMStudio, client: Clients, kind: type[Client], stream: bool) -> None:
    fake.reply("Sunny, 21 degrees.")
    assert works(lambda: client(kind).text(stream=stream)) == "Sunny, 21 degrees."


@EVERY
@STREAM
def test_a_tool_can_be_demanded_by_name(fake: FakeLMStudio, client: Clients, kind: type[Client], stream: bool) -> None:
    """Typed outputs of some frameworks are tools of other names, so the fake calls whichever is offered."""

    def call_it(request: Any) -> Any:
        from lmdeck.testing import Answer
        from lmdeck.testing.scripted_answers import PlannedCall

        tools = request.body.get("tools")
        if request.body.get("tool_choice") in (None, "auto") or not tools:
            return "It is 21."
        name = tools[0].get("name") or tools[0]["function"]["name"]
        return Answer(calls=(PlannedCall(name=name, arguments={"city": "Paris"}),), dialect="hermes-json")

    fake.respond(call_it).respond(call_it)
    assert works(lambda: client(kind).calls(stream=stream, named=True)) == PARIS


@EVERY
@STREAM
def test_the_second_round_is_accepted(fake: FakeLMStudio, client: Clients, kind: type[Client], stream: bool) -> None:
    """Its first message has null content in most clients."""
    fake.tool_call("get_weather", city="Paris").reply("It is 21.")
    assert works(lambda: client(kind).answer_after_tools(stream=stream)) == "It is 21."


@EVERY
def test_json_can_be_asked_for(fake: FakeLMStudio, client: Clients, kind: type[Client]) -> None:
    fake.reply('{"city": "Paris"}')
    assert works(client(kind).json) == {"city": "Paris"}


@EVERY
def test_json_in_the_reasoning_is_found_where_json_was_asked_for(
    fake: FakeLMStudio, client: Clients, kind: type[Client]
) -> None:
    if kind.__name__ == "DSPy":
        pytest.skip("it asks this model for JSON in words alone")
    fake.reply("", reasoning='So: {"city": "Paris"}')
    assert works(client(kind).json) == {"city": "Paris"}


@EVERY
def test_embeddings_are_numbers(fake: FakeLMStudio, client: Clients, kind: type[Client]) -> None:
    fake.embeds("Paris", [0.5, -0.25, 1.0])
    assert works(lambda: client(kind).embed("Paris")) == [0.5, -0.25, 1.0]
