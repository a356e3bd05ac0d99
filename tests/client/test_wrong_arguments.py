"""Arguments of a type that no method accepts: a `ConfigurationError` before anything is sent, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

import pytest

import lmdeck
from asking import alm, lm
from lmdeck import ConfigurationError, Message, Reply

URL = "http://127.0.0.1:1"  # nothing answers there
DICT = {"type": "function", "function": {"name": "wave"}}
MESSAGE = {"role": "user", "content": "Hi"}


def wave() -> None:
    """Wave."""


TOOL = lmdeck.tool(wave)
CASES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.chat(5), "The model must be text, not int"),
    (lambda c: c.chat().with_model(5), "The model must be text, not int"),
    (lambda c: c.chat().user(None), "A user message must be text, not NoneType"),
    (lambda c: c.chat().user(Reply(content="Hi")), "A user message must be text, not Reply"),
    (lambda c: c.chat().user("Hi", images="photo.png"), "images must be a list, not str"),
    (lambda c: c.chat().user("Hi", images=[5]), "An image must be a path, bytes or a data URI, not int"),
    (lambda c: c.chat().with_system(None), "A system message must be text, not NoneType"),
    (lambda c: c.chat().assistant(None), "An assistant message must be text, not NoneType"),
    (lambda c: c.chat().assistant("Hi", None), "tool_calls must be a list, not NoneType"),
    (lambda c: c.chat().assistant("Hi", [None]), "no function name"),
    (lambda c: c.chat().tool_result(None, "x"), "call must be a ToolCall or its id, not NoneType"),
    (lambda c: c.chat().with_messages(None), "messages must be a list, not NoneType"),
    (lambda c: c.chat().with_messages(MESSAGE), "messages must be a list, not dict"),
    (lambda c: c.chat().with_messages(Message(role="user", content="Hi")), "messages must be a list, not Message"),
    (lambda c: c.chat().with_messages(["Hi"]), "A message must be a dict or a Message, not str"),
    (lambda c: c.chat().with_tools(TOOL), "tools must be a list, not Tool"),
    (lambda c: c.chat().with_tools(wave), "tools must be a list, not function"),
    (lambda c: c.chat().with_tools(DICT), "tools must be a list, not dict"),
    (lambda c: c.chat().with_tools("wave"), "tools must be a list, not str"),
    (lambda c: c.chat().with_tools(None), "tools must be a list, not NoneType"),
    (lambda c: c.chat().with_tools([None]), "A tool must be a function, a Tool, a dict or a name, not NoneType"),
    (lambda c: c.chat().with_tool_choice(5), "A tool choice must be text, a dict or None, not int"),
    (lambda c: c.chat().cached("1"), "cannot be cached for '1' seconds"),
    (lambda c: c.chat().cached(float("inf")), "cannot be cached for inf seconds"),
    (lambda c: c.chat().with_cache("memory:"), "cache must be a Cache, not str"),
    (lambda c: c.chat().without_rules(["images"]), "is not a request rule"),
    (lambda c: c.adopt(None), "chat must be a Chat or an AsyncChat, not NoneType"),
    (lambda c: c.count_tokens(None), "chat must be a Chat or an AsyncChat, not NoneType"),
    (lambda c: c.conversation(integrations="mcp/x"), "integrations must be a list, not str"),
    (lambda c: c.conversation().send(None), "A message of a conversation must be text, not NoneType"),
    (lambda c: c.conversation().send("Hi", images="photo.png"), "images must be a list, not str"),
    (lambda c: c.conversation().stream(None).until_done(), "A message of a conversation must be text, not NoneType"),
    (lambda c: c.embed(None), "The input must be a text or a list of texts, not NoneType"),
    (lambda c: c.embed({"text": "Hi"}), "The input must be a text or a list of texts, not dict"),
    (lambda c: c.complete(None), "A prompt must be text, not NoneType"),
    (lambda c: c.complete("def f(", suffix=5), "A suffix must be text, not int"),
    (lambda c: c.complete(None, stream=True).until_done(), "A prompt must be text, not NoneType"),
    (lambda c: c.responses.create(input=None), "input must be text or a list of items, not NoneType"),
    (lambda c: c.responses.create(input="Hi", tools=TOOL), "tools must be a list, not Tool"),
    (lambda c: c.responses.create(input="Hi", tools=[wave]), "A tool must be a dict or a Tool, not function"),
    (lambda c: c.messages.create(messages=None), "messages must be a list, not NoneType"),
    (lambda c: c.messages.create(messages=["Hi"]), "A message must be a dict or a Message, not str"),
    (lambda c: c.messages.create(messages=[MESSAGE], tools=[None]), "A tool must be a dict or a Tool, not NoneType"),
    (lambda c: c.decide("Hi", {"x": (bool, "Is it?")}, images="a.png"), "images must be a list, not str"),
    (lambda c: c.fetch_image(None), "The image URL must be text, not NoneType"),
]


@pytest.mark.parametrize(("call", "words"), CASES, ids=[words for _, words in CASES])
def test_an_argument_of_another_type_is_refused(call: Callable[[Any], Any], words: str) -> None:
    """The error names the type that was passed, and the one that is expected; the hint says what to pass."""

    async def main() -> None:
        async with alm(URL) as client:
            value = call(client)
            if isawaitable(value):
                await value

    with lm(URL) as client, pytest.raises(ConfigurationError, match=words) as caught:
        call(client)
    assert caught.value.hint != ConfigurationError.default_hint
    with pytest.raises(ConfigurationError, match=words):
        asyncio.run(main())
