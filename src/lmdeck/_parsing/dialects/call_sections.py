"""Sections of calls: headers with the tool's name, and JSON after each.

Written by DeepSeek V3 and V3.1, Kimi K2, PLaMo 3 and Step 3. DeepSeek writes its tokens with full-width bars (U+FF5C) and low
blocks (U+2581), Step 3 with full-width bars and low lines.

Sources: the models' chat templates on Hugging Face; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

import json
import re

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.argument_values import decode_arguments
from lmdeck._parsing.dialects.dialect import BodyReader, Dialect, Marker, ReasoningTags
from lmdeck._parsing.dialects.xml_tags import THINK, tag_block
from lmdeck._parsing.json_calls import ARGUMENT_KEYS, NAME_KEYS, json_arguments, json_call, json_calls, json_objects
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, UnofferedCall, stops
from lmdeck._parsing.value_ends import literal_after
from lmdeck._parsing.writers import elements, template, wrapped
from lmdeck._parsing.xml_calls import Elements, elements_call

INDEX = late_pattern(r":\d+$")
ID_LIMIT = 120
TEXT_LIMIT = 400
ID = late_pattern(r"(?:functions?[._:]?)?(.*?)[:_\-.]?\d*", re.DOTALL)
"""An id that names the tool.

It is `functions.NAME:0`, or misspelled `functionsNAME0` or `functions_NAME_0`.
"""


def call_section(  # noqa: C901 - one grammar, read top down
    *, calls_end: tuple[str, ...], begin: tuple[str, ...], after_name: tuple[str, ...], end: tuple[str, ...],
    lead: tuple[str, ...] = (), before_json: tuple[str, ...] = (), after_json: tuple[str, ...] = (),
    elements: Elements | None = None, is_open: bool = False,
) -> BodyReader:  # fmt: skip
    """Return a reader of a section in which each call is `begin` NAME `after_name` JSON `end`."""
    opening, ending = stops(*begin), stops(*calls_end, *end)
    any_end = stops(*after_json, *end, *calls_end)
    inside_call = stops(*before_json, *after_name, *calls_end, *end)
    name_ends = stops(*after_name, *end, *calls_end, "{", "\n")

    def read(source: Source, sink: Sink) -> Reader[None]:  # noqa: C901 - one grammar, read top down
        inside = is_open
        completed = len(sink.completed)
        while True:
            yield from source.skip_space()
            if len(sink.completed) > completed and (yield from source.ends_inside(any_end)):
                return
            if not inside and len(sink.completed) > completed and (yield from call_lacks_begin(source, sink)):
                inside = True
            if not inside and not (yield from source.take(opening)):
                if (yield from source.take(stops(*end))):
                    continue
                if len(sink.completed) > completed:
                    yield from source.take(stops(*calls_end))
                    return
                if (char := (yield from source.peek())) in ("{", "[") and (
                    yield from literal_after(source, 0, stops("{", "[{"))
                ):
                    yield from (json_calls if char == "[" else json_objects)(source, sink, ending)
                    continue
                place = source.place
                text, found = yield from source.within(stops(*begin, *calls_end), TEXT_LIMIT)
                if not found and text.strip() and text.strip() not in opening.prefixes | ending.prefixes:
                    raise NotACall
                if not found:
                    raise TruncatedCall
                if text.strip():
                    span = (place, source.place)
                    sink.report("text_left_out", f"Text before a call was left out: {text.strip()}", span=span)
                if (yield from source.take(stops(*calls_end))):
                    return
                continue
            inside = False
            if lead:
                yield from source.skip_space()
                yield from source.take(stops(*lead))
            if elements and (yield from source.ahead(stops(*elements.function))):
                yield from elements_call(source, sink, elements)
            elif (yield from source.skip_space()) == "{":
                yield from json_call(source, sink, ending)
            else:
                yield from call(source, sink)
            source.mark()
            yield from source.skip_space()
            while (yield from source.take(stops(*after_json, *end))):
                yield from source.skip_space()
            source.mark()

    def call_lacks_begin(source: Source, sink: Sink) -> Reader[bool]:
        """Whether another call follows without its first token: an id, and the token after ids."""
        wanted = stops(*after_name)
        while True:
            rest = source.text[source.at : source.at + ID_LIMIT]
            found = wanted.pattern.search(rest)
            if found:
                skipped = len(next((text for text in lead if rest.startswith(text)), ""))
                found = wanted.pattern.search(rest, skipped) or found
                header = rest[skipped : found.start()].strip()
                return "<" not in header and bool(tool_in_id(header, sink))
            if source.closed or len(rest) == ID_LIMIT or len(rest.partition("<")[0].split()) > 1:
                return False
            yield

    def call(source: Source, sink: Sink) -> Reader[None]:
        header = (yield from source.collect(name_ends)).strip()
        name = tool_in_id(header, sink)
        if not name:
            yield from call_without_name(source, sink, header)
            return
        sink.open(name)
        sink.flush()
        yield from source.skip_space()
        yield from source.take(stops(*after_name))
        if before_json:
            yield from source.skip_space()
            yield from source.take(stops(*before_json))
        char = yield from source.skip_space()
        if not char or (yield from source.ends_inside(inside_call, least=1)):
            raise TruncatedCall
        if char != "{" and (closing := (yield from source.ahead(ending))):
            if (yield from literal_after(source, len(closing), stops("{"))):
                raise MalformedCall("the call ends before its arguments")
            sink.close()
            return
        yield from json_arguments(source, sink.write, sink, ending)
        sink.close()

    def call_without_name(source: Source, sink: Sink, header: str) -> Reader[None]:
        """Read a call whose header is a number or an unknown id.

        The tool is named beside the arguments, or is the only one that has these arguments.
        """
        yield from source.take(stops(*after_name))
        yield from source.skip_space()
        yield from source.take(stops(*before_json))
        if not (yield from source.skip_space()) or (yield from source.ends_inside(inside_call, least=1)):
            raise TruncatedCall
        parts: list[str] = []
        if (yield from source.peek()) == "{":
            yield from json_arguments(source, parts.append, sink, ending)
        decoded = decode_arguments("".join(parts))
        name, arguments = _name_and_arguments(decoded if isinstance(decoded, dict) else {})
        if name is not None:
            sink.open(name)
            sink.write(arguments)
            sink.note("the name beside the arguments")
        elif header.isdigit():
            sink.open(_only_tool_with(set(decoded or {}), sink))
            sink.write("".join(parts))
            sink.note("a missing name")
        else:
            sink.open(INDEX.sub("", header))
        sink.close()

    return read


def tool_in_id(header: str, sink: Sink) -> str:
    """Return the offered tool that an id names; `""` if it does not name one."""
    found = ID.fullmatch(header)
    for name in (INDEX.sub("", header), header, found.group(1) if found else ""):
        if sink.tools.resolve(name) is not None:
            return name
    return ""


def _name_and_arguments(members: dict[str, object]) -> tuple[str | None, str]:
    """Return the name and the arguments in an object that has both; else None and `""`."""
    name = next((members[key] for key in members if key in NAME_KEYS), None)
    arguments = next((members[key] for key in members if key in ARGUMENT_KEYS), None)
    if not isinstance(name, str) or not isinstance(arguments, dict) or len(members) > 3:
        return None, ""
    return name, json.dumps(arguments, ensure_ascii=False)


def _only_tool_with(keys: set[str], sink: Sink) -> str:
    """Return the only tool that has all of these parameters.

    Raises:
        UnofferedCall: No tool has them, or more than one.
    """
    fitting = [name for name in sink.tools.schemas if keys and keys <= set(sink.tools.properties(name))]
    if len(fitting) != 1:
        raise UnofferedCall("a call without a name")
    return fitting[0]


def tool_output(source: Source, sink: Sink) -> Reader[None]:
    """Skip a tool result that the model invented."""
    yield from sink.discard_until(source, stops("<｜tool▁outputs▁end｜>"), "A tool's result that the model made up")
    yield from source.take(stops("<｜tool▁outputs▁end｜>"))


DEEPSEEK = call_section(
    calls_end=("<｜tool▁calls▁end｜>", "<|tool▁calls▁end|>"), begin=("<｜tool▁call▁begin｜>", "<|tool▁call▁begin|>"),
    lead=("function<｜tool▁sep｜>", "function<|tool▁sep|>"), after_name=("<｜tool▁sep｜>", "<|tool▁sep|>"),
    before_json=("```json",), after_json=("```",), end=("<｜tool▁call▁end｜>", "<|tool▁call▁end|>"),
)  # fmt: skip
DEEPSEEK_MARKERS = (
    Marker("<｜tool▁calls▁begin｜>", DEEPSEEK), Marker("<|tool▁calls▁begin|>", DEEPSEEK),
    Marker("<｜tool▁call▁begin｜>", DEEPSEEK, keeps=True),
    Marker("<｜tool▁outputs▁begin｜>", tool_output, channel=True),
)  # fmt: skip
OUTPUTS = tuple(f"<｜tool▁output{s}▁{side}｜>" for s in ("",) for side in ("begin", "end"))
KIMI = call_section(
    calls_end=("<|tool_calls_section_end|>", "<|tool_call_section_end|>"), begin=("<|tool_call_begin|>",),
    after_name=("<|tool_call_argument_begin|>",), end=("<|tool_call_end|>",),
)  # fmt: skip
PLAMO = call_section(
    calls_end=("<|plamo:end_tool_requests:plamo|>",),
    begin=("<|plamo:begin_tool_request:plamo|>",),
    lead=("<|plamo:begin_tool_name:plamo|>",),
    after_name=("<|plamo:end_tool_name:plamo|>",),
    before_json=("<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>",
                 "<|plamo:begin_tool_arguments:plamo|><|plamo:msg|>"),
    after_json=("<|plamo:end_tool_arguments:plamo|>",),
    end=("<|plamo:end_tool_request:plamo|>",),
)  # fmt: skip
STEPTML = Elements(
    function=("<steptml:invoke name=",), function_end=("</steptml:invoke>",),
    parameter=("<steptml:parameter name=",), parameter_end=("</steptml:parameter>",),
    ends=("<｜tool_call_end｜>", "<｜tool_calls_end｜>"),
)  # fmt: skip
STEP = call_section(
    calls_end=("<｜tool_calls_end｜>",), begin=("<｜tool_call_begin｜>",), lead=("function<｜tool_sep｜>",),
    after_name=("<｜tool_sep｜>",), end=("<｜tool_call_end｜>",),
    elements=STEPTML,
)  # fmt: skip
DEEPSEEK_BEGIN, DEEPSEEK_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
DEEPSEEK_FENCED = wrapped(
    DEEPSEEK_BEGIN,
    template("<｜tool▁call▁begin｜>function<｜tool▁sep｜>$NAME\n```json\n$ARGS\n```<｜tool▁call▁end｜>"),
    DEEPSEEK_END,
    "\n",
)
DEEPSEEK_PLAIN = wrapped(
    DEEPSEEK_BEGIN, template("<｜tool▁call▁begin｜>$NAME<｜tool▁sep｜>$ARGS<｜tool▁call▁end｜>"), DEEPSEEK_END
)
PLAMO_CALLS = wrapped(
    "<|plamo:begin_tool_requests:plamo|>",
    template(
        "<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>$NAME<|plamo:end_tool_name:plamo|>"
        "<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>$ARGS<|plamo:end_tool_arguments:plamo|>"
        "<|plamo:end_tool_request:plamo|>"
    ),
    "<|plamo:end_tool_requests:plamo|>",
)
STEP3_CALLS = wrapped(
    "<｜tool_calls_begin｜>",
    elements(
        '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="$NAME">',
        "</steptml:invoke><｜tool_call_end｜>",
        '<steptml:parameter name="$KEY">',
        "</steptml:parameter>",
        between="",
        pads_lines=True,
    ),
    "<｜tool_calls_end｜>",
)

DIALECTS = (
    Dialect(
        name="deepseek-v3", writes=DEEPSEEK_FENCED,
        models="DeepSeek-V3, R1-0528", markers=DEEPSEEK_MARKERS, reasoning=(THINK,), drops=OUTPUTS,
        architectures=("deepseek2",),
        example=(
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    Dialect(
        name="deepseek-r1", writes=DEEPSEEK_FENCED,
        models="DeepSeek-R1 and its distillations", markers=DEEPSEEK_MARKERS, reasoning=(THINK,),
        example=(
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    Dialect(
        name="cogito", writes=DEEPSEEK_FENCED,
        models="Cogito v2", markers=DEEPSEEK_MARKERS, reasoning=(THINK,), drops=OUTPUTS,
        example=(
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    Dialect(
        name="deepseek-v3.1", writes=DEEPSEEK_PLAIN,
        models="DeepSeek-V3.1", markers=DEEPSEEK_MARKERS, reasoning=(THINK,), drops=OUTPUTS,
        example='<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    Dialect(
        name="kimi-k2", writes=wrapped(
            "<|tool_calls_section_begin|>",
            template("<|tool_call_begin|>functions.$NAME:$AT<|tool_call_argument_begin|>$ARGS<|tool_call_end|>"),
            "<|tool_calls_section_end|>",
        ),
        models="Kimi-K2, K2-Thinking, K2.5",
        markers=(
            Marker("<|tool_calls_section_begin|>", KIMI),
            Marker("<|tool_call_section_begin|>", KIMI),
            Marker("<|tool_call_begin|>", KIMI, keeps=True),
        ),
        reasoning=(THINK,), architectures=("kimi-k2",),
        example=(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
            '{"a": 1}<|tool_call_end|><|tool_calls_section_end|>'
        ),
    ),
    Dialect(
        name="plamo3", writes=PLAMO_CALLS,
        models="PLaMo 3",
        markers=(
            Marker("<|plamo:begin_tool_requests:plamo|>", PLAMO),
            Marker("<|plamo:begin_tool_request:plamo|>", PLAMO, keeps=True),
        ),
        reasoning=(ReasoningTags("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),),
        drops=("<|plamo:end_think:plamo|>", "<|plamo:msg|>", "<|plamo:op|>", "<|plamo:tag|>"), architectures=("plamo3",),
        example=(
            "<|plamo:begin_tool_requests:plamo|><|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>f"
            "<|plamo:end_tool_name:plamo|><|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>"
            '{"a": 1}<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|><|plamo:end_tool_requests:plamo|>'
        ),
    ),
    Dialect(
        name="step3", writes=STEP3_CALLS,
        models="Step-3, Step-DeepResearch",
        markers=(
            Marker("<｜tool_calls_begin｜>", STEP), Marker("<｜tool_call_begin｜>", STEP, keeps=True),
            Marker("<steptml:toolcall>", tag_block("</steptml:toolcall>", elements=STEPTML)),
        ),
        reasoning=(THINK,),
        example=(
            '<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="f">'
            '<steptml:parameter name="a">1</steptml:parameter></steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>'
        ),
    ),
)  # fmt: skip
