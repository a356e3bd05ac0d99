"""Calls that are written in a dialect, cut anywhere, and must come back."""

from __future__ import annotations

import json
import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdeck import StreamParser, dialects, parse
from lmdeck._parsing.dialects import REGISTRY

TOOLS = [
    {"type": "function", "function": {"name": "save", "parameters": {"type": "object", "properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "share": {"type": "number"}, "on": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}}, "more": {"type": "object"}}}}},
    {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip
Call = tuple[str, dict[str, Any]]


WRITERS = {name: dialect.writes for name, dialect in REGISTRY.items() if dialect.writes is not None}

UNMARKED = {
    name
    for name, dialect in REGISTRY.items()
    if dialect.bare or (dialect.writes and dialect.pythonic and name != "lfm2")
}
"""Dialects whose calls have no marker: they are judged when they are whole, and stand before text or behind it."""
ALONE = UNMARKED | {name for name, dialect in REGISTRY.items() if any(marker.channel for marker in dialect.markers)}
"""Dialects whose calls stand alone in an answer, or in a message of their own."""

FRAMES = ("<|tool_calls|>", "<|open|>tools<|sep|>")
"""Tokens around all calls of an answer, which say nothing by themselves."""
READ_WHOLE = ("minicpm5-xml", "minimax-m3")
"""Their values may be text or nested elements: which, only the end tells."""

SAMPLES: dict[str, list[Call]] = {
    "plain": [("save", {"text": "hello"})],
    "empty arguments": [("ping", {})],
    "parallel": [("save", {"text": "a"}), ("ping", {}), ("save", {"count": 2})],
    "nested": [("save", {"more": {"a": [1, {"b": None}], "c": {}}, "tags": ["x", "y"]})],
    "types": [("save", {"count": -3, "share": 2.5, "on": True, "tags": []})],
    "unicode": [("save", {"text": "Zürich 東京 🧑‍🚀 مرحبا"})],
    "escapes": [("save", {"text": "say \"hi\"\\ and 'bye' \t {[<b>]} </"})],
    "lines": [("save", {"text": "one\n  two\n\nthree"})],
}


def fed(text: str, cut: Any, **options: Any) -> Any:
    parser = StreamParser(TOOLS, **options)
    chunks = [chunk for part in cut(text) for chunk in parser.feed(part)]
    return parser, chunks + parser.finish()


def pieces(text: str, seed: int) -> list[str]:
    rng, parts, at = random.Random(seed), [], 0
    while at < len(text):
        size = rng.choice((1, 1, 2, 3, 7, 20))
        parts.append(text[at : at + size])
        at += size
    return parts


def check(text: str, calls: list[Call], dialect: str, cut: Any) -> None:
    parser, chunks = fed(text, cut, dialect=dialect)
    result = parser.result
    assert [(call.name, call.arguments) for call in result.tool_calls] == calls
    assert result.problems == []
    written: dict[int, str] = {}
    for chunk in chunks:
        if chunk.tool_call_delta:
            written[chunk.tool_call_delta.index] = (
                written.get(chunk.tool_call_delta.index, "") + chunk.tool_call_delta.arguments
            )
    assert [json.loads(text) for text in written.values()] == [given for _, given in calls]
    assert [call.raw_arguments for call in result.tool_calls] == list(written.values())
    assert len({call.id for call in result.tool_calls}) == len(calls)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("dialect", WRITERS)
def test_every_dialect_reads_what_it_writes(dialect: str, sample: str) -> None:
    calls = SAMPLES[sample]
    text = WRITERS[dialect](calls)
    for name in (dialect, "auto"):
        check(text, calls, name, lambda text: [text])
        check(text, calls, name, list)
    assert parse(text, tools=TOOLS).content == ""


@pytest.mark.parametrize("dialect", [name for name in WRITERS if name not in ALONE])
def test_text_around_calls_is_content(dialect: str) -> None:
    text = "Before.\n" + WRITERS[dialect]([("save", {"text": "x"})])
    assert parse(text, tools=TOOLS).content == "Before."
    text += "\nAfter."
    parsed = parse(text, tools=TOOLS)
    assert parsed.content.split() == ["Before.", "After."]
    assert len(parsed.tool_calls) == 1


@pytest.mark.parametrize("dialect", WRITERS)
def test_cut_off_anywhere_nothing_is_lost_silently(dialect: str) -> None:
    """Complete calls stay; of the last one there is a call, a problem or the text itself."""
    calls: list[Call] = [("save", {"text": "first"}), ("save", {"tags": ["x"], "text": "second"})]
    text = WRITERS[dialect](calls)
    for end in range(1, len(text)):
        parser, _ = fed(text[:end], partial(pieces, seed=end))
        result = parser.result
        got = [(call.name, call.arguments) for call in result.tool_calls]
        assert got == calls[: len(got)] or result.problems
        assert got or result.problems or result.content or text[:end].strip() in ("", *FRAMES)


@pytest.mark.parametrize(
    "dialect", [name for name in WRITERS if name not in UNMARKED - {"llama3-python-tag", "poolside-v1"}]
)
def test_a_name_is_announced_before_the_call_is_whole(dialect: str) -> None:
    text = WRITERS[dialect]([("save", {"text": "x" * 400})])
    parser = StreamParser(TOOLS)
    seen = [
        chunk.tool_call_delta.name
        for char in text[: len(text) - 300] for chunk in parser.feed(char) if chunk.tool_call_delta
    ]  # fmt: skip
    assert seen[0] == "save"
    assert len(seen) > 20 or dialect in READ_WHOLE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"text": "a",}', {"text": "a"}),
        ("{'text': 'it\\'s'}", {"text": "it's"}),
        ('{"on": True, "more": None}', {"on": True, "more": None}),
        ('{"text": "two\nlines"}', {"text": "two\nlines"}),
        ('{text: "a"}', {"text": "a"}),
        ('{"text": "a" "count": 1}', {"text": "a", "count": 1}),
        ('{"tags": ["a" "b"]}', {"tags": ['a" "b']}),
        ('{"text": "C:\\data"}', {"text": "C:\\data"}),
        ('{"text": "say "hi" now"}', {"text": 'say "hi" now'}),
        ('{"count": 1', {"count": 1}),
    ],
)
def test_repairs_are_reported(arguments: str, expected: dict[str, Any]) -> None:
    text = f'<tool_call>{{"name": "save", "arguments": {arguments}}}</tool_call>'
    for cut in (lambda text: [text], list):
        parser, _ = fed(text, cut)
        assert [call.arguments for call in parser.result.tool_calls] == [expected]
        assert [problem.code for problem in parser.result.problems] == ["repaired"]


@pytest.mark.parametrize(
    "body", ['{"name": "save", "arguments": [1]}', '{"name": "save", "arguments": {"a": <>}}', '{"x": 1}']
)
def test_what_cannot_be_read_stays_text(body: str) -> None:
    text = f"<tool_call>{body}</tool_call>"
    parsed = parse(text, tools=TOOLS)
    assert parsed.content == text
    assert [problem.code for problem in parsed.problems] == ["tool_call_unparsed"]


def test_every_example_is_read() -> None:
    """The examples that the docs show, each by its own dialect and by all."""
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"]
    for dialect in REGISTRY.values():
        for name in (dialect.name, "auto"):
            if dialect.example and not (name == "auto" and dialect.name == "functionary-v3.2"):
                parsed = parse(dialect.example, tools=tools, dialect=name)
                assert [call.name for call in parsed.tool_calls][:1] == ["f"], (dialect.name, name)
                assert parsed.content == "", dialect.name
    assert set(dialects()) == set(REGISTRY)


plain_text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>|[]｜`\\\"'{}"), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "text": plain_text.map(str.strip), "count": st.integers(-(10**12), 10**12), "on": st.booleans(),
        "tags": st.lists(plain_text, max_size=3), "more": st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    },
)  # fmt: skip
calls_ = st.lists(st.tuples(st.just("save"), arguments), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(dialect=st.sampled_from(sorted(WRITERS)), calls=calls_, seed=st.integers(0, 1 << 20))
def test_random_calls_come_back_under_random_cuts(dialect: str, calls: list[Call], seed: int) -> None:
    check(WRITERS[dialect](calls), calls, "auto", lambda text: pieces(text, seed))


MARKERS = sorted({marker.text for dialect in REGISTRY.values() for marker in dialect.markers})
SCRAPS = (
    '{"name": "save", "arguments": {',
    "}",
    "]",
    '"',
    "</",
    ">",
    "<think>",
    "</think>",
    "\n",
    " ",
    "x",
    "```",
    "`",
    ",",
    ":",
    "1",
)
fragments = st.lists(st.sampled_from([*MARKERS, *SCRAPS, "save", "</tool_call>"]), max_size=25)


@settings(max_examples=300, deadline=None)
@given(parts=fragments, seed=st.integers(0, 1 << 20))
def test_no_text_breaks_it_and_no_cut_changes_it(parts: list[str], seed: int) -> None:
    text = "".join(parts)
    whole = parse(text, tools=TOOLS)
    parser, chunks = fed(text, lambda text: pieces(text, seed))
    cut = parser.result
    assert (cut.content, cut.reasoning) == (whole.content, whole.reasoning)
    assert [(call.name, call.arguments) for call in cut.tool_calls] == [
        (call.name, call.arguments) for call in whole.tool_calls
    ]
    assert "".join(chunk.content for chunk in chunks).strip() == cut.content
    assert "".join(chunk.reasoning for chunk in chunks).strip() == cut.reasoning
