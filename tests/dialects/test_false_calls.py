from __future__ import annotations

import pytest

from dialects.false_calls import TEXTS
from lmdeck import StreamParser, parse

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "search", "parameters": {
        "type": "object", "properties": {"query": {"type": "string"}}}}},
]  # fmt: skip


def test_there_are_enough() -> None:
    assert len(set(TEXTS)) >= 150


@pytest.mark.parametrize("text", TEXTS)
def test_stays_text(text: str) -> None:
    """The text has no call, whole or character by character, and loses no character."""
    parsed = parse(text, tools=TOOLS)
    assert parsed.tool_calls == []
    assert parsed.content == text.strip()
    parser = StreamParser(TOOLS)
    chunks = [chunk for char in text for chunk in parser.feed(char)] + parser.finish()
    assert not any(chunk.has_tool_call for chunk in chunks)
    assert "".join(chunk.content for chunk in chunks).strip() == text.strip()
