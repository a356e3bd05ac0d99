"""`lmdeck.render` writes what `lmdeck.parse` reads, or refuses."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lmdeck import ConfigurationError, ToolCall, dialects, parse, render
from lmdeck._parsing.dialects import REGISTRY

CALLS = [{"name": "save", "arguments": {"text": "Zürich", "count": 3}}, {"name": "ping", "arguments": {}}]
NO_VALUE = {"name": "save", "arguments": {"text": "a</arg_value>\n</tool_call>b"}}
TOOLS = [
    {"name": "save", "parameters": {"properties": {"text": {"type": "string"}, "count": {"type": "integer"}}}},
    {"name": "ping", "parameters": {"properties": {}}},
]
PARTS = list(itertools.product(("", "It rains.\nTake a coat."), ([], CALLS[:1], CALLS), ("", "Rain?\nYes.")))


@pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long
@pytest.mark.parametrize("dialect", dialects())
def test_what_is_rendered_is_read(dialect: str) -> None:
    """Each combination of content, calls and reasoning that the dialect has comes back."""
    declared = REGISTRY[dialect]
    stands_alone = bool(declared.bare) or declared.pythonic
    for content, calls, reasoning in PARTS:
        if (reasoning and declared.reasoning_frame is None) or (calls and declared.writes is None):
            with pytest.raises(ConfigurationError, match=dialect):
                render(dialect, content, calls, reasoning)
        elif not (stands_alone and calls and (content or reasoning)):
            parsed = parse(render(dialect, content, calls, reasoning), TOOLS, dialect)
            assert (parsed.content, parsed.reasoning) == (content, reasoning)
            assert [{"name": call.name, "arguments": call.arguments} for call in parsed.tool_calls] == calls


def test_calls_may_be_tool_calls() -> None:
    call = ToolCall(id="1", name="save", arguments={"text": "x"})
    assert render("hermes-json", calls=[call]) == render(
        "hermes-json", calls=[{"name": "save", "arguments": {"text": "x"}}]
    )
    assert parse(render("hermes-json", calls=[call]), TOOLS).tool_calls[0].arguments == {"text": "x"}


@pytest.mark.parametrize(
    ("dialect", "parts", "says"),
    [
        ("klingon", {"content": "x"}, "no dialect 'klingon'"),
        ("think-tags", {"calls": CALLS}, "has no tool calls"),
        ("jamba", {"reasoning": "x"}, "has no reasoning"),
        ("glm45-xml", {"calls": [NO_VALUE]}, "cannot express the calls"),
        ("hermes-json", {"content": "<think>x</think>y"}, "cannot express the content"),
        ("hermes-json", {"calls": [{"name": "save", "arguments": "{}"}]}, "needs a name and an object"),
        ("hermes-json", {"calls": [{"arguments": {}}]}, "needs a name and an object"),
        ("hermes-json", {"calls": [{"name": "save", "arguments": {"text": object()}}]}, "cannot be written as JSON"),
    ],
)  # fmt: skip
def test_what_a_dialect_cannot_express_is_refused(dialect: str, parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        render(dialect, **parts)
    assert caught.value.hint


def test_values_of_each_type_come_back_beside_reasoning_and_content() -> None:
    arguments = {"text": "Zürich", "on": True, "share": 1.5, "more": {"a": None}, "tags": ["x", 1], "none": []}
    text = render("hermes-json", "It rains.", [{"name": "save", "arguments": arguments}], "Hm.")
    parsed = parse(text, TOOLS)
    assert (parsed.content, parsed.reasoning, parsed.tool_calls[0].arguments) == ("It rains.", "Hm.", arguments)
