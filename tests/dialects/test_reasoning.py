from __future__ import annotations

import pytest

from lmdeck import StreamParser, parse
from lmdeck.errors import ConfigurationError

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "prefix", "reasoning", "content"),
    [
        ("<think>why</think>because", "", "why", "because"),
        ("why</think>because", "<think>", "why", "because"),
        ("because", "<think></think>", "", "because"),
        ("</think>because", "", "", "because"),
        ("<think>why", "", "why", ""),
        ("[THINK]why[/THINK]because", "", "why", "because"),
        ("one [THINK]why[/THINK]two", "", "why", "one two"),
        ("<seed:think>why</seed:think>because", "", "why", "because"),
        ("<|channel>thought\nwhy<channel|>because", "", "why", "because"),
        (
            "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>because",
            "",
            "why",
            "because",
        ),
        ("why<|end|>", "<|start|>assistant<|channel|>analysis<|message|>", "why", ""),
        ("Here is my thought process: why Here is my response: because", "", "why", "because"),
        ("say `<think>` and </think>", "", "", "say `<think>` and </think>"),
        ("a < b and <thinking", "", "", "a < b and <thinking"),
    ],
)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_reasoning_is_split_off(text: str, prefix: str, reasoning: str, content: str, tools: list | None) -> None:
    """With tools and without, whole and cut everywhere."""
    parsed = parse(text, tools=tools, prefix=prefix)
    assert (" ".join(parsed.reasoning.split()), " ".join(parsed.content.split())) == (reasoning, content)
    parser = StreamParser(tools, prefix=prefix)
    chunks = [chunk for char in text for chunk in parser.feed(char)] + parser.finish()
    assert parser.result.content == parsed.content == "".join(chunk.content for chunk in chunks).strip()
    assert parser.result.reasoning == parsed.reasoning == "".join(chunk.reasoning for chunk in chunks).strip()


def test_a_call_ends_unclosed_reasoning() -> None:
    parsed = parse(f"<think>I need f.{CALL}", tools=TOOLS)
    assert (parsed.reasoning, parsed.content, len(parsed.tool_calls)) == ("I need f.", "", 1)


def test_calls_in_reasoning_count_only_without_an_answer() -> None:
    silent = parse(f"<think>I need f: {CALL}</think>", tools=TOOLS)
    assert len(silent.tool_calls) == 1
    assert [problem.code for problem in silent.problems] == ["calls_in_reasoning"]
    assert parse(f"<think>Not {CALL}.</think>No.", tools=TOOLS).tool_calls == []


def test_without_tools_nothing_is_extracted() -> None:
    assert parse(CALL).content == CALL


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'klingon'"):
        parse("x", dialect="klingon")
