"""The rules by which requests are made acceptable to LM Studio: each is reported, and each can be turned off."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

import lmdeck
from asking import alm, lm
from bodies import completion
from lmdeck import Chat, ConfigurationError, LMStudio, Message, Problem, Reply
from lmdeck._compatibility import RULES
from lmdeck.testing import FakeLMStudio

REFERS = {"$defs": {"City": {"type": "string"}}, "type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}}
PLAIN = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PLAIN}}
OTHER = {"type": "function", "function": {"name": "other", "parameters": PLAIN}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GIF = base64.b64encode(
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
).decode()


def say(*messages: Any) -> Callable[[Chat], Chat]:
    return lambda chat: chat.with_messages([*messages, {"role": "user", "content": "Hi"}])


def sees(url: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


CHANGED: dict[str, tuple[Callable[[Chat], Chat], Callable[[Any], Any], Any, Any]] = {
    "null_content": (
        say({"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "a", "content": ""}),
        lambda body: body["messages"][0]["content"],
        "",
        None,
    ),
    "call_ids": (
        say({"role": "assistant", "tool_calls": [{**CALL, "id": ""}]}, {"role": "tool", "tool_call_id": "", "content": ""}),
        lambda body: [len(body["messages"][0]["tool_calls"][0]["id"]), len(body["messages"][1]["tool_call_id"])],
        [9, 9],
        [0, 0],
    ),
    "json_text": (
        say(
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "tool_call_id": "a", "content": [1, 2]},
        ),
        lambda body: [body["messages"][0]["tool_calls"][0]["function"]["arguments"], body["messages"][1]["content"]],
        ['{"a":1}', "[1,2]"],
        [{"a": 1}, [1, 2]],
    ),
    "tool_choice": (
        lambda chat: chat.user("Hi").with_tools([WEATHER, OTHER]).with_tool_choice("get_weather"),
        lambda body: [body["tool_choice"], len(body["tools"])],
        ["required", 1],
        [{"type": "function", "function": {"name": "get_weather"}}, 2],
    ),
    "tool_parameters": (
        lambda chat: chat.user("Hi").with_tools([{"name": "now"}]),
        lambda body: body["tools"][0]["function"].get("parameters"),
        {"type": "object", "properties": {}},
        None,
    ),
    "schemas": (
        lambda chat: chat.user("Hi").with_tools([{"name": "f", "parameters": REFERS}]),
        lambda body: body["tools"][0]["function"]["parameters"],
        PLAIN,
        REFERS,
    ),
    "json_object": (
        lambda chat: chat.user("Hi").with_options(response_format={"type": "json_object"}),
        lambda body: body["response_format"]["type"],
        "json_schema",
        "json_object",
    ),
    "images": (
        say(sees(f"data:image/gif;base64,{GIF}")),
        lambda body: body["messages"][0]["content"][0]["image_url"]["url"][:15],
        "data:image/png;",
        "data:image/gif;",
    ),
}  # fmt: skip


def ask(fake: FakeLMStudio, make: Callable[[Chat], Chat], **settings: Any) -> tuple[Reply, Any]:
    """Ask, and give the reply and the body that was sent."""
    with lm(fake.base_url, **settings) as client:
        reply = make(client.chat()).send()
        return reply, fake.requests[-1].body


def changes(reply: Reply) -> list[Problem]:
    """Return the problems but the one that the answer, which is words, brings where a call is demanded."""
    return [problem for problem in reply.problems if problem.code != "tool_call_missing"]


@pytest.mark.parametrize("rule", CHANGED)
def test_a_rule_changes_and_reports(hello: FakeLMStudio, rule: str) -> None:
    """Each change is a problem of its own, with the rule's name."""
    make, look, changed, _ = CHANGED[rule]
    reply, body = ask(hello, make)
    assert look(body) == changed
    assert {(problem.code, problem.rule) for problem in changes(reply)} == {("adjusted", rule)}


@pytest.mark.parametrize("rule", CHANGED)
@pytest.mark.parametrize("how", ["chat", "client", "text", "all"])
def test_a_rule_that_is_off_changes_nothing(fake: FakeLMStudio, rule: str, how: str) -> None:
    """The request is sent as given, without a problem, for one chat or for a client."""
    fake.body(completion())  # LM Studio would refuse some of them
    make, look, _, given = CHANGED[rule]
    match how:
        case "chat":
            reply, body = ask(fake, lambda chat: make(chat).without_rules(rule))
        case "client":
            reply, body = ask(fake, make, without_rules=[rule])
        case "text":
            reply, body = ask(fake, make, without_rules=f" {rule}, empty_text,")
        case _:
            reply, body = ask(fake, lambda chat: make(chat.without_rules()))
    assert look(body) == given
    assert changes(reply) == []


def test_the_other_rules_stay(fake: FakeLMStudio) -> None:
    """Disabling one rule affects no other; a chat's rules are added to the client's, and the earlier chat is unchanged."""
    fake.at("/v1/chat/completions").body(completion())

    def chat(new: Chat) -> Chat:
        return new.user("Hi").with_tools([{"name": "f"}, {"name": "g", "parameters": REFERS}])

    reply, _ = ask(fake, lambda one: chat(one).without_rules("schemas"))
    assert [problem.rule for problem in reply.problems] == ["tool_parameters"]
    reply, _ = ask(fake, lambda one: chat(one).without_rules("schemas"), without_rules=["tool_parameters"])
    assert reply.problems == []
    with lm(fake.base_url) as client:
        before = chat(client.chat())
        before.without_rules()
        assert len(before.send().problems) == 2


def test_the_usage_of_a_stream_is_asked_for_unless_that_is_off(fake: FakeLMStudio) -> None:
    """It is no change of what was given, and so not told."""
    fake.at("/v1/chat/completions").reply("Hi")
    with lm(fake.base_url) as client:
        chat = client.chat().user("Hi")
        assert chat.stream().until_done().problems == []
        chat.without_rules("include_usage").stream().until_done()
        assert [request.body.get("stream_options") for request in fake.requests] == [{"include_usage": True}, None]


def test_images_of_the_web_go_as_they_are_where_the_rule_is_off(fake: FakeLMStudio) -> None:
    """An address is sent unchanged, since other servers fetch images themselves."""
    fake.body(completion())
    with lm(fake.base_url) as client:
        client.chat().without_rules("images").user("What?", images=["https://example.com/cat.png"]).send()
        part = fake.requests[0].body["messages"][0]["content"][1]
    assert part == {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}


def test_the_other_endpoints_keep_them_too(fake: FakeLMStudio) -> None:
    """The client's setting applies to the other endpoints as well."""
    content = [{"type": "text", "text": "Hi"}]
    output = [{"type": "message", "content": "Hi"}]
    fake.at("/v1/responses").body({"id": "r", "status": "completed", "output": output})
    fake.at("/v1/messages").body({"type": "message", "content": content, "stop_reason": "end_turn"})
    fake.at("/api/v1/chat").body({"model_instance_id": "m", "output": output})
    history = [Message(role="system", content="Brief."), Message(role="user", content="Hi")]
    image = f"data:image/gif;base64,{GIF}"

    def ask_all(**settings: Any) -> tuple[list[str], list[Any]]:
        with lm(fake.base_url, **settings) as client:
            tools = [{"type": "function", "name": "f"}]
            replies = [
                client.responses.create(input="Hi", text={}, tools=tools),
                client.messages.create(messages=history),
                client.conversation().send("What?", images=[image]),
            ]
            bodies = [request.body for request in fake.requests[-3:]]
        return [problem.rule for reply in replies for problem in reply.problems], bodies

    told, (responses, messages, chat) = ask_all()
    assert told == ["empty_text", "tool_parameters", "system_messages", "images"]
    assert ("text" in responses, len(messages["messages"]), messages["system"]) == (False, 1, "Brief.")
    told, (responses, messages, chat) = ask_all(without_rules="all")
    assert told == []
    assert (responses["text"], "parameters" in responses["tools"][0]) == ({}, False)
    assert (len(messages["messages"]), "system" in messages) == (2, False)
    assert chat["input"][1]["data_url"] == image


def test_an_unknown_rule_is_reported() -> None:
    """The error lists the existing rules, wherever the unknown one was named."""
    with pytest.raises(ConfigurationError, match="schema") as caught:
        LMStudio().chat().without_rules("schema")
    assert "schemas" in caught.value.hint
    for wrong in ("schema", ["schemas", "x"], 5, [5], {"schemas": True}):
        with pytest.raises(ConfigurationError, match="without_rules"):
            LMStudio(without_rules=wrong)  # type: ignore[arg-type]


def test_the_rules_are_listed() -> None:
    """The list is a copy and says what each rule does."""
    listed = lmdeck.rules()
    assert listed == RULES
    listed.clear()
    assert lmdeck.rules()


def test_the_setting_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment holds the rules as text with commas."""
    monkeypatch.setenv("LMDECK_WITHOUT_RULES", "schemas,images")
    assert LMStudio().settings.without_rules == ("schemas", "images")


async def test_async_chats_have_it_too(fake: FakeLMStudio) -> None:
    """The builder is the same."""

    fake.body(completion("{}"))
    async with alm(fake.base_url) as client:
        chat = client.chat().user("Hi").with_options(response_format={"type": "json_object"})
        assert (await chat.without_rules("json_object").send()).problems == []
    fake.assert_sent(body={"response_format": {"type": "json_object"}}, times=1)
