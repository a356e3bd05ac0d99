# ruff: noqa: E501 - a table of texts
"""Calls that end too early, and forms that models of 2026 mix: whole and character by character with one result."""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck import ConfigurationError, ParsedMessage, StreamParser, dialects, parse, render

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}
    for name, properties in (
        ("plan", {"place": {"type": "string"}, "days": {"type": "integer"}}),
        ("ping", {}),
    )
]
ROME: tuple[str, dict[str, Any]] = ("plan", {"place": "Rome"})
OSLO: tuple[str, dict[str, Any]] = ("plan", {"place": "Oslo"})
PING: tuple[str, dict[str, Any]] = ("ping", {})
M3 = "]<]minimax[>["


def read(text: str, dialect: str = "auto") -> ParsedMessage:
    """Read a text whole and character by character, and return the one result of both."""
    whole = parse(text, TOOLS, dialect)
    parser = StreamParser(TOOLS, dialect)
    for char in text:
        parser.feed(char)
    parser.finish()
    pieces = parser.result
    assert (pieces.content, pieces.reasoning, calls_of(pieces)) == (whole.content, whole.reasoning, calls_of(whole))
    assert [problem.code for problem in pieces.problems] == [problem.code for problem in whole.problems]
    return whole


def calls_of(parsed: ParsedMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in parsed.tool_calls]


FORMS: dict[str, tuple[str, str, list[tuple[str, dict[str, Any]]]]] = {
    "two Gemma calls in one block": (
        '<|tool_call>call:plan{place:<|"|>Rome<|"|>}call:plan{place:<|"|>Oslo<|"|>}<tool_call|>', "", [ROME, OSLO],
    ),
    "a Gemma call whose token is gone": ('call:plan{place:<|"|>Rome<|"|>}', "", [ROME]),
    "a Gemma channel for the answer": ("<|channel>thought\nHm.<channel|><|channel>final\nIt rains.", "It rains.", []),
    "an object in a list as in Python": ('[plan({"place": "Rome"}), ping({})]', "", [ROME, PING]),
    "a list after a colon": ('I look it up: [plan(place="Rome")]', "I look it up:", [ROME]),
    "a tool's name in brackets": ('[plan]\n{"place": "Rome"}\n[END_TOOL_REQUEST]', "", [ROME]),
    "a tool's name as a tag": ('<plan>{"place": "Rome"}</plan>', "", [ROME]),
    "LM Studio's own form with another end": (
        '[TOOL_REQUEST]{"name": "plan", "arguments": {"place": "Rome"}}[/TOOL_REQUEST]', "", [ROME],
    ),
    "an object between LFM2's tokens": ('<|tool_call_start|>[plan({"place": "Rome"})]<|tool_call_end|>', "", [ROME]),
    "GLM's box": ("<think>Hm.</think><|begin_of_box|>It rains.<|end_of_box|>", "It rains.", []),
    "tokens with a suffix": (
        ("<think:opensource>Hm.</think:opensource><tool_call:opensource>plan<tool_sep:opensource>"
        "<arg_key:opensource>place</arg_key:opensource><arg_value:opensource>Rome</arg_value:opensource>"
        "<end_of_tool_call:opensource><tool_call:opensource>ping<tool_sep:opensource>{}<end_of_tool_call:opensource>"),
        "", [ROME, PING],
    ),
    "name and arguments as elements": (
        '<function><name>plan</name><arguments>{"place": "Rome"}</arguments></function>', "", [ROME],
    ),
    "elements named like parameters": (
        "<tool_call>\n<function=plan>\n<place>\nRome\n</place>\n<days>\n2\n</days>\n</function>\n</tool_call>", "",
        [("plan", {"place": "Rome", "days": 2})],
    ),
    "a shorter parameter element": ("<tool_call><function=plan><param=place>Rome</param></function></tool_call>", "", [ROME]),
    "text before the end of the block": (
        "<tool_call><function=plan><parameter=place>Rome</parameter></function> and so on </tool_call>", "and so on", [ROME],
    ),
    "a key without its value": (
        "<tool_call>plan<arg_key>days</arg_key><arg_key>place</arg_key><arg_value>Rome</arg_value></tool_call>", "", [ROME],
    ),
    "IQuest's tags": (
        "<iquest_tool_call>plan\n<arg_key>place</arg_key><arg_value>Rome</arg_value>\n</iquest_tool_call><|iquest_end|>", "", [ROME],
    ),
    "a next call instead of the end of this one": (
        ("<tool_call>plan<arg_key>place</arg_key><arg_value>Rome</arg_value><tool_call>plan<arg_key>days</arg_key>"
        "<arg_value>2</arg_value></tool_call>"), "", [ROME, ("plan", {"days": 2})],
    ),
    "Solar Open 2's arguments without the end of a value": (
        ("<|tool_call:start|>plan\n<|tool_arg:start|>place<|tool_arg:value|>Rome<|tool_call:end|>"
        "<|tool_call:start|>plan\n<|tool_arg:start|>days<|tool_arg:value|>2<|tool_arg:end|>\n<|tool_call:end|>"), "",
        [ROME, ("plan", {"days": 2})],
    ),
    "GLM 5.3 Flash's name and arguments": ('<tool_call>plan>{"place": "Rome"}</tool_call><tool_call>ping>{}', "", [ROME, PING]),
    "elements between OLMo's tags": (
        '<function_calls>\n<invoke name="plan">\n<parameter name="place">Rome</parameter>\n</invoke>\n</function_calls>', "",
        [ROME],
    ),
    "Gemma 4's call with a colon in front": ('<|tool_call>:call:plan{place:<|"|>Rome<|"|>}', "", [ROME]),
    "Kimi K3's headers without the tokens between": (
        ('<|open|>toolscall tool="plan" index="1"<|sep|><|open|>argument key="place" type="string"<|sep|>Rome<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|>"), "", [ROME],
    ),
    "Kimi K3's last token": ("<|open|>response<|sep|>It rains.<|close|>response<|sep|><|end_of_msg|>", "It rains.", []),
    "a header without its end before arguments": (
        '<|channel|>commentary to=functions.plan <|constrain|>json {"place": "Rome"}<|call|>', "", [ROME],
    ),
    "a header without its end before the answer": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final It rains.<|return|>", "It rains.", [],
    ),
    "the type of the body in capitals": ('<|channel|>final <|constrain|>JSON<|message|>{"a": 1}<|return|>', '{"a": 1}', []),
    "a second, empty thought": ("<think>Hm.</think>\n\n<think></think>\n\nIt rains.", "It rains.", []),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_read(form: str) -> None:
    text, content, calls = FORMS[form]
    parsed = read(text)
    assert (parsed.content, calls_of(parsed)) == (content, calls)


PROSE = [
    "Write <function=plan> to plan a trip, as the page says.",
    "call:plan{place:Rome}",
    'See [plan] {"place": "Rome"} for an example, please.',
    '[plan]\n{"pages": 3}',
    'The answer holds {"calls": [plan(place=1)]} as a string.',
    "The days are: [3, 4], the places: [Rome, Oslo].",
    'The page says: call:plan{place:<|"|>Rome<|"|>} begins a call, and so on.',
    "gpt-oss opens with <|channel|>final and then answers.",
]


@pytest.mark.parametrize("text", PROSE)
def test_prose_about_a_call_stays_text(text: str) -> None:
    parsed = read(text)
    assert (parsed.content, parsed.tool_calls) == (text, [])


def test_a_bad_neighbour_in_a_gemma_block_changes_no_other_call() -> None:
    parsed = read('<|tool_call>call:other{a:1}call:plan{place:<|"|>Rome<|"|>}<tool_call|>')
    assert calls_of(parsed) == [ROME]
    assert [problem.code for problem in parsed.problems] == ["unoffered_tool"]


@pytest.mark.parametrize(
    "text",
    ["Done: <function=plan></function>", "<function=plan></function> Done.", "Now <function=plan>{}</function> again."],
)
def test_a_call_without_arguments_counts_at_an_edge_of_its_line(text: str) -> None:
    """A name alone counts at an edge of its line, or with the brackets of its arguments."""
    assert calls_of(read(text)) == [("plan", {})]


NAMELESS = [
    "<function=plan>\n<parameter=\n<parameter=days>2</parameter></function>",
    "<tool_call><function=plan><parameter=>Rome</parameter></function></tool_call>",
    "<tool_call>plan<arg_key></arg_key><arg_value>Rome</arg_value></tool_call>",
    '<invoke name="plan"><parameter name="">Rome</parameter></invoke>',
    f'{M3}<tool_call>{M3}<invoke name="plan">{M3}<>Rome{M3}</>{M3}</invoke>{M3}</tool_call>',
    f'{M3}<tool_call>{M3}<invoke name="plan">{M3}<days>{M3}<>2{M3}</>{M3}</days>{M3}</invoke>{M3}</tool_call>',
    '<|tool_call>call:plan{<|"|><|"|>:<|"|>Rome<|"|>}<tool_call|>',
]


@pytest.mark.parametrize("text", NAMELESS)
def test_a_parameter_without_a_name_makes_no_call(text: str) -> None:
    parsed = read(text)
    assert (parsed.content, parsed.tool_calls) == (text, [])
    assert [problem.code for problem in parsed.problems] == ["tool_call_unparsed"]


def test_a_tool_may_have_a_parameter_whose_name_is_empty() -> None:
    tool = {"type": "function", "function": {"name": "odd", "parameters": {"type": "object", "properties": {"": {}}}}}
    parsed = parse('<tool_call><function=odd><parameter="">2</parameter></function></tool_call>', [tool])
    assert calls_of(parsed) == [("odd", {"": 2})]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_message_to_all_that_is_cut_off_behind_a_call_is_no_call(end: str) -> None:
    parsed = read(f'>>>plan\n{{"place": "Rome"}}>>>all{end}')
    assert (calls_of(parsed), parsed.content) == ([ROME], "")
    assert [problem.code for problem in parsed.problems] == ["repaired"] * (not end)


def test_a_message_to_all_behind_a_call_is_content() -> None:
    """The call is the evidence of the dialect, so its name is not needed."""
    parsed = read('>>>plan\n{"place": "Rome"}>>>all\nDone.')
    assert (calls_of(parsed), parsed.content) == ([ROME], "Done.")


def test_a_string_token_of_another_dialect_is_no_text_of_a_value() -> None:
    assert read("<|tool_call>call:plan{place:<escape>Rome<escape>}<tool_call|>").tool_calls == []


def test_a_broken_call_in_reasoning_without_an_answer_is_reported() -> None:
    parsed = read("<think>I look.\n<tool_call>\n<function=plan>\n<parameter=place>Rome</parameter>\n</think>\n")
    assert (parsed.content, parsed.tool_calls) == ("", [])
    assert [problem.code for problem in parsed.problems] == ["tool_call_unparsed"]


def speaking() -> list[str]:
    """Return the dialects that write calls and whose words count in every text."""
    names = []
    for name in dialects():
        try:
            text = render(name, calls=[{"name": "ping", "arguments": {}}])
        except ConfigurationError:
            continue
        if parse(text, TOOLS).tool_calls:
            names.append(name)
    return names


@pytest.mark.no_cover  # the same lines for each length of a text
@pytest.mark.parametrize("dialect", speaking())
def test_text_that_ends_behind_a_call_leaves_no_piece_of_a_tag(dialect: str) -> None:
    """The content is empty wherever two calls are cut after the first."""
    calls = [{"name": "plan", "arguments": {"place": place}} for place in ("Rome", "Oslo")]
    text = render(dialect, calls=calls)
    for end in range(len(text)):
        parsed = parse(text[:end], TOOLS, dialect)
        assert not parsed.tool_calls or not parsed.content, text[:end]
