"""Calls in Python's syntax: `[f(a=1, b='x'), g()]`, bare or between tokens.

OLMo 3 writes one call per line. A bare list must begin with a bracket and the name of an offered tool, so prose with brackets
stays prose.

Sources: Meta's Llama 4 model card, Liquid's LFM2 card, AI2's OLMo 3 template; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import BodyReader, Dialect, Marker
from lmdeck._parsing.dialects.xml_tags import BARE_FUNCTION, FUNCTION, THINK, tag_block
from lmdeck._parsing.json_calls import CODE_TOOLS, code_arguments, json_calls, json_objects
from lmdeck._parsing.named_elements import NAME_TAGS, tool_openings
from lmdeck._parsing.python_calls import python_call, python_calls
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.writers import array, call_object, each, python, template, wrapped

ELEMENTS = stops(*FUNCTION.function, *NAME_TAGS.literals)
CALL = late_pattern(r"[A-Za-z_][\w.]{0,80}\(")
PARTIAL_CALL = late_pattern(r"(?:[A-Za-z_][\w.]{0,80})?\Z")


def between(*ends: str) -> BodyReader:
    """Return a reader of calls between tokens: a Python list, a JSON array, or elements."""
    wanted = stops(*ends)
    elements = tag_block(*ends)

    def read(source: Source, sink: Sink) -> Reader[None]:
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if char == "[":
            source.at += 1
            char = yield from source.skip_space()
            if not char:
                raise TruncatedCall
            if char == "{":
                source.at -= 1
                yield from json_calls(source, sink, wanted)
            else:
                yield from python_calls(source, sink, wanted, closer="]")
        elif char == "{":
            yield from json_objects(source, sink, wanted)
        elif char == "<" and (yield from source.ahead(stops(*ELEMENTS.literals, *tool_openings(sink).literals))):
            yield from elements(source, sink)
            return
        else:
            yield from python_calls(source, sink, wanted, closer="")
        source.mark()
        yield from source.skip_space()
        yield from source.take(wanted)

    return read


def tool_code(source: Source, sink: Sink) -> Reader[None]:
    """Read the calls in a `tool_code` fence; other program text stays text."""
    yield from source.skip_space()
    yield from source.take(stops("print("))
    yield from _begins_call(source)
    yield from python_calls(source, sink, stops("```", ")\n```"), closer="")
    yield from source.take(stops("```", ")\n```"))


def _begins_call(source: Source) -> Reader[None]:
    """Wait for a name and the bracket after it.

    Raises:
        NotACall: Other text follows.
    """
    while not CALL.match(source.text, source.at):
        if source.closed or not PARTIAL_CALL.match(source.text, source.at):
            raise NotACall
        yield


def python_tag(source: Source, sink: Sink) -> Reader[None]:
    """Read calls after `<|python_tag|>`, or program text.

    Calls are JSON objects or `NAME.call(key=literal)`, separated by semicolons.
    """
    ends = stops("<|eom_id|>", "<|eot_id|>")
    builtins = stops(*(f"{name}.call(" for name in sink.tools.schemas))
    count = len(sink.completed)
    while True:
        if len(sink.completed) > count:
            source.mark()
        char = yield from source.skip_space()
        if char == "{":
            yield from json_objects(source, sink, ends)
        elif char == "[":
            yield from json_calls(source, sink, ends)
        elif char and char in ";,":
            source.at += 1
        elif found := (yield from source.take(builtins)):
            yield from python_call(source, sink, ends, found.removesuffix(".call("))
        elif len(sink.completed) > count:
            yield from source.take(ends)
            return
        elif not char:
            raise TruncatedCall
        else:
            yield from _program(source, sink, ends)


def _program(source: Source, sink: Sink, ends: Stops) -> Reader[None]:
    """Read program text for a tool that runs it."""
    name = next((name for name in CODE_TOOLS if name in sink.tools.schemas), None)
    if name is None:
        raise MalformedCall("neither JSON nor a call of an offered tool")
    sink.open(name)
    sink.flush()
    yield from code_arguments(source, sink, ends)
    sink.close()


PYTHON_TAG = Marker("<|python_tag|>", python_tag)
PYTHON_START = Marker("<|python_start|>", between("<|python_end|>"))
ENDS = ("<|eom_id|>", "<|eot_id|>")

DIALECTS = (
    Dialect(
        name="llama4-pythonic", writes=array("", python, ""),
        models="Llama 4, Llama 3.2", markers=(PYTHON_START,), pythonic=True, drops=ENDS,
        architectures=("llama4",), example="<|python_start|>[f(a=1, b='x'), g()]<|python_end|>",
    ),
    Dialect(
        name="pythonic-list", writes=array("", python, ""),
        models="ToolACE-8B and others", markers=(PYTHON_START,), pythonic=True, drops=ENDS,
        example="[f(a=1, b='x')]",
    ),
    Dialect(
        name="lfm2", writes=array("<|tool_call_start|>", python, "<|tool_call_end|>"),
        models="LFM2, LFM2.5", markers=(Marker("<|tool_call_start|>", between("<|tool_call_end|>")),),
        pythonic=True, reasoning=(THINK,), architectures=("lfm2", "lfm2moe"),
        example='<|tool_call_start|>[f(a=1), g(b="x")]<|tool_call_end|>',
    ),
    Dialect(
        name="olmo3", writes=wrapped("<function_calls>", python, "</function_calls>", "\n"),
        models="OLMo 3", markers=(Marker("<function_calls>", between("</function_calls>")),),
        reasoning=(THINK,), architectures=("olmo2", "olmo3"), example='<function_calls>f(a="x")\ng()</function_calls>',
    ),
    Dialect(
        name="llama3-json", writes=each("", call_object(arguments="parameters"), "", between="; "),
        models="Llama 3.1, 3.2, 3.3", markers=(PYTHON_TAG,), bare="{",
        drops=ENDS, architectures=("llama",), example='{"name": "f", "parameters": {"a": 1}}',
    ),
    Dialect(
        name="llama3-python-tag", writes=each("", call_object(), "", before="<|python_tag|>", between="; "),
        models="Llama 3.x", markers=(PYTHON_TAG,), bare="{", drops=ENDS,
        example='<|python_tag|>{"name": "f", "arguments": {"a": 1}}',
    ),
    Dialect(
        name="functionary-v3.1", writes=each("", template("<function=$NAME>$ARGS"), "</function>", between=""),
        models="Functionary v3.1, Llama 3.1 with custom tools", markers=(BARE_FUNCTION, PYTHON_TAG),
        example='<function=f>{"a": 1}</function>',
    ),
    Dialect(
        name="gemma3-tool-code", writes=wrapped("```tool_code\n", python, "\n```", "\n"),
        models="Gemma 3, as its guide asks for calls",
        markers=(Marker("```tool_code", tool_code, at_start=True),), drops=("<end_of_turn>",),
        example="```tool_code\nf(a=1)\n```",
    ),
    Dialect(
        name="json-array", writes=array("", call_object(arguments="parameters"), ""),
        models='any model under `tool_choice="required"`', bare="[{",
        example='[{"name": "f", "parameters": {"a": 1}}]',
    ),
    Dialect(
        name="generic-json", writes=each("", call_object(), ""),
        models="models without a format for tools", bare="[{",
        example='{"name": "f", "arguments": {"a": 1}}',
    ),
)  # fmt: skip
