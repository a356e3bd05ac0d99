"""Calls that come natively and in the text of one answer: each counts once, and a stream announces only what comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from lmdeck import StreamParser
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.wire_chunks import Choice, Delta, FunctionDelta, ToolDelta, WireCompletion
from lmdeck.events import Chunk
from lmdeck.messages import Reply

TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip


def native(name: str, arguments: str, index: int = 0) -> Delta:
    return Delta(tool_calls=[ToolDelta(index, f"n{index}", function=FunctionDelta(name, arguments))])


def text(name: str, arguments: dict[str, Any]) -> Delta:
    return Delta(content=f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>")


def streamed(deltas: Sequence[Delta]) -> tuple[Reply, list[Chunk]]:
    assembler = ChatAssembler(tools=OfferedTools(TOOLS), text_parser=StreamParser(TOOLS))
    chunks: list[Chunk] = []
    for delta in deltas:
        assembler.feed(WireCompletion(choices=[Choice(delta=delta)]), chunks)
    assembler.feed(WireCompletion(choices=[Choice(delta=Delta(), finish_reason="stop")]), chunks)
    return assembler.close(chunks), chunks


def sent(deltas: Sequence[Delta]) -> Reply:
    message = Delta(
        content="".join(str(delta.content or "") for delta in deltas),
        tool_calls=[call for delta in deltas for call in delta.tool_calls or ()],
    )
    assembler = ChatAssembler(tools=OfferedTools(TOOLS), text_parser=StreamParser(TOOLS))
    chunks: list[Chunk] = []
    assembler.feed(WireCompletion(choices=[Choice(message=message, finish_reason="stop")]), chunks)
    return assembler.close(chunks)


def of(reply: Reply) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in reply.tool_calls]


@pytest.mark.parametrize("first", ["native", "text"])
@pytest.mark.parametrize(
    ("arguments", "embedded"),
    [
        ('{"city": "Rome", "days": 2}', {"city": "Rome", "days": 2}),
        ('{"city": "Rome", "days": "2"}', {"city": "Rome", "days": 2}),
        ('{"days": 2.0, "city": "Rome"}', {"city": "Rome", "days": 2}),
        ('{"city": "Rome", "days": null}', {"city": "Rome"}),
        ("{}", {"city": "Rome"}),
        ("", {"city": "Rome"}),
    ],
)
def test_a_call_that_comes_both_ways_counts_once(arguments: str, embedded: dict[str, Any], first: str) -> None:
    deltas = [native("look", arguments), text("look", embedded)]
    reply, chunks = streamed(deltas if first == "native" else deltas[::-1])
    assert len(reply.tool_calls) == 1
    assert reply.tool_calls[0].arguments["city"] == "Rome"
    announced = [chunk.tool_call_delta for chunk in chunks if chunk.tool_call_delta is not None]
    assert {delta.index for delta in announced} == {0}
    assert {delta.id for delta in announced} == {reply.tool_calls[0].id}
    if not (
        first == "native" and arguments == "{}"
    ):  # then what was handed on is not taken back, and a problem tells of it
        assert json.loads("".join(delta.arguments for delta in announced))["city"] == "Rome"
    else:
        assert [problem.code for problem in reply.problems] == ["repaired"]
    assert len(sent(deltas).tool_calls) == 1


@pytest.mark.parametrize(
    "deltas",
    [
        [native("ping", "{}"), text("look", {"city": "Rome"})],
        [text("look", {"city": "Rome"}), native("look", '{"city": "Oslo"}'), text("ping", {})],
        [
            native("look", '{"city": "Oslo"}'),
            text("look", {"city": "Rome"}),
            Delta(content="And."),
            native("ping", "{}", 1),
        ],
        [text("look", {"city": "A"}), text("look", {"city": "A"}), native("look", '{"city": "A"}')],
    ],
)
def test_mixed_calls_come_in_one_order_streamed_or_not(deltas: list[Delta]) -> None:
    reply, chunks = streamed(deltas)
    assert of(reply) == of(sent(deltas))
    assert {chunk.tool_call.id for chunk in chunks if chunk.tool_call} == {call.id for call in reply.tool_calls}
    announced = {chunk.tool_call_delta.id for chunk in chunks if chunk.tool_call_delta is not None}
    assert announced == {call.id for call in reply.tool_calls}


def test_a_native_call_of_a_tool_that_was_not_offered_is_reported() -> None:
    reply, _ = streamed([native("nope", "{}")])
    assert [problem.code for problem in reply.problems] == ["unoffered_tool"]
    assert "nope" in reply.problems[0].detail


@pytest.mark.parametrize(
    "delta",
    [
        native("look", '{"city": "Rome\\ud83d"}'),
        Delta(content='<tool_call>{"name": "look", "arguments": {"city": "Rome\\ud83d"}}</tool_call>'),
    ],
)
def test_half_a_surrogate_pair_in_arguments_is_replaced(delta: Delta) -> None:
    reply, _ = streamed([delta])
    assert reply.tool_calls[0].arguments == {"city": "Rome\ufffd"}
    assert [problem.code for problem in reply.problems] == ["repaired"]
    json.dumps(reply.tool_calls[0].arguments, ensure_ascii=False).encode()


@pytest.mark.parametrize("number", ["1e400", "-1e999", "Infinity"])
def test_a_number_that_is_not_finite_is_no_argument(number: str) -> None:
    for delta in (
        native("look", f'{{"days": {number}}}'),
        Delta(content=f'<tool_call>{{"name": "look", "arguments": {{"days": {number}}}}}</tool_call>'),
    ):
        reply, _ = streamed([delta])
        assert all(call.arguments in ({"days": None}, {"days": number}) for call in reply.tool_calls)
        assert reply.problems


# --- the server's own reasoning ---------------------------------------------------------------------------------------


def thought(pieces: Sequence[str], *rest: Delta) -> tuple[Reply, list[Chunk]]:
    return streamed([*(Delta(reasoning_content=piece) for piece in pieces), *rest])


CALL = '<tool_call>{"name": "look", "arguments": {"city": "Rome"}}</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 200])
def test_a_call_in_the_reasoning_counts_where_nothing_answers(size: int) -> None:
    whole = f"<think>I look.\n{CALL}"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    reply, chunks = thought(pieces)
    assert of(reply) == [("look", {"city": "Rome"})]
    assert reply.reasoning == "I look."
    assert "calls_in_reasoning" in {problem.code for problem in reply.problems}
    assert "".join(chunk.reasoning for chunk in chunks).strip() == "I look."
    reply, chunks = thought(pieces, Delta(content="It is sunny."))
    assert (of(reply), reply.content) == ([], "It is sunny.")
    assert reply.reasoning == f"I look.\n{CALL}"
    assert "".join(chunk.reasoning for chunk in chunks).strip() == reply.reasoning
    reply, _ = thought(pieces, native("ping", "{}"))
    assert (of(reply), reply.reasoning) == ([("ping", {})], f"I look.\n{CALL}")


def test_tags_in_the_reasoning_channel_are_markup() -> None:
    reply, _ = thought(["<think>\nHm.", " Yes.\n</th", "ink>\n"], Delta(content="It rains."))
    assert (reply.reasoning, reply.content) == ("Hm. Yes.", "It rains.")
