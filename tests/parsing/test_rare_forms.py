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


KEY_A, KEY_B = "<arg_key>a</arg_key>", "<arg_key>b</arg_key>"
VALUE_1, VALUE_X = "<arg_value>1</arg_value>", "<arg_value>x</arg_value>"
M3 = "]<]minimax[>["
NAMED = "<tool_use>\n<name>f</name>\n"


def function(inside: str) -> str:
    return f"<function=f>{inside}</function>"


def section(arguments: str) -> str:
    """Return a section with one call of a tool that was not offered, as Kimi K2 writes it."""
    call = f"<|tool_call_begin|>functions.g:0<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
    return f"<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>"


def dsml(*inside: str) -> str:
    text = "\n".join(inside)
    return f'<｜DSML｜tool_calls>\n<｜DSML｜invoke name="f">\n{text}\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'


def parameter(name: str, text: str) -> str:
    return f'<｜DSML｜parameter name="{name}" string="false">{text}</｜DSML｜parameter>'


def given(name: str, text: str) -> str:
    return f'<｜DSML｜invoke name="{name}" string="{text}" />'


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
        (f"<tool_call>f{KEY_A}{KEY_B}{VALUE_1}{VALUE_X}</tool_call>", [{"a": 1, "b": "x"}], ["repaired"]),
        (
            f"<tool_call>f{KEY_A}{KEY_B}<arg_key>o</arg_key>{VALUE_1}{VALUE_X}<arg_value>{{}}</arg_value></tool_call>",
            [{"a": 1, "b": "x", "o": {}}], ["repaired"],
        ),
        ('<tool_call>function\nf\n{"a": 1}</tool_call><tool_call>function\nf\n{}</tool_call>', [{"a": 1}, {}], []),
        (dsml(parameter("b", '"x\\ny"'), parameter("a", "1")), [{"b": "x\ny", "a": 1}], []),
        (dsml(parameter("b", "x")), [{"b": "x"}], []),
        (dsml(given("b", "say &quot;x&quot;"), given("a", "1")), [{"b": 'say "x"', "a": 1}], ["repaired"]),
        ('<|tool_call|>call:f({"a": 1})<tool_call|>', [{"a": 1}], ["repaired"]),
        ('<|call>call:f{b:<|"|>x<|"|>}<call|>', [{"b": "x"}], []),
        ('<call>call:f{b:<|"|>x<|"|>}</call>', [{"b": "x"}], []),
        ('<call>f{"a": 1}</call>', [{"a": 1}], []),
        ('{"function": {"name": "f", "arguments": {"b": "x"}} "id": "1"}', [{"b": "x"}], []),
        (hermes('{"o": {"k": "v"} "b": "x"}'), [{"o": {"k": "v"}, "b": "x"}], ["repaired"]),
        (f'{NAMED}<arguments>{{"a": 1}}</arguments></tool_use>\n\n{NAMED}</tool_use>', [{"a": 1}, {}], []),
        (f'{NAMED}<parameter name="a">1</parameter><parameter name="b">x</parameter></tool_use>', [{"a": 1, "b": "x"}], []),
        (f"{NAMED}<input><a>1</a><b>x</b></input></tool_use>", [{"a": 1, "b": "x"}], ["repaired"]),
        (f'{NAMED}<arguments>{{"a": 1}}</arguments></tool', [{"a": 1}], ["repaired"]),
        ('<tool_use name="f"><a>1</a></tool_use>', [{"a": 1}], ["repaired"]),
        ('<tool_call name="f" id="1">{"a": 1}</tool_call>', [{"a": 1}], []),
        ("<tool_call><name>f</name><parameters><a>1</a></parameters></tool_call>", [{"a": 1}], ["repaired"]),
        (dsml(parameter("a", "1")).replace('"', "“", 1).replace('"', "”", 1), [{"a": 1}], []),
        ("<tool_call>\n<function f>\n<parameter a>\n1\n</parameter>\n</function>\n</tool_call>", [{"a": 1}], []),
        ('<tool_call><f>{"a": 1}</f><f></f></tool_call>', [{"a": 1}, {}], []),
        ("<f>\n<a>1</a>\n<b>x</b>\n</f>", [{"a": 1, "b": "x"}], ["repaired"]),
        ('<tool_call>{"name": "f", "a": 1}</tool_call>', [{"a": 1}], ["repaired"]),
        ('{"tool_calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {}}]}', [{"a": 1}, {}], []),
        ('{"function_call": {"name": "f", "arguments": "{}"}}', [{}], []),
        ('<｜tool▁calls▁begin｜>[{"name": "f", "arguments": {"a": 1}}]<｜tool▁calls▁end｜>', [{"a": 1}], []),
        ("<tool_call>f\na</arg_key><arg_value>1</arg_value></tool_call>", [{"a": 1}], ["repaired"]),
        (f'{M3}<tool_call>{M3}<invoke name="f">{M3}<a>1{M3}</a>{M3}</invoke>', [{"a": 1}], []),
        ("<think>Hm.<tool_call>f</tool_call>", [{}], []),
        ('<tool_call>[f(a=1), f(b="x")]</tool_call>', [{"a": 1}, {"b": "x"}], []),
        ("<|tool_call>f{a:1}<tool_call|>", [{"a": 1}], ["repaired"]),
        (
            ('<steptml:toolcall>\n<steptml:invoke name="f">\n<steptml:parameter name="a">1</steptml:parameter>\n'
            "</steptml:invoke>\n</steptml:toolcall>"), [{"a": 1}], [],
        ),
        (
            ("<|tool_calls_section_begin|>hm<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
            '{"a": 1}<|tool_call_end|><|tool_calls_section_end|>'),
            [{"a": 1}], ["text_left_out"],
        ),
        ("<start_function_call>call:f{a:1,b:<escape>x<escape>}<end_function_call>", [{"a": 1, "b": "x"}], []),
        ('[tool_call:f]{"a": 1}', [{"a": 1}], []),
        ('[Calling tool: f]\n{"a": 1}\n[tool_call:f]{"a": 2}[/tool_call]', [{"a": 1}, {"a": 2}], ["repaired"]),
        ('<functions><f>{"a": 1}</f><f><b>x</b></f></functions>', [{"a": 1}, {"b": "x"}], ["repaired"]),
        ("<function_calls><f><a>1</a></f></function_calls>", [{"a": 1}], ["repaired"]),
        ("<function_calls><name>f</name><arguments>{}</arguments></function_calls>", [{}], []),
        ('<tool_calls>\n<f a="1" b="x &amp; y" />\n<f/>\n</tool_calls>', [{"a": 1, "b": "x & y"}, {}], ["repaired"]),
        ('<tool_call><f b="x > y"></f></tool_call>', [{"b": "x > y"}], ["repaired"]),
        ('<tool_use><f a="1"/></tool_use>', [{"a": 1}], ["repaired"]),
        (hermes("{}") + "<|im_end|>\n<|endoftext|>", [{}], ["repaired", "repaired"]),
        ("<function=f></function></s>", [{}], ["repaired"]),
        ("[f(a=1)]<|eot_id|>", [{"a": 1}], []),
        (
            ('<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
            "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>5<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"),
            [{"a": 1}], ["text_left_out"],
        ),
        (
            ('<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|close|>call<|sep|> hm '
            "<|close|>tools<|sep|>"), [{}], ["text_left_out"],
        ),
        (
            ('<|start|> assistant to=functions.f<|channel|> commentary <|constrain|>  json<|message|> {"a": 1}<|end|>'
            '<|start|> assistant to=functions.f<|channel|> commentary <|constrain|>  json<|message|> {"a": 2}'),
            [{"a": 1}, {"a": 2}], [],
        ),
        (function("<parameter=b>x <parameter=a> <parameter=a>2</parameter>"), [{"b": "x <parameter=a> <parameter=a>2"}], []),
        (function("<parameter=b>x</parameter>y</parameter>z</parameter>"), [{"b": "x</parameter>y</parameter>z"}], []),
        (function("<parameter=b>x</parameter></parameter> z</parameter>"), [{"b": "x</parameter></parameter> z"}], []),
        (function("<parameter=b>x <parameter=z> y "), [{"b": "x <parameter=z> y "}], ["repaired"]),
        (function("<parameter=b>x</parameter></parameter><parameter=a>1</parameter>"), [{"b": "x", "a": 1}], ["repaired"]),
        ("<tool_call><function=f><parameter=b>x</parameter></tool_call>", [{"b": "x"}], ["repaired"]),
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
        f"<tool_call>f{KEY_A}{KEY_B}{VALUE_1}{VALUE_X}{VALUE_X}</tool_call>",
        f"<tool_call>f{KEY_A}{KEY_B}{KEY_A}{VALUE_1}{VALUE_X}</tool_call>",
        '[f({"b": "x"}, 5)]',
        '<|python_start|>[f({"b": "x"}, "y")]<|python_end|>',
        dsml(given("b", "x"), "hm"),
        '<tool_use name="f"><a>1</a> hm</tool_use>',
        '<tool_call>{"name": "f", "z": 1}</tool_call>',
        '<|tool_call>call:f{b:<|"|>x}<tool_call|>',
        "<tool_call><function=f><parameter=b>x</function>\ny</parameter></tool_call>",
        '<tool_calls><f z="1" /></tool_calls>',
        "<tool_calls><f a /></tool_calls>",
        '<tool_calls><f a="1">hm</f></tool_calls>',
        '<tool_calls><f a="<b>" /></tool_calls>',
        f"<tool_call>f{KEY_B}{VALUE_X}\n<tool_call> f {KEY_B}{VALUE_X}</tool_call>",
        "f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
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
        ("<|message_model|><|content_invoke_tool_json|>hi<|end_message|>", "hi", []),
        ("<function>f", "", ["tool_call_incomplete"]),
        ("[TOOL_CALLS]x", "", ["tool_call_incomplete"]),
        ("[Calling tool: f(a=1)]", "[Calling tool: f(a=1)]", []),
        (dsml(given("b", "x")).partition("\n</")[0], "", ["tool_call_incomplete"]),
        (f"<tool_call>f{KEY_A}{KEY_B}{VALUE_1}", "", ["tool_call_incomplete"]),
        ("<tool_call>function\n", "", ["tool_call_incomplete"]),
        ("<tool_use><name>f</name><argu", "", ["tool_call_incomplete"]),
        ("<tool_use><name>f", "<tool_use><name>f", ["tool_call_unparsed"]),
        ("<tool_use>\n<name>", "<tool_use>\n<name>", ["tool_call_unparsed"]),
        ("[tool_call:f]", "[tool_call:f]", []),
        ('[tool_call:g]{"a": 1}', '[tool_call:g]{"a": 1}', []),
        ('[note:f]{"a": 1}', '[note:f]{"a": 1}', []),
        ("<functions><f /></functions>", "<functions><f /></functions>", []),
        ('<tool_calls><f a="1"', "", ["tool_call_incomplete"]),
        ('<tool_calls><f a="1"></', "", ["tool_call_incomplete"]),
        ('<f a="1" />', '<f a="1" />', []),
        ("<functions><f></f></functions>", "<functions><f></f></functions>", []),
        ("<functions><g>x</g></functions>", "<functions><g>x</g></functions>", []),
        ("It rains.<|im_end|>", "It rains.<|im_end|>", []),
        ("<|tool_calls_section_begin|><|tool_call_be", "", ["tool_call_incomplete"]),
        (section('{"a": 1}'), section('{"a": 1}'), ["unoffered_tool"]),
        (section("hm"), section("hm"), ["unoffered_tool"]),
        ("<think>Of <|tool_call_start|>[f(a=1)]<|tool_call_end|></think>Hi.", "Hi.", []),
        ("<function=f<b>x</function>", "<function=f<b>x</function>", []),
        ("<|tool_calls_section_begin|>hm", "<|tool_calls_section_begin|>hm", ["markup_kept"]),
        (
            "<|channel|> analysis<|message|> Hm<|end|><|start|> assistant<|channel|> final<|message|> Hi.",
            "Hi.",
            [],
        ),
        ("<tool_use><name>g</name></tool_use>", "<tool_use><name>g</name></tool_use>", []),
        ('<tool_use name="f"></tool_use>', '<tool_use name="f"></tool_use>', []),
        ('<action_item name="f">{"a": 1}</action_item>', '<action_item name="f">{"a": 1}</action_item>', []),
        ("<tool><name>f</name></tool>", "<tool><name>f</name></tool>", []),
        ('<session name="f"><a>1</a></session>', '<session name="f"><a>1</a></session>', []),
        ("<function>f</function>", "", ["tool_call_incomplete"]),
        (f"{M3}<tool_call>hm", f"{M3}<tool_call>hm", ["tool_call_unparsed"]),
        ("<|tool_calls_section_begin|><|tool_calls_section_end|>", "", ["tool_call_empty"]),
        ("<f><c>x</c></f>", "<f><c>x</c></f>", []),
        ('{"tool_calls": []}', '{"tool_calls": []}', []),
        ("<item><name>f</name></item>", "<item><name>f</name></item>", []),
        ('I use <tool_use>{"name": "f"}', 'I use <tool_use>{"name": "f"}', ["tool_call_unparsed"]),
        ("[THINK]a[/THINK]hi\n[THINK]b[/THINK]", "hi", []),
        ("hi\n[THINK]b[/THINK]", "hi", ["markup_in_text"]),
        ("hi.<|inner_prefix|>", "hi.", ["reasoning_unclosed", "markup_in_text"]),
        ("hi\n<|channel|>analysis<|message|>b<|end|>", "hi", ["markup_in_text"]),
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
    """The problem has its position, unless the dialect is known to be spoken."""
    parsed = lmdeck.parse(f"One {token} two.", TOOLS)
    assert parsed.content.split() == ["One", "two."]
    assert [(problem.code, problem.span) for problem in parsed.problems] == [("token_dropped", (4, 4 + len(token)))]
    assert not lmdeck.parse("<|START_RESPONSE|>One<|END_RESPONSE|>", TOOLS).problems


def test_a_string_without_an_end_does_not_take_the_next_call_along() -> None:
    first = '<tool_call>{"name":"f","arguments":{"b":"x}}</tool_call>'
    found = parsed(first + "\n" + hermes('{"a":1}'))
    assert (found.content, [call.arguments for call in found.tool_calls]) == (first, [{"a": 1}])
    assert [problem.code for problem in found.problems] == ["tool_call_unparsed"]


@pytest.mark.parametrize("value", ['"x]}', "]}", "]}}"])
def test_a_bad_member_that_arrives_in_pieces_changes_no_other_call(value: str) -> None:
    bad = f'{{"name": "f", "arguments": {{"b": {value}'
    found = parsed(f'<tool_call>[{bad}, {{"name": "f", "arguments": {{"a": 1}}}}]</tool_call>')
    assert (found.content, [call.arguments for call in found.tool_calls]) == (bad, [{"a": 1}])


def test_a_message_without_a_header_is_for_the_user() -> None:
    """The text is content, since the template wrote the header."""
    assert lmdeck.parse("<|message|>Hello.<|eot|>", dialect="muse-glimmer").content == "Hello."


def test_a_marker_that_is_left_as_text_has_its_place() -> None:
    (problem,) = parsed("<|tool_call>and so on").problems
    assert (problem.code, problem.span) == ("markup_kept", (0, len("<|tool_call>")))


def test_a_token_before_reasoning_is_dropped() -> None:
    found = lmdeck.parse("hi <|end|> <|inner_prefix|>x<|inner_suffix|>")
    assert (found.content, found.reasoning) == ("hi", "x")
    assert [problem.code for problem in found.problems] == ["token_dropped", "markup_in_text"]
