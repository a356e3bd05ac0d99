# ruff: noqa: E501 - a table of texts
"""Forms of calls, messages and reasoning, by dialect: what is read, what is reported, and that the laws hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from laws.examine import Sample, broken_law
from laws.material import TOOLS
from lmdeck import StreamParser, parse

PING: tuple[str, dict[str, Any]] = ("ping", {})
ROME: tuple[str, dict[str, Any]] = ("look", {"place": "Rome"})


def save(**arguments: Any) -> tuple[str, dict[str, Any]]:
    return "save", arguments


class Read(NamedTuple):
    """What a text says."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    problems: tuple[str, ...] = ()


def calls(*found: tuple[str, dict[str, Any]], problems: tuple[str, ...] = ()) -> Read:
    return Read(calls=found, problems=problems)


def text_left(content: str, *problems: str) -> Read:
    return Read(content, problems=problems)


CUT_OFF = Read(problems=("tool_call_incomplete",))
MINIMAX = "]<]minimax[>["


def minimax(inside: str) -> str:
    return f'{MINIMAX}<tool_call>\n{MINIMAX}<invoke name="save">{inside}{MINIMAX}</invoke>\n{MINIMAX}</tool_call>'


def element(key: str, inside: str) -> str:
    return f"{MINIMAX}<{key}>{inside}{MINIMAX}</{key}>"


def minicpm(inside: str) -> str:
    return f'<function name="save">{inside}</function>'


def coder(inside: str) -> str:
    return f"<tool_call>\n<function=save>\n{inside}\n</function>\n</tool_call>"


def kimi_k3(attributes: str, value: str) -> str:
    return (
        f'<|open|>tools<|sep|><|open|>call tool="save" index="1"<|sep|><|open|>argument {attributes}<|sep|>{value}'
        "<|close|>call<|sep|><|close|>tools<|sep|>"
    )


def kimi_k2(inside: str) -> str:
    return f"<|tool_calls_section_begin|>{inside}<|tool_calls_section_end|>"


def ifm(key: str, kind: str, value: str) -> str:
    return (
        f"<ifm|tool_call>save<ifm|arg_key>{key}</ifm|arg_key><ifm|arg_type>{kind}</ifm|arg_type><ifm|arg_value>{value}"
        "</ifm|arg_value></ifm|tool_call>"
    )


def hermes(call: str) -> str:
    return f"<tool_call>{call}</tool_call>"


def lfm2(*given: str) -> str:
    return f"<|tool_call_start|>[save({', '.join(given)})]<|tool_call_end|>"


GEMMA_SAVE = '<|tool_call>call:save{text:<|"|>a<|"|>'
RAIN = "It rains. " * 50
FORMS: dict[str, tuple[str, Read]] = {
    # Qwen3-Coder
    "qwen3-coder: elements named like parameters without their ends": (
        "<function=save>\n<text>\nhello\n</function>", calls(save(text="hello"), problems=("repaired",)),
    ),
    "qwen3-coder: elements named like parameters, cut off after one": (
        "<function=save>\n<text>hello</text>\n<count>3</count>", CUT_OFF,
    ),
    "qwen3-coder: elements named like parameters, cut off inside the end": ("<function=save>\n<text>hello</text>\n</func", CUT_OFF),
    "qwen3-coder: all arguments in one element": (
        coder('<parameter=arguments>\n{"text": "hi", "count": 2}\n</parameter>'), calls(save(text="hi", count=2)),
    ),
    "qwen3-coder: all arguments in one element, without any": (
        coder("<parameter=arguments>\n{}\n</parameter>\n<parameter=count>\n3\n</parameter>"), calls(save(count=3)),
    ),
    "qwen3-coder: text in the element of all arguments": (
        coder("<parameter=arguments>\nhello\n</parameter>"), calls(save(arguments="hello")),
    ),
    "qwen3-coder: all arguments in one element, cut off": (
        '<tool_call>\n<function=save>\n<parameter=arguments>\n{"text": "hi"', CUT_OFF,
    ),
    "qwen3-coder: a value of one line end": (coder("<parameter=text>\n</parameter>"), calls(save(text=""))),
    "qwen3-coder: a value of one line end without its end": (coder("<parameter=text>"), calls(save(text=""), problems=("repaired",))),
    "qwen3-coder: a value after words": (
        coder("<parameter=count>1</parameter>\nand the\n<parameter=text>\nand</parameter>"),
        calls(save(count=1, text="and"), problems=("text_left_out",)),
    ),
    "qwen3-coder: a value that ends in an indented line": (coder("<parameter=text>\n  hi\n  </parameter>"), calls(save(text="  hi\n  "))),
    "qwen3-coder: a parameter without a type after empty lines": (
        coder(f"<parameter=other>{chr(10) * 70}5</parameter>"), calls(save(other="\n" * 69 + "5")),
    ),
    "qwen3-coder: a parameter without a type, cut off": ("<tool_call>\n<function=save>\n<parameter=other>\n", CUT_OFF),
    "qwen3-coder: a value whose end is followed only by white space": (
        coder(f"<parameter=text>hi</parameter>{' ' * 500}"), calls(save(text="hi")),
    ),
    "qwen3-coder: many calls whose values have no end": (
        coder("<parameter=text>\nhi") * 20, calls(*[save(text="hi")] * 20, problems=("repaired",) * 20),
    ),
    "qwen3-coder: a name in an element of its own, then nothing": ("<function><name>save</name><arguments>", CUT_OFF),
    "qwen3-coder: a name in an element of its own, cut off": ("<tool_call><function><name>save", CUT_OFF),
    "qwen3-coder: a name in an element of its own, then text": (
        "<tool_call><function>save</function>hello</tool_call>",
        text_left("<tool_call><function>save</function>hello</tool_call>", "markup_kept"),
    ),
    # MiniCPM
    "minicpm: a value in a CDATA section": (
        minicpm('<param name="text"><![CDATA[a < b & "c" </param>]]> &amp; d</param>'), calls(save(text='a < b & "c" </param> & d')),
    ),
    "minicpm: a CDATA section that is cut off": ('<function name="save"><param name="text">a<![CDATA[b', CUT_OFF),
    "minicpm: a parameter that the tool does not have": (
        minicpm('<param name="mood">glad</param><param name="text">hi</param>'), calls(save(text="hi"), problems=("text_left_out",)),
    ),
    "minicpm: an empty parameter that the tool does not have": (
        minicpm('<param name="mood"></param><param name="text">hi</param>'), calls(save(text="hi")),
    ),
    "minicpm: a name with a quote in it": (
        '<function name="a"b"><param name="text">hi</param></function>',
        text_left('<function name="a"b"><param name="text">hi</param></function>', "tool_call_unparsed"),
    ),
    "minicpm: a name without its second quote": ('<function name="save>', CUT_OFF),
    # Gemma
    "gemma: a call as JSON": (
        '<|tool_call>{"name": "save", "arguments": {"text": "hi"}}<tool_call|>', calls(save(text="hi")),
    ),
    "gemma: two calls with a comma between": (f"{GEMMA_SAVE}}},call:ping{{}}<tool_call|>", calls(save(text="a"), PING)),
    "gemma: a call without braces": (
        "<|tool_call>call:save text<tool_call|>", text_left("<|tool_call>call:save text<tool_call|>", "tool_call_unparsed"),
    ),
    "gemma: a missing brace at the end": (f"{GEMMA_SAVE}<tool_call|>", calls(save(text="a"), problems=("repaired",))),
    "gemma: a missing bracket in the call": (
        '<|tool_call>call:save{tags:[<|"|>a<|"|>}<tool_call|>', calls(save(tags=["a"]), problems=("repaired",)),
    ),
    "gemma: a missing bracket at the end": (
        '<|tool_call>call:save{tags:[<|"|>a<|"|><tool_call|>', calls(save(tags=["a"]), problems=("repaired",)),
    ),
    "gemma: a key that is cut off": ('<|tool_call>call:save{<|"|>text<|"|>', CUT_OFF),
    "gemma: a call of another tool whose first token is gone": ('call:store{text:<|"|>a<|"|>}', text_left('call:store{text:<|"|>a<|"|>}')),
    # Harmony
    "harmony: a message without an end of its header after content": (
        "Hi. <|channel|>final It rains.<|return|>", text_left("Hi. It rains.", "repaired"),
    ),
    "harmony: a long message without an end of its header": (f"<|channel|>final {RAIN}<|return|>", text_left(RAIN.strip(), "repaired")),
    "harmony: messages without text": ("<|channel|>analysis<|end|><|start|>assistant<|channel|>final<|message|>Hi<|end|>", text_left("Hi")),
    "harmony: a preamble": (
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>It rains.<|return|>",
        text_left("I look.\nIt rains."),
    ),
    "harmony: a call of a built-in tool": (
        '<|channel|>commentary to=browser.search<|message|>{"query": "x"}<|call|>', Read(problems=("text_left_out",)),
    ),
    "muse: a message to the developer": (
        "<|start|>assistant to=developer<|message|>hm<|end|>Hi", text_left("Hi", "text_left_out"),
    ),
    "muse: messages to itself": (
        "to=self<|message|>Hm.<|eom|><|start|>assistant to=self<|message|>So.<|eom|><|start|>assistant to=user<|message|>It rains.<|eom|>",
        Read("It rains.", "Hm.\nSo."),
    ),
    "harmony: a role without its token": (
        "<|channel|>analysis<|message|>Hm.<|end|>assistant<|channel|>final<|message|>Hi<|return|>", Read("Hi", "Hm."),
    ),
    # Kimi
    "harmony: a token in prose": (f"The token <|channel|> begins it. {RAIN}", text_left(f"The token <|channel|> begins it. {RAIN.strip()}", "markup_kept")),
    "harmony: a token before a long word": (f"<|channel|>{'x' * 395}", text_left(f"<|channel|>{'x' * 395}", "markup_kept")),
    "kimi-k2: the end of a call before its arguments": (
        kimi_k2("<|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|><|tool_call_end|>{}"),
        text_left(kimi_k2("<|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|><|tool_call_end|>{}"), "tool_call_unparsed"),
    ),
    "kimi-k2: a call as a JSON object": (
        kimi_k2('<|tool_call_begin|>{"name": "ping", "arguments": {}}<|tool_call_end|>'), calls(PING),
    ),
    "kimi-k2: a superfluous end before the first call": (
        kimi_k2("<|tool_call_end|><|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|>{}<|tool_call_end|>"), calls(PING),
    ),
    "kimi-k2: a section without a call": (f"{kimi_k2('')}It rains.", text_left("It rains.", "tool_call_empty")),
    "kimi-k2: a call without arguments": (
        kimi_k2("<|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|><|tool_call_end|>"), calls(PING),
    ),
    "kimi-k2: a call without a name whose arguments fit no tool": (
        kimi_k2('<|tool_call_begin|>0<|tool_call_argument_begin|>{"unknown": 1}<|tool_call_end|>'),
        text_left(kimi_k2('<|tool_call_begin|>0<|tool_call_argument_begin|>{"unknown": 1}<|tool_call_end|>'), "unoffered_tool"),
    ),
    "kimi-k3: a section of another name": (
        "<|open|>extra<|sep|>Hi<|close|>extra<|sep|>", text_left("Hi", "text_left_out", "text_left_out"),
    ),
    "kimi-k3: a type by another name": (
        kimi_k3('key="other" type="int"', "5<|close|>argument<|sep|>"), calls(save(other=5)),
    ),
    "kimi-k3: an argument without its end": (
        kimi_k3('key="text" type="string"', "hi"),
        text_left('<|open|>call tool="save" index="1"<|sep|><|open|>argument key="text" type="string"<|sep|>hi', "tool_call_unparsed"),
    ),
    # Inkling
    "inkling: a token that is only mentioned": (
        "<|content_text|>The token <|message_user|> begins a turn.<|end_message|>", text_left("The token <|message_user|> begins a turn."),
    ),
    "inkling: a message that is cut off in its header": (
        "<|content_text|>Hi<|message_model|>save", text_left("Hi", "tool_call_incomplete"),
    ),
    "inkling: reasoning inside calls that end the reasoning": (
        '<think>Hm.<tool_call>{"name": "ping", "arguments": {}}</tool_call><|content_thinking|>So.', Read("", "Hm.So.", (PING,), ()),
    ),
    # MiniMax
    "minimax: elements in a number": (
        minimax(element("count", element("a", "1"))), text_left(minimax(element("count", element("a", "1"))), "tool_call_unparsed"),
    ),
    "minimax: an empty array and an empty object": (minimax(element("tags", "") + element("more", "")), calls(save(tags=[], more={}))),
    "minimax: text between members": (
        minimax(element("more", "words " + element("$text", "x"))), calls(save(more={"$text": "x", "$$text": "words"})),
    ),
    "minimax: a member twice": (minimax(element("more", element("b", "1") + element("b", "2"))), calls(save(more={"b": ["1", "2"]}))),
    # Mistral
    "mistral: the id of a call": ('[TOOL_CALLS]save[CALL_ID]abc123def[ARGS]{"text": "hi"}', calls(save(text="hi"))),
    # Llama and LFM2
    "lfm2: calls as a JSON array": (
        '<|tool_call_start|>[\n{"name": "save", "arguments": {"text": "hi"}}, {"name": "ping", "arguments": {}}]<|tool_call_end|>',
        calls(save(text="hi"), PING),
    ),
    "lfm2: a call as a JSON object": ('<|tool_call_start|>{"name": "ping", "arguments": {}}<|tool_call_end|>', calls(PING)),
    "lfm2: an object of Python with bare keys": (lfm2("more={a: 1}"), calls(save(more={"a": 1}))),
    "lfm2: an object with an equals sign": (lfm2('more={"a"= 1}'), calls(save(more={"a": 1}), problems=("repaired",))),
    "lfm2: strings in a row": (lfm2("text='a' \"b\""), calls(save(text="ab"))),
    "lfm2: a string over two lines": (lfm2('text="""a\nb"""'), calls(save(text="a\nb"))),
    "lfm2: a line that goes on": (lfm2('text="a\\\nb"'), calls(save(text="ab"))),
    "lfm2: escapes of Python and others": (lfm2(r'text="\d+ \U0001F600 \x41 \xzz \Uffffffff"'), calls(save(text=r"\d+ 😀 A \xzz \Uffffffff"))),
    "lfm2: numbers in Python's notations": (lfm2("count=05", "share=.5"), calls(save(count=5, share=0.5))),
    "lfm2: superfluous commas": (lfm2('tags=["a",]', 'more={"a": "x",},'), calls(save(tags=["a"], more={"a": "x"}))),
    "llama3: an array after the token": (
        '<|python_tag|>[{"name": "save", "parameters": {"text": "hi"}}, {"name": "ping", "parameters": {}}]<|eom_id|>',
        calls(save(text="hi"), PING),
    ),
    "llama3: two built-in calls": ('<|python_tag|>ping.call(); save.call(text="hi")<|eom_id|>', calls(PING, save(text="hi"))),
    "llama3: program text without a tool that runs it": (
        "<|python_tag|>print(1)<|eom_id|>", text_left("<|python_tag|>print(1)<|eom_id|>", "tool_call_unparsed"),
    ),
    "llama3: a separator first": ('<|python_tag|>; {"name": "ping", "parameters": {}}<|eom_id|>', calls(PING)),
    # Functionary, GigaChat, Cohere
    "functionary: a line that only looks like a call": (">>>nope\nhello", text_left(">>>nope\nhello")),
    "gigachat: a separator before text": ("<|message_sep|>Hi", text_left("Hi")),
    "functionary: the header of the answer, cut off": (">>>all", Read(problems=("tool_call_empty",))),
    "gigachat: a call after the separator": (
        'It rains.<|message_sep|>function call<|role_sep|>{"name": "save", "arguments": {"text": "hi"}}</s>',
        Read("It rains.", "", (save(text="hi"),)),
    ),
    # JSON
    **{
        f"hermes: {given} for no arguments": (hermes(f'{{"name": "ping", "arguments": {given}}}'), calls(PING))
        for given in ("[]", '""', "null", '"null"', '"None"')
    },
    **{
        f"hermes: {given} for arguments": (
            hermes(f'{{"name": "ping", "arguments": {given}}}'),
            text_left(hermes(f'{{"name": "ping", "arguments": {given}}}'), "tool_call_unparsed"),
        )
        for given in ("1e400", '"hello"', "7", "[1]")
    },
    "hermes: an array of calls whose last one cannot be read, without its end": (
        '<tool_call>[{"name": "ping", "arguments": {}}, {"name": "ping", "arguments": 7}',
        Read('{"name": "ping", "arguments": 7}', "", (PING,), ("tool_call_unparsed",)),
    ),
    "hermes: the arguments before the name": (hermes('{"arguments": {"text": "hi"}, "name": "save"}'), calls(save(text="hi"))),
    "hermes: a nested call, cut off after it": ('<tool_call>{"function": {"name": "ping", "arguments": {}}, "id": "x"', calls(PING)),
    "hermes: words beside a nested call": (
        hermes('{"function": {"name": "ping", "arguments": {}}, id: 1, \'type\': "function"}'), calls(PING),
    ),
    "hermes: a lone surrogate beside a fraction": (
        hermes('{"name": "save", "arguments": {"share": 1.5, "text": "\\ud83d"}}'), calls(save(share=1.5, text="\ufffd"), problems=("repaired",)),
    ),
    # GLM
    "glm: the next call before the end of this one": (
        "<tool_call>ping\n<tool_call>look\n<arg_key>place</arg_key><arg_value>Rome</arg_value></tool_call>",
        calls(PING, ROME, problems=("repaired",)),
    ),
    "glm: line ends written as two characters": (
        "<tool_call>save\\n<arg_key>text</arg_key>\\n<arg_value>hi</arg_value>\\n</tool_call>", calls(save(text="hi")),
    ),
    "glm: a value between the tags of a key": (
        "<tool_call>save<arg_key>count</arg_key><arg_key>5</arg_value></tool_call>", calls(save(count=5), problems=("repaired",)),
    ),
    "glm: a key without its value before a long one": (
        f"<tool_call>save<arg_key>count</arg_key><arg_key>text</arg_key><arg_value>{'hi ' * 1400}</arg_value></tool_call>",
        text_left(
            f"<tool_call>save<arg_key>count</arg_key><arg_key>text</arg_key><arg_value>{'hi ' * 1400}</arg_value></tool_call>",
            "tool_call_unparsed",
        ),
    ),
    "glm: a doubled tag, then nothing": ("<tool_call>save<arg_key>text</arg_key><arg_value><arg_value>hi", CUT_OFF),
    "glm: an element as a value": (
        "<tool_call>save<arg_key>text</arg_key><arg_value><arg_value>hi</arg_value></arg_value></tool_call>",
        calls(save(text="<arg_value>hi</arg_value>")),
    ),
    "glm: two arguments without keywords": (
        '<tool_call>save({"count": 1} 5)</tool_call>', text_left('<tool_call>save({"count": 1} 5)</tool_call>', "tool_call_unparsed"),
    ),
    "k2-horizon: the declared type counts": (ifm("text", "number", "5"), calls(save(text="5"))),
    "k2-horizon: the written type counts where none is declared": (ifm("other", "number", "5"), calls(save(other=5))),
    "k2-horizon: the written type by another name": (ifm("other", "str", "5"), calls(save(other="5"))),
    "k2-horizon: an empty call in a block": (
        "<ifm|tool_calls><ifm|tool_call></ifm|tool_call><ifm|tool_call>ping</ifm|tool_call></ifm|tool_calls>", calls(PING),
    ),
    # Without markers
    "bare: a sentence about another tool": ('[Calling tool: nope({"a": 1})]', text_left('[Calling tool: nope({"a": 1})]')),
    "bare: a sentence that is not about a call": ('[Please see: save({"text": "hi"})]', text_left('[Please see: save({"text": "hi"})]')),
    "bare: keywords between tags": ('<call>save(text="hi")</call>', calls(save(text="hi"))),
    "bare: keywords between brackets": ('[TOOL_USE] save(text="hi") [/TOOL_USE]', calls(save(text="hi"))),
    "bare: tags that are not about a call": ('<note>save(text="hi")</note>', text_left('<note>save(text="hi")</note>')),
    "bare: a quote that ends in a backslash": ('{"""\\', text_left('{"""\\')),
    "prose: struck text is not code": ('~~no~~ <tool_call>{"name": "ping", "arguments": {}}</tool_call>', Read("~~no~~", "", (PING,))),
    # Reasoning
    "reasoning: a tag that is only mentioned": ("<think>I may write <tool_call>.</think>", Read("", "I may write <tool_call>.")),
    "reasoning: a reserved token": ("<think>Use <reserved_12>it.</think>Hi", Read("Hi", "Use it.")),
    "reasoning: its end tag in backticks": ("<think>The tag `</think>` ends it.</think>Hi", Read("Hi", "The tag `</think>` ends it.")),
    "reasoning: its end tag after a lone backtick": ("<think>The tag `</think>\nHi", Read("Hi", "The tag `")),
    "reasoning: its end tag after a lone backtick, before a long line": (f"<think>The tag `</think>{' a' * 50}", Read(("a " * 50).strip(), "The tag `")),
    "reasoning: glued to a line of text": ("I say.<|inner_prefix|>Hm.<|inner_suffix|>Hi.", Read("I say.Hi.", "Hm.", (), ("markup_in_text",))),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_read_as_it_is_meant(form: str) -> None:
    text, wanted = FORMS[form]
    parsed = parse(text, TOOLS)
    assert broken_law(Sample(text)) is None
    found = tuple((call.name, call.arguments) for call in parsed.tool_calls)
    assert Read(parsed.content, parsed.reasoning, found, tuple(problem.code for problem in parsed.problems)) == wanted


OF_ONE_DIALECT: dict[str, tuple[str, str, Read]] = {
    "muse: an answer without a header": ("muse", "<|message|>It rains.<|eom|>", Read("", "It rains.")),
    "muse: two tokens in each other's place": (
        "muse", "<|message|>assistant to=user<|message|>Hi<|eom|>",
        text_left("<|message|>assistant to=user<|message|>Hi<|eom|>", "markup_kept"),
    ),
    "inkling: an empty message after the answer": (
        "inkling", "<|content_text|>Hi<|end_message|><|message_model|><|content_text|>Bye<|message_model|><|end_message|>", text_left("HiBye"),
    ),
    "functionary: the answer in two messages": (
        "functionary-v3.2", '>>>all\nHi. >>>all\nBye.>>>save\n{"text": "hi"}', Read("Hi. Bye.", "", (save(text="hi"),)),
    ),
    "command-r7b: a citation": ("command-r7b", "It <co>rains</co: 0:[1,2]> today.", text_left("It rains today.")),
    "command-r7b: a citation without its bracket": (
        "command-r7b", "It <co>rains</co: 0:[1,2] today.", text_left("It rains today.", "text_left_out"),
    ),
    "command-r7b: a citation without its sources": ("command-r7b", "It <co>rains</co: today.", text_left("It rains today.")),
    "hermes: a list as in Python": ("hermes-json", '[save(text="hi")]', text_left('[save(text="hi")]')),
}  # fmt: skip


@pytest.mark.parametrize("form", OF_ONE_DIALECT)
def test_a_form_that_only_one_dialect_has_is_read(form: str) -> None:
    dialect, text, wanted = OF_ONE_DIALECT[form]
    parsed = parse(text, TOOLS, dialect)
    assert broken_law(Sample(text, dialect)) is None
    found = tuple((call.name, call.arguments) for call in parsed.tool_calls)
    assert Read(parsed.content, parsed.reasoning, found, tuple(problem.code for problem in parsed.problems)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        f"<|tool_call>call:save{{more:{'{a:' * 130}1{'}' * 130}}}<tool_call|>",
        minimax(f"{MINIMAX}<more>{f'{MINIMAX}<a>' * 130}1{f'{MINIMAX}</a>' * 130}{MINIMAX}</more>"),
        hermes(f'{{"name": "save", "arguments": {{"more": {"[" * 30_000}{"]" * 30_000}}}}}'),
    ],
    ids=["gemma", "minimax", "hermes"],
)
def test_values_that_are_nested_too_deeply_are_text(text: str) -> None:
    parsed = parse(text, TOOLS)
    assert (parsed.content, parsed.tool_calls) == (text, [])
    assert [problem.code for problem in parsed.problems] == ["tool_call_unparsed"]


def test_calls_beyond_the_limit_are_text() -> None:
    pings = ", ".join(['{"name": "ping", "arguments": {}}'] * 257)
    parsed = parse(f"[TOOL_CALLS][{pings}]", TOOLS)
    assert len(parsed.tool_calls) == 256
    assert [problem.code for problem in parsed.problems] == ["tool_call_unparsed"]
    assert "more than 256 tool calls" in parsed.problems[0].detail


@pytest.mark.parametrize("begun", range(6, 18))
@pytest.mark.parametrize(("before", "tick"), [("\n", "```\n"), (" ", "``")], ids=["fence", "span"])
def test_code_is_code_wherever_the_text_before_it_was_examined(before: str, tick: str, begun: int) -> None:
    """Long text is examined from time to time, also between two backticks."""
    code = f'{before}{tick}<tool_call>{{"name": "ping", "arguments": {{}}}}</tool_call>{tick.strip()}'
    parser = StreamParser(TOOLS)
    for part in ("x" * 5000, *"x" * begun, *code):
        parser.feed(part)
    parser.finish()
    assert (parser.result.content, parser.result.tool_calls) == (f"{'x' * (5000 + begun)}{code}", [])


def test_arguments_beyond_the_limit_are_text_in_a_stream() -> None:
    begin, piece, end = '<tool_call>{"name": "save", "arguments": {"text": "', "x" * (1 << 20), '"}}</tool_call>'
    parser = StreamParser(TOOLS)
    for part in (begin, *[piece] * 17, end):
        parser.feed(part)
    parser.finish()
    assert parser.result.content == begin + piece * 17 + end
    assert [problem.code for problem in parser.result.problems] == ["tool_call_unparsed"]
    assert "arguments longer than 16777216 characters" in parser.result.problems[0].detail


def test_a_parser_that_is_finished_reads_nothing_more() -> None:
    parser = StreamParser(TOOLS)
    parser.feed("Hi")
    parser.finish()
    assert (parser.feed(" there"), parser.finish(), parser.result.content) == ([], [], "Hi")


@pytest.mark.parametrize(
    "parts", [('Hi.\n{"na', 'me": "ping", "arguments": {}}'), ('Hi.\n{"na', 'mes": "ping"}')], ids=["call", "data"]
)
def test_an_object_that_begins_in_the_same_piece_as_the_text_before_it_is_read(parts: tuple[str, str]) -> None:
    parser = StreamParser(TOOLS)
    for part in parts:
        parser.feed(part)
    parser.finish()
    whole = parse("".join(parts), TOOLS)
    assert (parser.result.content, len(parser.result.tool_calls)) == (whole.content, len(whole.tool_calls))
