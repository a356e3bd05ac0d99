"""Answers that fail in the middle: the partial reply has what the parser still held, and no call that may be cut off."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmdeck import dialects, parse, render
from lmdeck._parsing.dialects import REGISTRY
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck.errors import APIError, IncompleteStreamError, LMStudioError, MalformedStreamError
from lmdeck.events import Chunk

TOOLS = [{"name": "save", "parameters": {"properties": {"text": {"type": "string"}}}}]
CALL = {"name": "save", "arguments": {"text": "Rome"}}
OPENED = '<tool_call>{"name": "save", "arguments": {"text": "Ro'
DONE = '<tool_call>{"name": "save", "arguments": {"text": "Rome"}}</tool_call>'
FAILURES = [
    (b"", IncompleteStreamError),
    (b"data: {", IncompleteStreamError),
    (b"data: {]\n\n", MalformedStreamError),
    (b'data: {"error": {"message": "It broke"}}\n\n', APIError),
    (b'data: {"error": {"message": "It broke"}\n\n', MalformedStreamError),
    (b"event: error\ndata: It broke\n\n", APIError),
]


def reader(dialect: str = "auto") -> ChatReader:
    tools = OfferedTools(TOOLS)
    return ChatReader(200, {}, ChatAssembler(text_parser=StreamParser(tools, dialect), tools=tools))


def event(**delta: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def read(target: ChatReader, wire: bytes) -> None:
    target.feed(wire)
    target.finish()


@pytest.mark.parametrize(("failure", "kind"), FAILURES)
@pytest.mark.parametrize(
    ("text", "content", "reasoning", "codes"),
    [
        ("Hi <tool_", "Hi <tool_", "", []),
        ("Hi <", "Hi <", "", []),
        ("Hi [TOOL_", "Hi [TOOL_", "", []),
        (f"Hi {OPENED}", "Hi", "", ["tool_call_incomplete"]),
        (f"Hi {DONE.removesuffix('</tool_call>')}", "Hi", "", ["tool_call_incomplete"]),
        ("<think>Hm</thi", "", "Hm</thi", ["reasoning_unclosed"]),
    ],
)
def test_an_error_has_the_text_that_was_held_back(
    failure: bytes, kind: type[LMStudioError], text: str, content: str, reasoning: str, codes: list[str]
) -> None:
    target = reader()
    with pytest.raises(kind) as caught:
        read(target, event(content=text) + failure)
    for partial in (caught.value.partial, target.cut_off()):
        assert partial is not None
        assert (partial.content, partial.reasoning, partial.tool_calls) == (content, reasoning, [])
        assert [problem.code for problem in partial.problems] == codes
        assert all("save" in problem.detail for problem in partial.problems if problem.raw)


def test_only_calls_that_were_complete_before_the_failure_are_in_the_partial_reply() -> None:
    """Also beside native calls; a cut native call is reported beside the problems of the text."""
    target = reader()
    target.feed(event(content=DONE + OPENED))
    native = {"index": 0, "id": "n", "function": {"name": "load", "arguments": '{"a'}}
    target.feed(event(tool_calls=[native]))
    partial = target.cut_off()
    assert [call.name for call in partial.tool_calls] == ["save"]
    assert [problem.code for problem in partial.problems] == ["tool_call_incomplete"] * 2


def test_a_call_in_the_reasoning_of_a_cut_answer_does_not_count() -> None:
    target = reader()
    target.feed(event(reasoning_content=f"Hm {DONE}"))
    partial = target.cut_off()
    assert (partial.reasoning, partial.tool_calls) == (f"Hm {DONE}", [])


def test_the_end_of_a_finished_answer_is_not_read_again() -> None:
    target = reader()
    target.feed(event(content="Hi <tool_") + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n')
    assert target.cut_off().content == "Hi <tool_"
    target.finish()
    assert target.cut_off() == target.reply()


@pytest.mark.no_cover  # the same lines, in every dialect
@pytest.mark.parametrize("dialect", [name for name in dialects() if REGISTRY[name].writes])
def test_a_cut_answer_has_the_text_and_no_new_call_in_every_dialect(dialect: str) -> None:
    """Wherever it is cut, the text is that of a regular end, and a call is only what a chunk had already returned."""
    declared = REGISTRY[dialect]
    says = "" if declared.bare or declared.pythonic else "Look: "
    text = render(dialect, says, [CALL])
    for end in range(len(text) + 1):
        target, chunks = reader(dialect), list[Chunk]()
        for char in text[:end]:
            chunks += target.feed(event(content=char))
        partial, regular = target.cut_off(), parse(text[:end], TOOLS, dialect)
        assert partial.tool_calls == [chunk.tool_call for chunk in chunks if chunk.tool_call]
        assert (partial.content, partial.reasoning) == (regular.content, regular.reasoning)
        is_reported = any(problem.code == "tool_call_incomplete" for problem in partial.problems)
        assert is_reported or len(partial.tool_calls) == len(regular.tool_calls)
