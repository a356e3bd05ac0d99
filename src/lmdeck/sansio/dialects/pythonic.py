"""Calls in Python's syntax: `[f(a=1, b='x'), g()]`, bare or between tokens, and one a line for OLMo 3.

A bare list begins with a bracket and the name of an offered tool; nothing else does, so prose with brackets stays prose.

Sources: Meta's Llama 4 model card, Liquid's LFM2 card, AI2's OLMo 3 template; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from lmdeck.sansio.calls import Calls
from lmdeck.sansio.dialects.declaration import BodyReader, Dialect, Marker
from lmdeck.sansio.dialects.tagged import THINK
from lmdeck.sansio.payloads import json_call, json_calls, python_calls
from lmdeck.sansio.source import MalformedCall, Reader, Source, TruncatedCall, stops

__all__ = ["DIALECTS", "bare_list"]


def between(*ends: str) -> BodyReader:
    """Make the reader of a call list, Python's or JSON's, between tokens."""
    wanted = stops(*ends)

    def read(source: Source, calls: Calls) -> Reader[None]:
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if char == "[":
            source.at += 1
            char = yield from source.skip_space()
            if char == "{":
                source.at -= 1
                yield from _array(source, calls, ends)
            else:
                yield from python_calls(source, calls, wanted, closer="]")
        elif char == "{":
            yield from json_call(source, calls, wanted)
        else:
            yield from python_calls(source, calls, wanted, closer="")
        source.mark()
        yield from source.skip_space()
        yield from source.take(wanted)

    return read


def _array(source: Source, calls: Calls, ends: tuple[str, ...]) -> Reader[None]:
    yield from json_calls(source, calls, stops(*ends))


def bare_list(source: Source, calls: Calls) -> Reader[None]:
    """Read a bare call list, from its bracket on."""
    source.at += 1
    yield from python_calls(source, calls, stops("<|python_end|>", "<|eot_id|>", "<|eom_id|>"), closer="]")


def python_tag(source: Source, calls: Calls) -> Reader[None]:
    """Read JSON objects behind `<|python_tag|>`, separated by semicolons."""
    ends = stops("<|eom_id|>", "<|eot_id|>")
    count = len(calls.made)
    while True:
        char = yield from source.skip_space()
        if char == "{":
            yield from json_call(source, calls, ends)
            source.mark()
        elif char == "[":
            yield from json_calls(source, calls, ends)
            source.mark()
        elif char and char in ";,":
            source.at += 1
        elif not char and len(calls.made) == count:
            raise TruncatedCall
        elif len(calls.made) == count:
            raise MalformedCall(f"{char!r} stands where a call was expected")
        else:
            yield from source.take(ends)
            return


PYTHON_START = Marker("<|python_start|>", between("<|python_end|>"))
ENDS = ("<|eom_id|>", "<|eot_id|>")

DIALECTS = (
    Dialect(
        name="llama4-pythonic", models="Llama 4, Llama 3.2", markers=(PYTHON_START,), pythonic=True, drops=ENDS,
        architectures=("llama4",), example="<|python_start|>[f(a=1, b='x'), g()]<|python_end|>",
    ),
    Dialect(
        name="pythonic-list", models="ToolACE-8B and others", markers=(PYTHON_START,), pythonic=True, drops=ENDS,
        example="[f(a=1, b='x')]",
    ),
    Dialect(
        name="lfm2", models="LFM2, LFM2.5", markers=(Marker("<|tool_call_start|>", between("<|tool_call_end|>")),),
        pythonic=True, reasoning=(THINK,), architectures=("lfm2", "lfm2moe"),
        example='<|tool_call_start|>[f(a=1), g(b="x")]<|tool_call_end|>',
    ),
    Dialect(
        name="olmo3", models="OLMo 3", markers=(Marker("<function_calls>", between("</function_calls>")),),
        reasoning=(THINK,), architectures=("olmo2", "olmo3"), example='<function_calls>f(a="x")\ng()</function_calls>',
    ),
    Dialect(
        name="llama3-json", models="Llama 3.1, 3.2, 3.3", markers=(Marker("<|python_tag|>", python_tag),), bare="{",
        drops=ENDS, architectures=("llama",), example='{"name": "f", "parameters": {"a": 1}}',
    ),
    Dialect(
        name="llama3-python-tag", models="Llama 3.x", markers=(Marker("<|python_tag|>", python_tag),), bare="{", drops=ENDS,
        example='<|python_tag|>{"name": "f", "arguments": {"a": 1}}',
    ),
    Dialect(
        name="json-array", models='any model under `tool_choice="required"`', bare="[{",
        example='[{"name": "f", "parameters": {"a": 1}}]',
    ),
    Dialect(
        name="generic-json", models="models without a format for tools", bare="[{",
        example='{"name": "f", "arguments": {"a": 1}}',
    ),
)  # fmt: skip
