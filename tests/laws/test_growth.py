# ruff: noqa: E501 - a table of pieces
"""The time that a text takes grows with its length, whatever it holds: whole, and in pieces.

Only CPU time of this process counts, the shortest of several runs, and eight times the text may take twenty-four times as long:
a busy machine does not matter, and quadratic work takes sixty-four times as long.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from laws.material import TOOLS
from lmdeck import StreamParser, parse

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long
SMALL, LARGE, FACTOR, ALLOWED = 2_000, 128_000, 8, 3
SHAPES = {
    "prose lines": "The quick brown fox jumps over the lazy dog.\n",
    "paragraphs of HTML": "<p>The quick <b>brown</b> fox.</p>\n",
    "items of HTML": "<li>one <s>two</s></li>\n",
    "code": "    if value < limit and name[key](x) > 0:\n        return {'a': [1, 2], **rest}\n",
    "fences": "```python\nprint('hi')\n```\n",
    "blank lines": "\n",
    "one line": "The quick brown fox jumps over the lazy dog. ",
    "lines of JSON": '{"name": "Ann", "age": 30}\n',
    "table": "| a | b | c |\n",
    "short lines": "q\n",
    "bad quotes": '"a" "b", ',
    "quoted words": 'he said "yes" and ',
    "header runs": "<|channel|>analysis to=",
    "open and shut": "\n\n<|tool_call_end|>",
}
HEADS = {
    "": "",
    "in a string": '<tool_call>{"name": "save", "arguments": {"text": "',
    "in a list": '<tool_call>{"name": "save", "arguments": {"tags": [',
    "in a block": "<tool_call>[",
    "in an element": "<tool_call><function=save><parameter=text>",
    "in Python": "[save(text='",
    "in reasoning": "<think>",
    "in a header": '<|open|>call tool="',
    "in a message": "<|channel|>final<|message|>",
}
PIECES = (
    "<tool_call>", "<think>", "<think><tool_call>", "[save(", "[", "{", '{"', "`", " ", "<", "<|channel|>", "<|start|>assistant",
    HEADS["in a string"], "<function=save>", "<function=", "[TOOL_CALLS]", "[TOOL_CALLS]save", '[TOOL_CALLS]save[ARGS]{"text": "',
    "functools[", "\n{", "\nto=", "<tool_call>save", "<tool_call>save<arg_key>", "<｜tool▁calls▁begin｜>", "<|tool_call>call:save{text:",
    "<|open|>", "]<]minimax[>[<tool_call>", '\\"', "</parameter>", "</arg_value>", "'", "print('a'), ", '{"a": ', "</think>", "<|end|>",
    "<parameter=text>", "&lt;", '<invoke name="save">', "<|message|>", '="', "}", "]", ">>>all\n", "\nAction:\n```json\n",
)  # fmt: skip


def whole(text: str) -> None:
    parse(text, TOOLS)


def streamed(text: str) -> None:
    parser = StreamParser(TOOLS)
    for at in range(0, len(text), 4):
        parser.feed(text[at : at + 4])
    parser.finish()


def in_two(text: str) -> None:
    parser = StreamParser(TOOLS)
    parser.feed(text[: len(text) // 2])
    parser.feed(text[len(text) // 2 :])
    parser.finish()


def cpu_time(read: Callable[[str], None], text: str) -> float:
    """Return the CPU seconds of a run, without the garbage collector: what that costs depends on all tests before."""
    gc.disable()
    try:
        begin = time.process_time()
        read(text)
        return time.process_time() - begin
    finally:
        gc.enable()


def grows_too_fast(
    read: Callable[[str], None], head: str, piece: str, size: int = SMALL, allowed: float = ALLOWED
) -> float | None:
    """Return by how much a longer text takes longer, None where that is allowed.

    Of two short texts the slower one counts: where a text is cut in two decides whether its second half takes the short way.
    One run of each is enough where the long one is fast; only what seems slow is measured again, more often.
    """
    small, longer, large = (head + piece * (length // len(piece)) for length in (size, size * 3 // 2, size * FACTOR))
    growth = float("inf")
    for runs in (1, 3, 3, 3):
        least = max(*(min(cpu_time(read, text) for _ in range(runs)) for text in (small, longer)), 2e-4)
        growth = min(growth, cpu_time(read, large) / least)
        if growth <= FACTOR * allowed:
            return None
    return growth


@pytest.mark.parametrize("read", [whole, in_two, streamed])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_documents_take_linear_time(shape: str, head: str, read: Callable[[str], None]) -> None:
    assert grows_too_fast(read, HEADS[head], SHAPES[shape]) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_large_arguments_take_linear_time(shape: str) -> None:
    """Copies of the text are so fast that only a large one shows them."""
    assert grows_too_fast(whole, HEADS["in a string"], SHAPES[shape], LARGE, 1.5) is None


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("piece", PIECES)
def test_repeated_markup_takes_linear_time(piece: str, head: str) -> None:
    assert grows_too_fast(whole, HEADS[head], piece) is None
    assert grows_too_fast(streamed, HEADS[head], piece) is None
