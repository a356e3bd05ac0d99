"""Parameters that a model writes as bare text get the type that the tool's schema declares."""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck import parse, tool

NESTED = {"$defs": {"count": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}}}
CASES: list[tuple[object, str, object]] = [  # the schema of the parameter, its text, its value
    ({"type": "string"}, "12", "12"),
    ({"type": "str"}, "true", "true"),
    ({"type": "integer"}, "12", 12),
    ({"type": "integer"}, "12.0", 12),
    ({"type": "integer"}, "007", 7),
    ({"type": "integer"}, '"12"', 12),
    ({"type": "integer"}, "a dozen", "a dozen"),
    ({"type": "integer"}, '"a dozen"', '"a dozen"'),
    ({"type": "number"}, "1.5", 1.5),
    ({"type": "boolean"}, "Yes", True),
    ({"type": "boolean"}, "off", False),
    ({"type": "boolean", "nullable": True}, "None", None),
    ({"type": ["integer", "null"]}, "null", None),
    ({"type": "object"}, "{'a': (1, None)}", {"a": [1, None]}),
    ({"type": "object"}, '{\\"a\\": 1}', {"a": 1}),
    ({"type": "array"}, "[1, 2]", [1, 2]),
    ({"type": "array"}, "(1, 2)", [1, 2]),
    ({"type": "array"}, "None", None),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "5", 5),
    ({"oneOf": [{"type": "boolean"}]}, "true", True),
    ({"enum": [1, 2.5, None, True, [1], {"a": 1}]}, "2.5", 2.5),
    ({"enum": ["1", "2"]}, "2", "2"),
    ({"const": 3}, "3", 3),
    ({"$ref": "#/$defs/count"}, "3", 3),
    ({"$ref": "#/$defs/loop"}, "3", 3),
    ({"$ref": "#/none"}, "3", 3),
    ({"properties": {"a": {}}}, '{"a": 1}', {"a": 1}),
    ({"items": {"type": "integer"}}, "[1]", [1]),
    ({}, "[1", "[1"),
    ({}, "3", 3),
    (True, "", ""),
]


@pytest.mark.parametrize(("schema", "text", "value"), CASES, ids=[f"{schema}-{text}" for schema, text, _ in CASES])
def test_a_bare_parameter_gets_the_declared_type(schema: object, text: str, value: object) -> None:
    """What cannot be of that type stays text."""
    parameters = {"type": "object", "properties": {"x": schema}, **NESTED}
    tools: list[dict[str, Any]] = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    call = f"<tool_call>\n<function=f>\n<parameter=x>\n{text}\n</parameter>\n</function>\n</tool_call>"
    message = parse(call, tools)
    assert [one.arguments for one in message.tool_calls] == [{"x": value}]


@pytest.mark.parametrize("name", ["functions.f", "tool.f", "api.f", " f "])
def test_a_name_is_found_without_what_models_add_to_it(name: str) -> None:
    """Prefixes of OpenAI's harmony format, of modules, and white space do not hide a tool."""
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    call = f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>'
    assert [one.name for one in parse(call, tools).tool_calls] == ["f"]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f", "arguments": {"x": 1, "x": 2}}</tool_call>',
        '{"name": "f", "arguments": {"x": 1, "x": 2}}',
        "<function=f><parameter=x>1</parameter><parameter=x>2</parameter></function>",
        "<tool_call>f<arg_key>x</arg_key><arg_value>1</arg_value><arg_key>x</arg_key><arg_value>2</arg_value></tool_call>",
        "[f(x=1, x=2)]",
        "<|tool_call>call:f{x:1,x:2}<tool_call|>",
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1, \\"x\\": 2}"}</tool_call>',
    ],
)
def test_of_two_values_the_last_one_counts(text: str) -> None:
    """This holds in every dialect, and a problem has the other value."""
    message = parse(text, [{"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}}])
    assert [call.arguments for call in message.tool_calls] == [{"x": 2}]
    [problem] = message.problems
    assert problem.code == "repaired"
    assert "'x' is repeated, and an earlier value was left out: 1" in problem.detail


def test_a_value_that_is_too_long_for_a_literal_of_python_stays_text() -> None:
    tools = [{"name": "f", "input_schema": {"properties": {"x": {"type": "array"}}}}]
    text = "(1, " + "2, " * 30_000 + ")"
    call = f"<tool_call><function=f><parameter=x>{text}</parameter></function></tool_call>"
    assert parse(call, tools).tool_calls[0].arguments == {"x": text}


@tool
def look(place: str, days: int) -> str:
    """Look at the weather."""
    return place


def plan() -> None:
    """Plan a trip."""


class Named:
    name = "named"


@pytest.mark.parametrize("offered", [look, plan, Named()], ids=["look", "plan", "named"])
def test_a_tool_may_be_an_object_of_python_and_one_without_a_name_cannot_be_called(offered: object) -> None:
    name = getattr(offered, "name", "plan")
    call = f"<tool_call><function={name}><parameter=days>2</parameter></function></tool_call>"
    message = parse(call, [{"type": "web_search"}, offered])
    assert [(call.name, call.arguments) for call in message.tool_calls] == [(name, {"days": 2})]
