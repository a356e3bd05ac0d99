"""Messages, calls and replies: their plain forms, there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck import History
from lmdeck.errors import ConfigurationError
from lmdeck.events import Chunk, ToolCallDelta
from lmdeck.messages import Message, Problem, Reply, ToolCall
from lmdeck.model_info import ModelInfo, ModelInstance
from lmdeck.stats import Usage

CALL = ToolCall(id="123456789", name="get_weather", arguments={"city": "Zürich"}, raw_arguments='{"city": "Zürich"}')
WIRE_CALL = {
    "id": "123456789",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Zürich"}'},
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_reply_as_plain_data_has_the_agreed_form() -> None:
    """`to_dict` is what other programs store: message, first action, all actions, and the rest."""
    reply = Reply(
        content="Let me see.",
        reasoning="hm",
        tool_calls=[CALL, ToolCall(id="b", name="now")],
        finish_reason="tool_calls",
        model="m",
        id="answer-1",
        problems=[Problem("repaired", "a comma")],
        usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
    )
    weather, now = {"name": "get_weather", "args": {"city": "Zürich"}}, {"name": "now", "args": {}}
    shown = reply.to_dict()
    assert shown == {
        "content": {"message": "Let me see.", "action": weather, "actions": [weather, now]},
        "reasoning": "hm",
        "tool_calls": [
            {"id": CALL.id, "name": "get_weather", "arguments": {"city": "Zürich"}},
            {"id": "b", "name": "now", "arguments": {}},
        ],
        "finish_reason": "tool_calls",
        "id": "answer-1",
        "model": "m",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "problems": [{"code": "repaired", "detail": "a comma"}],
    }
    assert json.loads(json.dumps(shown)) == shown


def test_a_reply_without_calls_or_usage_says_none() -> None:
    """What is not there is None or empty, never missing."""
    assert Reply(content="Hi").to_dict() == {
        "content": {"message": "Hi", "action": None, "actions": []},
        "reasoning": "",
        "tool_calls": [],
        "finish_reason": "",
        "id": "",
        "model": "",
        "usage": None,
        "problems": [],
    }
    assert str(Reply(content="Hi")) == "Hi"


def test_a_reply_s_message_can_be_sent_back() -> None:
    """The assistant message never has null content, and its arguments are JSON text."""
    message = Reply(tool_calls=[CALL]).message
    assert message.to_dict() == {"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]}
    assert Message.from_dict(message.to_dict()).to_dict() == message.to_dict()
    assert Reply(content="Hi", reasoning="not sent back").message.to_dict() == {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize(
    "wire",
    [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "123456789"},
    ],
)
def test_a_message_there_and_back(wire: dict) -> None:
    """An OpenAI-style message keeps everything it has."""
    assert Message.from_dict(wire).to_dict() == wire


@pytest.mark.parametrize(
    ("given_arguments", "arguments", "raw"),
    [
        ('{"city": "Paris"}', {"city": "Paris"}, '{"city": "Paris"}'),
        ({"city": "Paris"}, {"city": "Paris"}, '{"city":"Paris"}'),
        ("", {}, "{}"),
        (None, {}, "{}"),
    ],
)
def test_a_call_of_a_history_keeps_arguments_in_both_forms(given_arguments, arguments: dict, raw: str) -> None:
    """Decoded and raw arguments say the same, however they were given."""
    function = {"name": "f", "arguments": given_arguments}
    message = Message.from_dict({"role": "assistant", "tool_calls": [{"id": "a", "function": function}]})
    assert message.tool_calls == (ToolCall(id="a", name="f", arguments=arguments, raw_arguments=raw),)


def test_null_content_is_an_empty_text() -> None:
    """As OpenAI sends it beside calls; LM Studio would refuse null."""
    assert Message.from_dict({"role": "assistant", "content": None}).to_dict() == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("value", [None, "Hi", ["Hi"]])
def test_a_value_that_is_no_message_is_told(value: Any) -> None:
    """Also where a history is built."""
    with pytest.raises(ConfigurationError, match="must be a dict or a Message"):
        History().add(value)


def test_a_call_may_be_given_as_a_value() -> None:
    """The calls of a reply can be put into a message as they are."""
    assert Message.from_dict({"role": "assistant", "tool_calls": [CALL]}).tool_calls == (CALL,)


@pytest.mark.parametrize(
    ("wire", "word"),
    [
        ({"role": "robot", "content": "x"}, "'robot'"),
        ({"content": "x"}, "None"),
        ({"role": ["user"], "content": "x"}, "role"),
        ({"role": "user", "content": 5}, "int"),
        ({"role": "user", "content": {"text": "x"}}, "dict"),
        ({"role": "assistant", "tool_calls": ["f"]}, "function name"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": ""}}]}, "function name"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "list"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": b"\xff"}}]}, "not JSON"),
    ],
)
def test_a_bad_message_is_refused_by_name(wire: dict, word: str) -> None:
    """The error says what is wrong, and what would be right."""
    with pytest.raises(ConfigurationError, match=word):
        Message.from_dict(wire)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_any_arguments_survive_the_wire(arguments: dict) -> None:
    """Whatever JSON holds comes back as it was."""
    call = ToolCall(id="a", name="f", arguments=arguments)
    message = Message(role="assistant", tool_calls=[call])
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))).tool_calls[0].arguments == arguments


def test_values_cannot_be_changed() -> None:
    """What was handed out stays as it is."""
    for value in (CALL, Message(role="user"), Reply(), Chunk(), ToolCallDelta(0, "a"), Problem("a", "b"), Usage()):
        with pytest.raises(AttributeError):
            setattr(value, value.__struct_fields__[0], "x")


def test_a_chunk_says_when_a_call_is_complete() -> None:
    """A piece of a call is no call yet."""
    assert Chunk(tool_call=CALL).has_tool_call
    assert not Chunk(tool_call_delta=ToolCallDelta(0, "a", "f", "{")).has_tool_call


def test_a_problem_reads_as_code_and_detail() -> None:
    """A log line needs no more."""
    assert str(Problem("adjusted", "null content was sent as an empty string.")) == (
        "adjusted: null content was sent as an empty string."
    )


def test_a_model_is_loaded_when_it_has_an_instance() -> None:
    """Its type says whether it is a chat model."""
    assert not ModelInfo(key="m").loaded
    assert ModelInfo(key="m", instances=[ModelInstance(id="m")]).loaded
    assert ModelInfo(key="m", type="vlm").is_chat_model
    assert not ModelInfo(key="m", type="embedding").is_chat_model
