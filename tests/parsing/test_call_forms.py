"""Calls as models really write them: damaged, nested, misspelled; and text that only looks like one."""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck import ParsedMessage, StreamParser, parse

Call = tuple[str, dict[str, Any]]


def tool(name: str, *required: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [
    tool("store", "file", file="string", body="string", tries="integer"),
    tool("sum_up", "values", values="array"),
    tool("now"),
]


def read(text: str, dialect: str = "auto") -> ParsedMessage:
    """Read a text whole and character by character, and return the one result of both."""
    whole = parse(text, TOOLS, dialect)
    parser = StreamParser(TOOLS, dialect)
    chunks = [chunk for char in text for chunk in parser.feed(char)] + parser.finish()
    pieces = parser.result
    assert (pieces.content, pieces.reasoning) == (whole.content, whole.reasoning)
    assert calls_of(pieces) == calls_of(whole)
    assert [problem.code for problem in pieces.problems] == [problem.code for problem in whole.problems]
    assert [chunk.tool_call.name for chunk in chunks if chunk.tool_call] == [call.name for call in whole.tool_calls]
    return whole


def calls_of(parsed: ParsedMessage) -> list[Call]:
    return [(call.name, call.arguments) for call in parsed.tool_calls]


def codes_of(parsed: ParsedMessage) -> set[str]:
    return {problem.code for problem in parsed.problems}


BODIES = [
    "Close it with </function> and </tool_call>, then wait.",
    "An <arg_key> is a key, a </arg_value> ends it here.",
    "The tag </parameter> ends a value, as </invoke> ends a call.",
    '<settings>\n<parameter name="size">3</parameter>\n</settings>',
    "He wrote \"yes\" and 'no', then }]} and <|call|>.",
    "[store(file='x')] is a list; [TOOL_CALLS] begins one.",
]
FRAMES = {
    "Qwen": "<tool_call>\n<function=store>\n<parameter=file>\na.txt\n</parameter>\n<parameter=body>\n{}\n</parameter>\n"
    "</function>\n</tool_call>",
    "GLM": "<tool_call>store<arg_key>file</arg_key><arg_value>a.txt</arg_value><arg_key>body</arg_key><arg_value>{}</arg_value>"
    "</tool_call>",
    "MiniMax-M2": '<minimax:tool_call>\n<invoke name="store">\n<parameter name="file">a.txt</parameter>\n'
    '<parameter name="body">{}</parameter>\n</invoke>\n</minimax:tool_call>',
    "DSML": '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="store">\n<｜DSML｜parameter name="file" string="true">'
    'a.txt</｜DSML｜parameter>\n<｜DSML｜parameter name="body" string="true">{}'
    "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    "Gemma": '<|tool_call>call:store{{file:<|"|>a.txt<|"|>,body:<|"|>{}<|"|>}}<tool_call|>',
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("body", BODIES)
def test_a_value_ends_where_the_call_goes_on(frame: str, body: str) -> None:
    parsed = read(FRAMES[frame].format(body))
    assert calls_of(parsed) == [("store", {"file": "a.txt", "body": body})]
    assert parsed.content == ""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("\nfirst\nlast\n", "first\nlast"),
        ("first\nlast\n", "first\nlast\n"),
        ("  spaced  ", "  spaced  "),
    ],
)
def test_a_line_end_is_padding_only_behind_one_at_the_start(written: str, value: str) -> None:
    text = f"<function=store><parameter=file>a</parameter><parameter=body>{written}</parameter></function>"
    assert calls_of(read(text)) == [("store", {"file": "a", "body": value})]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("[store(file='a', body='print(max('x', 'y'))')]", {"file": "a", "body": "print(max('x', 'y'))"}),
        ('[store(file="a", body="f("b")")]', {"file": "a", "body": 'f("b")'}),
        ('[store(file="""a "b" c""")]', {"file": 'a "b" c'}),
        ('<tool_call>{"name": "store", "arguments": {"file": "<a href="b">", "body": "say "hi", please"}}</tool_call>',
         {"file": '<a href="b">', "body": 'say "hi", please'}),
        ('<tool_call>{"name": "store", "arguments": {"file": "a {"b"} c"}}</tool_call>', {"file": 'a {"b"} c'}),
        ('<tool_call>{"name="store", "arguments": {"file="a"}}</tool_call>', {"file": "a"}),
    ],
)  # fmt: skip
def test_a_string_ends_where_the_call_goes_on(text: str, arguments: dict[str, Any]) -> None:
    assert calls_of(read(text)) == [("store", arguments)]


@pytest.mark.parametrize("number", ["e4", "e", "0x", "0b2", "1e400", ".e1", "1__0", "--1", "0x" + "f" * 5000])
def test_what_is_no_number_is_text_with_a_problem(number: str) -> None:
    parsed = read(f"[store(tries={number})]")
    assert calls_of(parsed) == []
    assert parsed.content == f"[store(tries={number})]"
    assert codes_of(parsed) == {"tool_call_unparsed"}


BLOCKS = {
    "Mistral": ("[TOOL_CALLS][", ", ", "]", '{{"name": "{}", "arguments": {{{}}}}}'),
    "tool_calls": ("<tool_calls>[", ",\n", "]</tool_calls>", '{{"name": "{}", "arguments": {{{}}}}}'),
    "Cohere": ("<|START_ACTION|>[", ", ", "]<|END_ACTION|>", '{{"tool_name": "{}", "parameters": {{{}}}}}'),
    "functools": ("functools[", ", ", "]", '{{"name": "{}", "arguments": {{{}}}}}'),
    "bare": ("[", ", ", "]", '{{"name": "{}", "arguments": {{{}}}}}'),
    "Apertus": ("<|tools_prefix|>[", ", ", "]<|tools_suffix|>", '{{"{}": {{{}}}}}'),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    "bad", ['{"name": "fly", "arguments": {"to": "x"}}', '{"name": "now", "arguments": {"a": ??}}']
)
@pytest.mark.parametrize("place", range(3))
def test_neighbours_of_a_bad_member_stay(block: str, bad: str, place: int) -> None:
    begin, between, end, form = BLOCKS[block]
    members = [form.format("store", '"file": "a"'), form.format("now", "")]
    members.insert(place, bad)
    parsed = read(begin + between.join(members) + end)
    assert calls_of(parsed) == [("store", {"file": "a"}), ("now", {})]
    assert parsed.content == bad
    assert codes_of(parsed) <= {"unoffered_tool", "tool_call_unparsed"}
    assert parsed.problems


@pytest.mark.parametrize(
    ("begin", "end"), [("<|tool_call_start|>[", "]<|tool_call_end|>"), ("<|python_start|>[", "]<|python_end|>")]
)
@pytest.mark.parametrize("bad", ["fly(to='x')", "now(1, 2)", "store(file=oops)"])
def test_neighbours_in_a_list_of_python_calls_stay(begin: str, end: str, bad: str) -> None:
    parsed = read(f"{begin}now(), {bad}, store(file='a'){end}")
    assert calls_of(parsed) == [("now", {}), ("store", {"file": "a"})]
    assert parsed.content == bad


def test_neighbours_of_an_unoffered_function_stay() -> None:
    text = (
        '<minimax:tool_call>\n<invoke name="fly">\n<parameter name="to">x</parameter>\n</invoke>\n'
        '<invoke name="now">\n</invoke>\n</minimax:tool_call>'
    )
    parsed = read(text)
    assert calls_of(parsed) == [("now", {})]
    assert "unoffered_tool" in codes_of(parsed)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "now", "arguments": {}}}\n</tool_call>',
        '<tool_call>{"name": "now", "arguments": {}}];</tool_call>',
        "[TOOL_CALLS]now[ARGS]{}}",
        '[TOOL_CALLS][{"name": "now", "arguments": {}}}]',
        '<|python_tag|>{"name": "now", "arguments": {}}}',
        '{"name": "now", "arguments": {}}}',
        "<function=now>{}}</function>",
        "<function=now>\n</function></function>",
        "[now())]",
        "<|tool_call_start|>[now()]]<|tool_call_end|>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}}<|call|>",
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}}<|tool_call_end|>"
            "<|tool_calls_section_end|>"
        ),
    ],
)
def test_one_closer_too_many_is_markup(text: str) -> None:
    parsed = read(text)
    assert calls_of(parsed) == [("now", {})]
    assert parsed.content == ""
    assert "repaired" in codes_of(parsed)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "store", "arguments": {',
        '<tool_call>\n{"name": "store", "arguments": {"file"',
        "<tool_call>\n<function=store>\n<parameter=file>\na</para",
        "<tool_call>store<arg_key>file</arg_key><arg_value>a",
        "<tool_call>store<arg_key>file</arg_key><arg_value>a</arg_value><",
        "<tool_call>store<arg_key>file</arg_key><arg_value>a</arg_value><arg",
        "[TOOL_CALLS]store[ARGS]{",
        "<|tool_call_start|>[store(file=",
        "<|tool_call>call:store{file:",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.store:0<|tool_call_argum",
        "<|channel|>commentary to=functions.store <|constrain|>json<|message|>{",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>store<｜tool▁se",
    ],
)
def test_text_that_ends_inside_a_call_is_a_cut_call(text: str) -> None:
    parsed = read(text)
    assert calls_of(parsed) == []
    assert parsed.content == ""
    assert codes_of(parsed) == {"tool_call_incomplete"}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "store", "parameters": {"type": "object", "properties": {"file": {"type": "string"}}}}',
        '{"name": "store", "description": "keeps a file", "parameters": {"file": "a"}}',
        '{"name": "store", "arguments": {"color": "red", "size": 3}}',
        "plan = [store(file='a'), now()]\nrun(plan)",
        "You would write [store(file='a')] in a program.",
        "The plan is\n[store(file='a')]\nand no other.",
        'Such a line\n{"name": "now", "arguments": {}}\nis a call.',
        'Like this:\n\n~~~\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n~~~\n\nSo it is.',
        'Like this:\n\n    <tool_call>\n    {"name": "now", "arguments": {}}\n    </tool_call>\n\nSo it is.',
        'He said:\n> <tool_call>{"name": "now", "arguments": {}}</tool_call>\n\nSo it is.',
        "| a | b |\n|---|---|\n| x | <function=now></function> |",
        "One writes <function=now> and closes it by </function>.",
        '<h2>now</h2>\n<p>{"name": 1}</p>',
    ],
)  # fmt: skip
def test_what_only_looks_like_a_call_is_text(text: str) -> None:
    parsed = read(text)
    assert calls_of(parsed) == []
    assert parsed.content == text


@pytest.mark.parametrize("tilde", ["~~", "~~~~", "~ ~"])
def test_tildes_are_a_fence_only_where_a_line_begins(tilde: str) -> None:
    parsed = read(f"It is {tilde} done: <function=now></function>")
    assert calls_of(parsed) == [("now", {})]


STORE: Call = ("store", {"file": "a.md"})
NOW: Call = ("now", {})
FORMS: list[tuple[str, Call]] = [
    ('[Calling tool: store({"file": "a.md"})]', STORE),
    ('[Tool call: store {"file": "a.md"}]', STORE),
    ('<tool_call>\n<function>store</function>\n{"file": "a.md"}\n</tool_call>', STORE),
    ('<function>store</function>\n{"file": "a.md"}', STORE),
    ('<tools>\n{"name": "store", "arguments": {"file": "a.md"}}\n</tools>', STORE),
    ('<use_tool>[{"name": "now", "arguments": {}}]</use_tool>', NOW),
    ('[ACTION] {"tool": "now", "args": {}} [/ACTION]', NOW),
    ('<tool_call>{"name="store", "arguments": {"file": "a.md"}}</tool_call>', STORE),
    ('<|tool_call|>[{"arguments": {"file": "a.md"}, "type": "store"}]', STORE),
    ('<invoke name="store">\n<parameter name="file">a.md</parameter>\n</invoke>', STORE),
    ((']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="store">]<]minimax[>[<parameter name="file">a.md'
     "]<]minimax[>[</parameter>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>"), STORE),
]  # fmt: skip
FORMS += [
    ((f"<|tool_calls_section_begin|><|tool_call_begin|>{id_}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
     "<|tool_calls_section_end|>"), STORE)
    for id_, arguments in [
        ("functionsstore3", '{"file": "a.md"}'), ("functions.store3", '{"file": "a.md"}'),
        ("functions_store_1", '{"file": "a.md"}'),
        ("store:7", '{"file": "a.md"}'), ("call_8Xy", '{"name": "store", "arguments": {"file": "a.md"}}'),
        ("4", '{"file": "a.md"}'),
    ]
]  # fmt: skip
FORMS += [
    ((f'<{bars}{space}{block}>\n<{bars}{space}invoke name="store">\n<{bars}{space}parameter name="file" string="true">a.md'
     f"</{bars}{space}parameter>\n</{bars}{space}invoke>\n</{bars}{space}{block}>"), STORE)
    for bars in ("｜DSML｜", "｜｜DSML｜｜", "|DSML|", "‖DSML‖") for space in ("", " ") for block in ("calls", "tool_calls")
]  # fmt: skip
FORMS += [
    (f"<|tool_call>call:store{arguments}<tool_call|>", STORE)
    for arguments in ('(file=<|"|>a.md<|"|>)', '({file:<|"|>a.md<|"|>})', '(file="a.md")', "(file: a.md)")
]
FORMS += [
    (f'<|channel|>commentary to=functions.{name}<|message|>{{"file": "a.md"}}<|call|>', STORE)
    for name in ("storejson", "store<|constrain|>json", "store json")
]
FORMS += [
    ('<tool_call>store(file="a.md")</tool_call>', STORE),
    ('<tool_call>\n{{"name": "store", "arguments": {"file": "a.md"}}}\n</tool_call>', STORE),
]
PAIR = (
    "<tool_call>",
    "store",
    "<arg_key>",
    "file",
    "</arg_key>",
    "<arg_value>",
    "a.md",
    "</arg_value>",
    "</tool_call>",
)
FORMS += [("".join(PAIR[:place] + PAIR[place + 1 :]), STORE) for place in (2, 4, 5, 7)]
FORMS += [("".join((*PAIR[:place], PAIR[place], *PAIR[place:])), STORE) for place in (0, 2, 4, 5, 7, 8)]


@pytest.mark.parametrize(("text", "call"), FORMS)
@pytest.mark.parametrize("before", ["", "Let me see.\n"])
def test_forms_of_calls_that_models_write(text: str, call: Call, before: str) -> None:
    parsed = read(before + text)
    assert calls_of(parsed) == [call]
    assert parsed.content == before.strip()


@pytest.mark.parametrize("dialect", ["gemma4", "functiongemma"])
def test_a_bare_null_is_null_in_gemmas_notation(dialect: str) -> None:
    begin, end = (
        ("<|tool_call>", "<tool_call|>") if dialect == "gemma4" else ("<start_function_call>", "<end_function_call>")
    )
    assert calls_of(read(f"{begin}call:store{{file:null,tries:2}}{end}")) == [("store", {"file": None, "tries": 2})]


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('<function name="store"><param name="file">a &amp; b</param></function>', ("store", {"file": "a & b"})),
        ('<minimax:tool_call><invoke name="store"><parameter name="file>">x</parameter></invoke></minimax:tool_call>',
         ("store", {"file>": "x"})),
        ('<minimax:tool_call><invoke name="sto<|im_end|>re"><parameter name="file">x</parameter></invoke></minimax:tool_call>',
         ("store", {"file": "x"})),
    ],
)  # fmt: skip
def test_headers_are_read_through_their_damage(text: str, call: Call) -> None:
    assert calls_of(read(text)) == [call]


@pytest.mark.parametrize(
    "text",
    [
        "store<arg_key>file</arg_key><arg_value>a.md</arg_value></tool_call>",
        "<tool_call>\n<parameter=file>\na.md\n</parameter>\n</function>\n</tool_call>",
        "<tool_call><arg_key>file</arg_key><arg_value>a.md</arg_value></tool_call>",
        '[TOOL_CALLS][ARGS]{"file": "a.md"}',
    ],
)  # fmt: skip
def test_markup_without_a_readable_call_is_text_with_a_problem(text: str) -> None:
    parsed = read(text)
    assert calls_of(parsed) == []
    assert parsed.content == text
    assert parsed.problems


@pytest.mark.parametrize(
    "form", ['<tool_call>{{"name": "{}", "arguments": {{}}}}</tool_call>', "<|tool_call_start|>[{}()]<|tool_call_end|>"]
)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("resolve_library_id", "resolve-library-id"),
        ("get_user_by_id", "getUserById"),
        ("now", "now"),
        ("list_all", None),
        ("List_Files", None),
    ],
)
def test_a_name_in_snake_case_means_the_tool(form: str, written: str, meant: str | None) -> None:
    """LM Studio gives models such names (API changelog 0.3.23); with two such tools it is not clear which is meant."""
    offered = [tool(name) for name in ("resolve-library-id", "getUserById", "now", "list-all", "listAll", "list_files")]
    parsed = parse(form.format(written), offered)
    assert [call.name for call in parsed.tool_calls] == ([meant] if meant else [])
    expected = ["unoffered_tool"] if meant is None else [] if meant == written else ["repaired"]
    assert [problem.code for problem in parsed.problems] == expected
