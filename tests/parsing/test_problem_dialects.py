"""Each problem of a call names the dialect that the call is written in."""

from __future__ import annotations

import pytest

import lmdeck
from lmdeck._parsing.dialects import REGISTRY
from lmdeck.messages import Problem

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
CALLING = [dialect for dialect in REGISTRY.values() if dialect.writes is not None and dialect.example]
ONE_SHAPE = {
    "qwen3-coder-xml": "<tool_call>\n<function=f>\n<parameter=a>\n1",
    "hermes-json": '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>',
    "glm45-xml": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1",
    "mistral-v3": '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1,}}]',
    "mistral-v11": '[TOOL_CALLS]f[ARGS]{"a": 1,}',
    "generic-json": '{"name": "f", "arguments": {"a": 1,}}',
    "gpt-oss-harmony": "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{'a': 1}<|call|>",
}


def problems(text: str, dialect: str = "auto") -> list[Problem]:
    return list(lmdeck.parse(text, [TOOL], dialect).problems)


@pytest.mark.parametrize("dialect", [dialect.name for dialect in CALLING])
def test_a_call_that_is_cut_off_names_the_dialect_that_was_asked_for(dialect: str) -> None:
    example = REGISTRY[dialect].example
    cuts = (problems(example[:at], dialect) for at in range(len(example) - 1, 1, -1))
    of_calls = [found for cut in cuts for found in cut if found.code in {"tool_call_incomplete", "repaired"}]
    assert of_calls
    assert {found.dialect for found in of_calls} == {dialect}


@pytest.mark.parametrize("dialect", ONE_SHAPE)
def test_without_a_name_the_shape_of_the_call_decides(dialect: str) -> None:
    assert {found.dialect for found in problems(ONE_SHAPE[dialect])} == {dialect}


def test_a_stream_names_the_same_dialect_wherever_it_is_cut() -> None:
    text = ONE_SHAPE["hermes-json"]
    for at in range(1, len(text)):
        parser = lmdeck.StreamParser([TOOL])
        parser.feed(text[:at])
        parser.feed(text[at:])
        parser.finish()
        assert [problem.dialect for problem in parser.result.problems] == ["hermes-json"]


def test_a_problem_that_is_not_of_a_call_names_no_dialect() -> None:
    assert [(found.code, found.dialect) for found in problems("<think>Hm")] == [("reasoning_unclosed", "")]
