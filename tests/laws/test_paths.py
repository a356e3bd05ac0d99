# ruff: noqa: E501 - a table of texts
"""The laws on the shortest texts that take each rare way through the parser.

`laws.fuzz` found them at random and shortened them; here they are measured by coverage, as no random text is.
"""

from __future__ import annotations

import pytest

from laws.examine import Sample, broken_law

SAMPLES = [
    Sample("<function=\n<parameter=\n\n</parameter></parameter></function>"),
    Sample("<function=\n<parameter=\n\n</parameter></parameter>u"),
    Sample("<function=\n<parameter=place><parameter=place>\n"),
    Sample('<function=save\n<parameter=tags\n\\"<parameter=more>'),
    Sample('<function=save\nr=></function><"'),
    Sample("<function=save><parameter=count><t</tool_call>"),
    Sample('<function=save>{"":""],'),
    Sample("<function_calls>e(t='',s=[''</function_calls>"),
    Sample("<functionname=></parameter>><paramname="),
    Sample("<functionname=nope><functionname=nope>"),
    Sample("<iquest_tool_call>look<arg_key>p<arg_key></arg_value>"),
    Sample("<iquest_tool_call>t</arg_key>"),
    Sample('<o>{name"""arguments":"{"'),
    Sample("<seed:tool_call><function=\n<parameter=\n</seed:tool_call>"),
    Sample("<start_function_call>call:{p:<escape><end_function_call><escape>&"),
    Sample("<start_function_call>call:{t:<escape><escape>Q"),
    Sample('<t>{"}{"name":"ping""arguments":{}}['),
    Sample("<tool_call>e<arg_key><arg_value>"),
    Sample("<tool_call>e<arg_key>t<arg_key>3</arg_value><o"),
    Sample("<tool_call>e<arg_key>t<arg_value></arg_value>t</arg_key>"),
    Sample("<tool_call>k<arg_key>e<arg_value></arg_key>"),
    Sample("<tool_call>k<arg_key>l<arg_key>e<arg_key></arg_value>s</arg_key>"),
    Sample("<tool_call>s<arg_key>t<arg_key>e</arg_value><arg_key></tool_call>"),
    Sample("<tool_call>s<arg_key>t<arg_key>v </arg_value>"),
    Sample("<|START_THINKING|><co>"),
    Sample("<|content_invoke_tool_json|>", offers_tools=False),
    Sample("<|message_model|><<|content_invoke_tool_text|>h"),
    Sample('<|open|>call tool="look"x=""<|sep|><|open|>argumenty=""<|sep|><|close|>argument<|sep|><|close|>call|<|close|>'),
    Sample("<|start|>to=e<|message|>", offers_tools=False),
    Sample("<|start|>to=g<|eom|>"),
    Sample("<|start|>to=n<|message|>W"),
    Sample('<|start|>to=s<|message|><rfl:parameter name=\n<rfl:parameter name="more"></rfl:parameter></rfl:parameter><rfl:parameter name="more">'),
    Sample("<|tool_call:begin|><|tool_call:end|>"),
    Sample("<|tool_call>call:<"),
    Sample('<|tool_call>call:{t:<|"|>W<|"|>:'),
    Sample('<|tool_call>call:{t:><|"|>Q<|"|>'),
    Sample("<|tool_call>call:{t=]"),
    Sample('<|tool_call_start|>,{"\n'),
    Sample("<|tools_prefix|>look>"),
    Sample("<｜DSML｜invoke><｜DSML｜invokee>"),
    Sample("<｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}ping<｜tool▁sep｜>"),
    Sample('>>>save\n"'),
    Sample('Action:\n```json{"":{"":"",,'),
    Sample("[TOOL_CALLS][TOOL_CALLS]"),
    Sample('[TOOL_CALLS]e[ARGS]{"":3<'),
    Sample("[TOOL_CALLS]{"),
    Sample("[``|`\n"),
    Sample("[k('''']"),
    Sample("]<]minimax[>[<invoke name=>]<]minimax[>[<><]<]minimax[>[</"),
    Sample("```\n```<｜tool▁call▁begin｜>f\n"),
    Sample("```\n```｜<|START_TEXT|><|think|>8", offers_tools=False),
    Sample("call:save{"),
    Sample('functools[{"""""\\}]'),
    Sample("l<function=><parameter=><parameter=</function>"),
    Sample("m<|start|><|message|><atem:function_calls>｜"),
    Sample("n<function=>{}</function>{"),
    Sample('o<TOOLCALL>{:"",ooalls>}<tool_call>\n<function=save>\n<parameter=text>\nhello there\n</parameter>\n<parameter=count>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=ping>\n</function>\n</tool_call>W13Q</｜DSML｜function_calls>look<|reserved_12|><atem:parameter name="'),
    Sample("p<|open|>call l<|open|>"),
    Sample('p<|open|>call tool="ping"x=""<|sep|><|close|>call\n'),
    Sample('p<|open|>call x=""<|sep|><|open|>argumentt<|sep|>'),
    Sample('p<|open|>call x=""<|sep|>t'),
    Sample("s<｜｜DSML｜｜tool>[｜"),
    Sample("t<|channel> "),
    Sample('{"""}'),
    Sample('{"}{"name":o'),
    Sample("<function_calls>\ud83d", prefix="<think>"),
    Sample("<think>", prefix="<think>"),
    Sample("<tool_call><function=ping\n</function></call>\n", prefix="<think>"),
    Sample("/", prefix=">>>"),
    Sample("}<end_function_call><start_function_call>call:ping{}", dialect="functiongemma"),
    Sample("W", dialect="inkling"),
    Sample("n|", dialect="inkling"),
    Sample("<|open|>argument <|close|>call", dialect="kimi-k3", offers_tools=False),
]  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_the_laws_hold_on_every_way(sample: Sample) -> None:
    assert broken_law(sample) is None
