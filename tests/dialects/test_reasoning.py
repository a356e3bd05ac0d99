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
        ("say `<think>` and </think>", "", "", "say `<think>` and </think>"),
        ("a < b and <thinking", "", "", "a < b and <thinking"),
    ],
)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_reasoning_is_split_off(text: str, prefix: str, reasoning: str, content: str, tools: list | None) -> None:
    """Reasoning is found with and without tools, whole and cut at every place."""
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


@pytest.mark.parametrize(
    ("text", "dialect", "reasoning", "content"),
    [
        ("Here is my thought process: why Here is my response: because", "granite-reasoning", "why", "because"),
        ("Here are my reasoning steps:\nwhy\n[BEGIN FINAL RESPONSE]\nbecause", "apriel-1.6", "why", "because"),
        ("<response>yes</response>", "granite", "", "yes"),
        ("<answer>yes</answer>", "hunyuan", "", "yes"),
        ("The Senate <co>voted</co: 0:[1]> today.</s>", "command-a", "", "The Senate voted today.</s>"),
        ("Was <s>20</s> now 15.</s>", "mistral-v3", "", "Was <s>20</s> now 15."),
    ],
)
def test_words_act_only_where_their_dialect_is_spoken(text: str, dialect: str, reasoning: str, content: str) -> None:
    """Ordinary text holds them too: without the dialect's name, its architecture or one of its special tokens it stays."""
    for whole in (True, False):
        for named, expected in ((dialect, (reasoning, content)), ("auto", ("", text))):
            parser = StreamParser(TOOLS, named)
            for piece in [text] if whole else text:
                parser.feed(piece)
            parser.finish()
            assert (parser.result.reasoning, parser.result.content) == expected


def test_a_special_token_of_a_dialect_is_evidence_of_it() -> None:
    parsed = parse("[THINK]why[/THINK]because</s>", TOOLS)
    assert (parsed.reasoning, parsed.content) == ("why", "because")
    parsed = parse("<|START_RESPONSE|>The Senate <co>voted</co: 0:[1]>.<|END_RESPONSE|>", TOOLS)
    assert parsed.content == "The Senate voted."


@pytest.mark.parametrize(
    "text",
    [
        "<|start|>assistant is how a turn begins.",
        '{"html": "<s>old</s> <|eot_id|> <answer>new</answer> <think>x</think>"}',
        "See: <|tool_call>call:f{}<tool_call|>",
        "The token <|eot_id|> ends a turn.",
    ],
)
def test_without_tools_text_is_returned_as_it_is(text: str) -> None:
    assert parse(text).content == text


@pytest.mark.parametrize("architecture", ["", "llama-mistral", "cohere2", "gpt-oss", "hunyuan-moe"])
def test_strings_in_a_json_answer_are_never_edited(architecture: str) -> None:
    """They are left alone even if the architecture names the dialect."""
    text = (
        '{"a": "<co>x</co: 0> <|END_RESPONSE|> </s>", "b": ["<answer>\\"<|end|>", {"c": "<tool_call>{}</tool_call>"}]}'
    )
    for pieces in ([text], text):
        parser = StreamParser(TOOLS, architecture=architecture)
        for piece in pieces:
            parser.feed(piece)
        parser.finish()
        assert parser.result.content == text
        assert not parser.result.tool_calls


def test_text_behind_the_beginning_of_a_prefix_comes_in_order() -> None:
    parser = StreamParser(prefix="<|start|>assistant<|channel|>final<|message|>Hello, ")
    chunks = parser.feed("world!") + parser.finish()
    assert "".join(chunk.content for chunk in chunks) == parser.result.content == "Hello, world!"


def test_nesting_is_bounded() -> None:
    """Markers inside of reasoning inside of markers are read without recursion."""
    for text in ("<|START_ACTION|><ifm|think_fast>", "[TOOL_CALLS]<ifm|think_faster>", "<think><tool_call>{"):
        assert parse(text * 500, TOOLS).problems
