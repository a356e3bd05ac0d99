"""An answer in one body: plain text takes a shortcut past the scanner, which must not show."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck.errors import IncompleteStreamError
from lmdeck.messages import Reply

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}}]
PIECES = [
    "Hello", " ", "\n", "\n\n", "\t", "Action", "A plan:", "to=", "f(x)", "`code`", "```", "```python\n", "- item", "[", "]",
    "{", "}", ": [", '{"a": 1}', '{"name": "add", "arguments": {"a": 1}}', "<p>", "</p>", "<b", "<function", "<|", "<think>",
    "</s>", "<tool_call>", "</tool_call>", "[TOOL_REQUEST]", "[END_TOOL_REQUEST]", "add(a=1)", "\u3000", "functools", ">>>", "é"
]  # fmt: skip


def reader(tools: list[dict[str, Any]], dialect: str = "auto") -> ChatReader:
    """Return a reader of one answer."""
    offered = OfferedTools(tools)
    parser = StreamParser(offered, dialect, new_id=iter(map(str, range(1000))).__next__)
    return ChatReader(200, {}, ChatAssembler(text_parser=parser, tools=offered, expects_tokens=False))


def event(text: str) -> bytes:
    """Return a chunk of a stream with some content."""
    return b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


def body(text: str, **fields: object) -> bytes:
    """Return a body with a whole answer."""
    message = {"role": "assistant", "content": text, **fields}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def whole(text: str, tools: list[dict[str, Any]], reasoning: str | None = None, dialect: str = "auto") -> ChatReader:
    """Return the reader of an answer that came in one body."""
    target = reader(tools, dialect)
    target.feed(body(text, reasoning_content=reasoning))
    target.finish()
    return target


def streamed(text: str, tools: list[dict[str, Any]], reasoning: str | None = None, dialect: str = "auto") -> Reply:
    """Return the reply of the same answer in a stream, letter by letter."""
    target = reader(tools, dialect)
    for char in reasoning or "":
        target.feed(event("").replace(b'"content": ""', b'"reasoning_content": %s' % json.dumps(char).encode()))
    for char in text:
        target.feed(event(char))
    target.feed(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
    target.finish()
    return target.reply()


def shown(reply: Reply) -> tuple[object, ...]:
    """Return what a user sees of a reply."""
    return reply.content, reply.reasoning, reply.tool_calls, reply.problems, reply.finish_reason


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.booleans(), st.sampled_from([None, "Hm."]))
def test_a_whole_answer_is_read_like_its_stream(text: str, has_tools: bool, reasoning: str | None) -> None:
    """Content, calls, problems and their places are the same, with and without tools."""
    tools = TOOLS if has_tools else []
    assert shown(whole(text, tools, reasoning).reply()) == shown(streamed(text, tools, reasoning))


@pytest.mark.parametrize("text", ["ĠHelloĊĠworld", "Hello"])
def test_byte_level_text_is_decoded_in_one_piece_too(text: str) -> None:
    """Letters that stand for bytes become white space."""
    dialect = "minicpm5-xml"
    assert shown(whole(text, [], None, dialect).reply()) == shown(streamed(text, [], None, dialect))


@pytest.mark.parametrize("reason", ["null", '""', '"None"'])
def test_a_message_in_one_body_is_whole_without_a_finish_reason(reason: str) -> None:
    """Some servers send none (janhq/jan#3946); one chunk of a stream as a body is still half an answer."""
    target = reader([])
    target.feed(body("Well.").replace(b'"stop"', reason.encode()))
    target.finish()
    assert shown(target.reply()) == ("Well.", "", [], [], "stop")
    cut = reader([])
    cut.feed(b'{"choices": [{"index": 0, "delta": {"content": "We"}, "finish_reason": null}]}')
    with pytest.raises(IncompleteStreamError):
        cut.finish()


def test_a_refusal_after_the_content_follows_it() -> None:
    """What comes after plain text in the same body is read on from there."""
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    target = reader(TOOLS)
    target.feed(body("Well. ", refusal=call))
    target.finish()
    reply = target.reply()
    assert reply.content == "Well."
    assert [(each.name, each.span) for each in reply.tool_calls] == [("add", (6, 6 + len(call)))]


@pytest.mark.parametrize("text", ["Plain text.", "<think>Hm.</think>Yes.", '<tool_call>{"name": "add"}</tool_call>'])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_finished_answer_is_freed_without_the_garbage_collector(text: str, is_streamed: bool) -> None:
    """Nothing of it refers to itself, so its text goes when its reply goes."""
    wire = b"".join(map(event, text)) + b"data: [DONE]\n\n" if is_streamed else body(text)
    gc.disable()
    try:
        parser = StreamParser(TOOLS)
        target = ChatReader(200, {}, ChatAssembler(text_parser=parser))
        for byte in range(len(wire)):
            target.feed(wire[byte : byte + 1])
        target.finish()
        assert target.reply().finish_reason
        seen = [weakref.ref(target), weakref.ref(parser)]
        del target, parser
        assert [each() for each in seen] == [None, None]
    finally:
        gc.enable()
