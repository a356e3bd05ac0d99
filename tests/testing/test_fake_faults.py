"""lmdeck under every fault of the fake: the right answer or the right error, with nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import lmdeck
from asking import WAYS, Way, lm, nothing_left_behind
from lmdeck import LMStudioError
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.faults import FAMILIES, FAULTS
from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

RIGHT = "The answer is 42, sagt Zoë 🙂, and there is a good deal more to say about it."
ERRORS = {
    "refuse": "ServerUnreachableError",
    "reset_at_once": "ConnectionLostError",
    "close_at_once": "ConnectionLostError",
    "hang": "RequestTimeoutError",
    "half_head": "IncompleteStreamError ConnectionLostError",
    "no_http": "MalformedStreamError",
    "stall": "RequestTimeoutError",
    "reset": "ConnectionLostError",
    "cut": "ConnectionLostError",
    "early_end": "IncompleteStreamError",
    "half_chunk": "IncompleteStreamError",
    "garbage": "MalformedStreamError IncompleteStreamError ConnectionLostError",
    "bad_json": "MalformedStreamError",
    "invalid_utf8": "MalformedStreamError",
    "long_line": "MalformedStreamError",
    "truncated_body": "ConnectionLostError",
    "empty_body": "IncompleteStreamError",
    "empty_reply": "EmptyReplyError",
    "rate_limit": "RateLimitError",
    "server_error": "ServerError",
    "overloaded": "ServerError",
    "bad_gateway": "ServerError",
    "html": "MalformedStreamError",
    "redirect": "APIError",
    "unexpected_endpoint": "EndpointNotFoundError",
    "unauthorized": "AuthenticationError",
    "crash": "ModelCrashedError",
    "unload": "ModelCrashedError",
    "channel_error": "ModelCrashedError",
    "prediction_error": "InvalidRequestError APIError ServerError",
    "tool_call_unparsed": "InvalidRequestError APIError ServerError",
    "context_overflow_keep_first": "ContextLengthError",
    "context_overflow_tokens_to_keep": "ContextLengthError",
    "context_overflow_n_keep": "ContextLengthError",
    "context_overflow_code": "ContextLengthError",
    "context_overflow_crash": "ModelCrashedError",
    "model_not_found": "ModelNotFoundError",
    "no_models_loaded": "NoModelLoadedError",
    "load_refused": "ModelLoadError",
    "template_error": "TemplateError",
    "grammar_error": "InvalidRequestError",
}
RETRIED = ["reset_at_once", "close_at_once", "server_error", "overloaded", "bad_gateway", "rate_limit"]
SILENT = {name for name, kinds in ERRORS.items() if kinds == "RequestTimeoutError"}


def limits(name: str) -> dict[str, Any]:
    """Return settings for a fault: short limits where one must run out, else ones that a busy machine keeps."""
    return {"model": "qwen2.5-7b-instruct", **({"timeout": 0.4, "first_token_timeout": 0.8} if name in SILENT else {})}


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=7) as fake:
        yield fake


@pytest.fixture
def fake(shared: FakeLMStudio) -> FakeLMStudio:
    shared.reset()
    return shared


def test_every_fault_has_a_description() -> None:
    assert len(FAULTS) >= 50
    assert sum(name.startswith("context_overflow") for name in FAULTS) == 5
    for name, fault in FAULTS.items():
        assert fault.summary.endswith("."), name
        assert FakeLMStudio.faults()[name] == fault.summary
    assert {fault.run.__module__ for fault in FAULTS.values()} == {family.__name__ for family in FAMILIES}
    assert {name for name, fault in FAULTS.items() if fault.expect == "error"} == set(ERRORS)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", FAULTS)
def test_the_right_answer_or_the_right_error(fake: FakeLMStudio, name: str, way: Way) -> None:
    options = {"seconds": PATIENCE} if FAULTS[name].closes_port else {}  # closed for longer than the retries take
    fake.fail(name, reply=RIGHT, **options)
    with nothing_left_behind():
        if FAULTS[name].expect == "right":
            assert way.ask(fake.base_url, **limits(name)).content == RIGHT
        else:
            with pytest.raises(LMStudioError) as caught:
                way.ask(fake.base_url, **limits(name))
            assert type(caught.value).__name__ in ERRORS[name].split()
            assert caught.value.hint
            partial = getattr(caught.value, "partial", None)
            assert partial is None or RIGHT.startswith(partial.content)
    assert fake.pending == 0


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", RETRIED)
def test_what_comes_before_the_first_byte_is_tried_again(fake: FakeLMStudio, name: str, way: Way) -> None:
    fake.fail(name).reply(RIGHT)
    assert way.ask(fake.base_url, **limits(name), retry_attempts=2).content == RIGHT
    fake.assert_call_count(2)


def test_a_port_that_opens_again_is_reached_again(fake: FakeLMStudio) -> None:
    fake.fail("refuse", seconds=0.15).reply(RIGHT)
    with lm(fake.base_url, **limits("refuse"), retry_attempts=20, retry_delay=0.05) as client:
        assert client.chat().user("a").send().content == RIGHT


@pytest.mark.parametrize(
    "name", ["duplicate_chunk", "out_of_order_index", "empty_chunks", "no_roles", "json_for_stream"]
)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_tool_calls_survive_odd_streams(fake: FakeLMStudio, name: str, way: Way) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    from lmdeck.testing import Answer
    from lmdeck.testing.scripted_answers import PlannedCall

    calls = tuple(PlannedCall(name="add", arguments={"a": number, "b": 1}) for number in (1, 2))
    fake.fail(name, reply=Answer(calls=calls)).reply("done")
    with lm(fake.base_url, **limits(name)) as client:
        chat = client.chat().user("a").with_tools([add])
        reply = chat.stream(lambda _: None) if way.is_streamed else chat.send()
    assert [call.arguments for call in reply.tool_calls] == [{"a": 1, "b": 1}, {"a": 2, "b": 1}]
    assert len({call.id for call in reply.tool_calls}) == 2


@pytest.mark.parametrize(
    "name", ["stall", "reset", "cut", "early_end", "crash", "server_error", "context_overflow_n_keep"]
)
@pytest.mark.parametrize("endpoint", ["conversation", "responses", "messages"])
def test_the_other_endpoints_fail_as_clearly(fake: FakeLMStudio, name: str, endpoint: str) -> None:
    with nothing_left_behind(), lm(fake.base_url, **limits(name)) as client:
        for is_streamed in (False, True):
            fake.fail(name, reply=RIGHT)
            with pytest.raises(LMStudioError) as caught:
                _ask(client, endpoint, is_streamed=is_streamed)
            assert type(caught.value).__name__ in ERRORS[name].split()


def _ask(client: lmdeck.LMStudio, endpoint: str, *, is_streamed: bool) -> None:
    if endpoint == "conversation":
        conversation = client.conversation()
        asked = conversation.stream("a") if is_streamed else conversation.send("a")
    elif endpoint == "responses":
        asked = client.responses.stream(input="a") if is_streamed else client.responses.create(input="a")
    else:
        turns = [{"role": "user", "content": "a"}]
        make = client.messages.stream if is_streamed else client.messages.create
        asked = make(messages=turns, max_tokens=99)
    if isinstance(asked, lmdeck.ChatStream):
        with asked as stream:
            stream.until_done()
