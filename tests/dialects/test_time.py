# ruff: noqa: E501 - a table of pieces
"""Nothing that a model could write makes the parser slow: four times the text takes about four times as long."""

from __future__ import annotations

import time

import pytest

from lmdeck import StreamParser

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
OPEN = '<tool_call>{"name": "f", "arguments": {"a": "'
REPEATED = [
    "<tool_call>", "<think>", "<think><tool_call>", "[f(", "[", "{", '{"', "`", "\n", " ", "<", "<|channel|>", "<|start|>assistant",
    OPEN, "<function=f>", "<function=", "[TOOL_CALLS]", "[TOOL_CALLS]f", '[TOOL_CALLS]f[ARGS]{"a": "', "functools[", "\n{", "\nto=",
    "<tool_call>f", "<tool_call>f<arg_key>", "<｜tool▁calls▁begin｜>", "<|tool_call>call:f{a:", "<|open|>", "]<]minimax[>[<tool_call>",
]  # fmt: skip


def took(text: str) -> float:
    begin = time.process_time()
    parser = StreamParser(TOOLS)
    for at in range(0, len(text), 4):
        parser.feed(text[at : at + 4])
    parser.finish()
    return time.process_time() - begin


@pytest.mark.parametrize(
    "head", ["", OPEN, '<tool_call>{"name": "f", "arguments": {"a": [', "<think>"], ids=["", "text", "list", "think"]
)
@pytest.mark.parametrize("piece", REPEATED)
def test_time_grows_with_the_text(piece: str, head: str) -> None:
    small, large = (head + piece * (size // len(piece)) for size in (4_000, 16_000))
    assert any(took(large) < 9 * max(took(small), 1e-4) for _ in range(5))
