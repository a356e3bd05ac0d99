"""Texts that only look like calls: with `get_weather` and `search` offered, each must come out as it went in."""

from __future__ import annotations

FORMS = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
    "<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>",
    '<function name="get_weather"><param name="city">Paris</param></function>',
    '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}]',
    '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
    '[TOOL_REQUEST]{"name": "get_weather", "arguments": {"city": "Paris"}}[END_TOOL_REQUEST]',
    "[get_weather(city='Paris')]",
    "<|python_start|>[get_weather(city='Paris')]<|python_end|>",
    "<|tool_call_start|>[get_weather(city='Paris')]<|tool_call_end|>",
    '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>',
    '<minimax:tool_call><invoke name="get_weather"><parameter name="city">Paris</parameter></invoke></minimax:tool_call>',
    '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</TOOLCALL>',
    '{"name": "get_weather", "arguments": {"city": "Paris"}}',
    '[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
)
FENCED = [
    text
    for form in FORMS
    for text in (
        f"Here is how it looks:\n```\n{form}\n```",
        f"Use this:\n\n```json\n{form}\n```\nand nothing else.",
        f"````markdown\n```\n{form}\n```\n````",
    )
]
INLINE = [f"Write `{form}` to call it." for form in FORMS if "\n" not in form and not form.startswith("{")]
QUOTED = [f'The format is "{form}", as the card says.' for form in FORMS if "\n" not in form and form[0] != "{"]
UNOFFERED = [form.replace("get_weather", "send_money") for form in FORMS]

PROSE = """\
A model writes <tool_call> before each call and </tool_call> behind it.
The <tool_call> tag opens a call; </tool_call> closes it.
Qwen emits <tool_call>, Mistral emits [TOOL_CALLS], and LM Studio's default is [TOOL_REQUEST].
What does <tool_call> mean?
<tool_call> is a token of Qwen's vocabulary.
<tool_call>s are how Hermes asks for tools.
Compare <tool_calls> with <tool_call>.
I will not use a <tool_call> here.
Write <function=get_weather></function> in the text to call it.
An <invoke name="search"></invoke> without parameters calls the tool search.
Between <function name="search"> </function> stand its parameters.
The element <function=search/> closes itself.
The function get_weather takes a city.
Call get_weather(city="Paris") from Python.
get_weather(city='Paris') returns a dict.
result = get_weather(city="Paris")
You could run search(query="lmdeck") yourself.
def get_weather(city): ...
The tools are [get_weather, search].
Available: [get_weather], [search].
[get_weather] is one of two tools.
See [search](https://example.org/search) for more.
[get_weather](docs/get_weather.md) describes it.
Tools: ["get_weather", "search"].
The list [1, 2, 3] has three elements.
[1, 2, 3]
[[1, 0], [0, 1]] is the identity matrix.
For x in [0, 1) and y in (2, 3], f[x](y) is defined.
f(x) = [g(x) - h(x)] / [2a]
The interval [a, b] contains c.
a[i] = b[j](k)
Take A[1:3] and B[:, 0].
[img-0] shows a cat.
[1] Smith et al., 2020. [2] Jones, 2021.
[x] done, [ ] to do
- [ ] call get_weather
- [x] call search
<html><body><p>Hello</p></body></html>
<div class="tool_call">Not a call</div>
<p>Use the <code>get_weather</code> function.</p>
<function>alert(1)</function>
<parameter>city</parameter>
<tool>get_weather</tool>
<invoke>get_weather</invoke>
if a < b and b > c: pass
x <- 5; y <- x |> f
a <= b, b >= c, c <> d
std::vector<function<int(int)>> handlers;
#include <functional>
template <typename T> void f(T t);
List<Map<String, Integer>> list;
1 < 2 < 3
<3 I love it
The arrow <- means assignment.
<think is not a tag>
<thinking is fun
<thinker> is a sculpture.
</tool_call>
</function>
<|fim_prefix|> is another token.
Pipes | and <| operators.
F# has <| and |> operators.
{"name": "Alice", "age": 30}
{"name": "Paris", "country": "France"}
{"name": "get_weather"}
{"name": "get_weather", "description": "Get the weather", "city": "Paris"}
{"tool": "hammer", "size": 3}
{"function": "sin", "x": 0.5}
{"answer": 42}
{"city": "Paris", "unit": "c"}
{"arguments": {"city": "Paris"}}
{"parameters": {"city": {"type": "string"}}}
{"type": "object", "properties": {"city": {"type": "string"}}}
{"type": "function", "value": "x"}
[{"name": "Alice"}, {"name": "Bob"}]
[{"id": 1, "name": "Bolt"}, {"id": 2, "name": "Nut"}]
["get_weather", {"city": "Paris"}]
[{"type": "text", "text": "hi"}]
{"error": "no tool named get_weather"}
{}
[]
{ }
{"a": [1, 2, {"b": null}]}
{"name": "get_weather", "name": "search"}
{name: get_weather}
{get_weather}
$\\{x \\in A : x > 0\\}$
The set {1, 2, 3}.
{% block content %}{% endblock %}
{{ variable }}
${HOME}/bin
f"{name}"
Answer: {"x": 1}
functools.partial(get_weather, city="Paris")
functools is a module of Python.
Import functools and itertools.
function call syntax differs between languages
function calls are expensive
Action: open the door.
Action: none
Thought: I should think.
Here is my plan: eat, sleep.
Here is the answer: 42.
Here's a joke.
>>> print("hello")
>>> get_weather
>>> 1 + 1
to=everyone
to=x is the syntax.
to = 5
[TOOL_CALLS] is Mistral's token.
[ARGS] follows the name.
[THINKING] about it
[INST] and [/INST] mark turns.
[/TOOL_CALLS]
name: get_weather
get_weather
search
get_weather: Paris
The call: get_weather, Paris.
call:get_weather
call:get_weather{city:Paris}
"get_weather"
Tool call: get_weather with city=Paris.
Let me call get_weather for Paris.
I called search twice.
<a href="get_weather">weather</a>
<b>search</b>
<!-- <comment> -->
<![CDATA[ text ]]>
<?xml version="1.0"?>
<arg_key>city</arg_key>
<parameter=city>Paris</parameter>
a <b c
e < f > g
<
<<<<
[[[[
]]]]
{{{{
``
`<tool_call>`
`[get_weather(city="Paris")]` is a list.
Use `<think>` to think.
"""
TEXTS = FENCED + INLINE + QUOTED + UNOFFERED + [line for line in PROSE.splitlines() if line.strip()]
