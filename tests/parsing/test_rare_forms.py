"""Forms of calls that models rarely write: what is read, and what is reported."""

from __future__ import annotations

import pytest

import lmdeck

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "o": {"type": "object"}},
            },
        },
    }
]


def essence(got: lmdeck.ParsedMessage) -> tuple[object, ...]:
    """Return a result without the calls' random ids."""
    calls = [(call.name, call.arguments, call.span) for call in got.tool_calls]
    return got.content, got.reasoning, calls, got.problems


def parsed(text: str) -> lmdeck.ParsedMessage:
    """Parse a text at once and character by character, with the same result."""
    whole = lmdeck.parse(text, tools=TOOLS)
    parser = lmdeck.StreamParser(TOOLS)
    for character in text:
        parser.feed(character)
    parser.finish()
    assert essence(parser.result) == essence(whole)
    return whole


def hermes(arguments: str) -> str:
    return f'<tool_call>{{"name":"f","arguments":{arguments}}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "calls", "codes"),
    [
        (
            '<tool_call>{"name":"f","arguments":{"a":1}, "x": [1,2] "y": "z"}</tool_call>',
            [{"a": 1}], ["text_left_out", "text_left_out"],
        ),
        ('<tool_call>{"type":"f"}</tool_call>', [{}], ["repaired"]),
        ('<tool_call>{"f":{"a":1}}</tool_call>', [{"a": 1}], []),
        ('<tool_call>{"name"="f","arguments"={"a":1}}</tool_call>', [{"a": 1}], ["repaired"]),
        ('<tool_call>{"function":{"name":"f","arguments":{"a":1}},"type":"function"}</tool_call>', [{"a": 1}], []),
        ('<tool_call>{"name":"f","parameters":"{\\"a\\": 1}"}</tool_call>', [{"a": 1}], []),
        (hermes('{"b":"\\ud83d"}'), [{"b": "\ufffd"}], ["repaired"]),
        (hermes('{"a":NaN}'), [{"a": None}], ["repaired"]),
        (hermes('{"a":0x1F}'), [{"a": 31}], []),
        (hermes('{"a":1_000}'), [{"a": 1000}], ["repaired"]),
        ('[f(b=b"x", a=0x10)]', [{"b": "x", "a": 16}], []),
        ('[f(b=r"x")]', [{"b": "x"}], []),
        ("<function=f>\n<parameter=b/>\n<parameter=a>1</parameter>\n</function>", [{"b": "", "a": 1}], []),
        ('<function=f><parameter=o>{"x": 1}</parameter></function>', [{"o": {"x": 1}}], []),
        (
            "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n</tool_call>",
            [{"a": 1}], ["repaired"],
        ),
        (
            "<tool_call>f\n<arg_key>a</arg_key><arg_key>b</arg_key><arg_value>x</arg_value></tool_call>",
            [{"b": "x"}], ["repaired"],
        ),
        (
            '<tool_call>[{"name":"f","arguments":{"a":1}}, 7, {"name":"f","arguments":{"a":2}}]</tool_call>',
            [{"a": 1}, {"a": 2}], ["tool_call_unparsed"],
        ),
        ('[TOOL_CALLS][{"name":"f","arguments":{"a":1}}, 5]', [{"a": 1}], ["tool_call_unparsed"]),
        ('[Calling tool: f({"a": 1})]', [{"a": 1}], []),
        ('<action>{"name":"f","arguments":{"a":1}}</action>', [{"a": 1}], []),
        ('[TOOL_USE] f({"a":1}) [/TOOL_USE]', [{"a": 1}], []),
        ("<start_function_call>call:f{a:1,b:<escape>x<escape>}<end_function_call>", [{"a": 1, "b": "x"}], []),
    ],
)  # fmt: skip
def test_a_rare_form_is_a_call(text: str, calls: list[dict[str, object]], codes: list[str]) -> None:
    found = parsed(text)
    assert (found.content, [call.arguments for call in found.tool_calls]) == ("", calls)
    assert {call.name for call in found.tool_calls} == {"f"}
    assert [problem.code for problem in found.problems] == codes


@pytest.mark.parametrize(
    "text",
    [
        hermes('{"a":1e999}'),
        hermes('{"a": tru}'),
        "<tool_call>f<arg_value>1</arg_value></tool_call>",
        "<function=f><parameter=o><x>1</x></parameter></function>",
    ],
)
def test_what_has_no_certain_meaning_is_text(text: str) -> None:
    found = parsed(text)
    assert (found.content, found.tool_calls) == (text, [])
    assert [problem.code for problem in found.problems] == ["tool_call_unparsed"]


@pytest.mark.parametrize(
    ("text", "content", "codes"),
    [
        ("<|start|>assistant to=assistant<|channel|>commentary<|message|>hm<|call|>", "", ["text_left_out"]),
        ("<|channel|>commentary to=assistant<|message|>hm<|end|>", "hm", []),
        ("<|message_model|>x<|content_text|>hi<|end_message|>", "hi", ["text_left_out"]),
        ("<|message_model|>", "", ["tool_call_incomplete"]),
        ("<|message_", "<|message_", []),
        ("[TOOL_CALLS]x", "", ["tool_call_incomplete"]),
        ("[Calling tool: f(a=1)]", "[Calling tool: f(a=1)]", []),
    ],
)
def test_a_message_without_a_call_is_its_text(text: str, content: str, codes: list[str]) -> None:
    found = parsed(text)
    assert (found.content, found.tool_calls) == (content, [])
    assert [problem.code for problem in found.problems] == codes


@pytest.mark.parametrize(
    "token", ["<|end|>", "<|END_RESPONSE|>", "<|begin_of_box|>", "</ifm|think>", "<|message_sep|>"]
)
def test_a_special_token_that_is_dropped_inside_text_is_reported(token: str) -> None:
    """With its place, unless its dialect is known to be spoken."""
    parsed = lmdeck.parse(f"One {token} two.", TOOLS)
    assert parsed.content.split() == ["One", "two."]
    assert [(problem.code, problem.span) for problem in parsed.problems] == [("token_dropped", (4, 4 + len(token)))]
    assert not lmdeck.parse("<|START_RESPONSE|>One<|END_RESPONSE|>", TOOLS).problems
