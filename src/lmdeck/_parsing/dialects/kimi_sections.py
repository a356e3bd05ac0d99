"""Kimi K3: an answer in sections, `<|open|>response<|sep|>…<|close|>response<|sep|>`.

Sources: Kimi K3's chat template; vLLM, SGLang.
"""

from __future__ import annotations

import re

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import Dialect, Marker
from lmdeck._parsing.literals import without_entities
from lmdeck._parsing.offered_tools import types_of
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, stops
from lmdeck._parsing.typed_values import typed_value
from lmdeck._parsing.value_ends import ValueEnd
from lmdeck._parsing.writers import elements, wrapped

ATTRIBUTE = late_pattern(r"""\b(\w++)\s*+=\s*+"((?:[^"\\]|\\.)*+)\"""")
SEPARATOR = stops("<|sep|>")
ATTRIBUTES = late_pattern(rf"(?:\s*+{ATTRIBUTE.pattern})*+\s*")
HEADER_ENDS = stops("<|sep|>", "<|open|>", "<|close|>")
ARGUMENT_END = ValueEnd(
    own=("<|close|>argument<|sep|>", "<|close|>argument"),
    opens=("<|open|>argument",),
    call_ends=("<|close|>call",),
    odd=("<|sep|>", "<|close|>", "<|open|>"),
    after=late_pattern(r"\s*argument key="),
)
SECTION_ENDS = stops("<|close|>", "<|open|>")
SECTIONS = ("think", "response", "tools", "message", "call")
CALL_SECTIONS = ("tools", "call", "argument")
TURN = stops("<|open|>", "<|close|>")
GLUED = "toolscall "
"""The headers of a section of calls and of its first call, without the tokens between them.

Source: oh-my-pi #8495.
"""
SECTION = late_pattern(r"\w*")


def kimi(source: Source, sink: Sink) -> Reader[None]:
    """Read one of Kimi K3's sections, from `<|open|>` or `<|close|>` on.

    Without tools, sections of calls are text.
    """
    begin = source.place
    if (yield from source.take(TURN)) == "<|close|>":
        yield from _end_of_section(source, sink, begin)
        return
    section = (yield from source.collect(stops("<|sep|>", "<|open|>", "<|close|>"))).strip()
    if section.startswith(GLUED):
        section = section.removeprefix("tools")
        sink.note("a missing token in a header")
    kind = section.split()[0] if section else ""
    if kind in CALL_SECTIONS and not sink.tools:
        raise NotACall
    is_whole = yield from source.take(SEPARATOR)
    if kind == "call":
        yield from kimi_call(source, sink, section)
        yield from _after_call(source, sink)
        return
    if section and (kind not in SECTIONS or "<" in section or not is_whole):
        sink.report(
            "text_left_out", f"The start of a section called {section!r} was left out", span=(begin, source.place)
        )
    if section == "think":
        yield from sink.reasoning_body(SECTION_ENDS)
    elif section == "response":
        yield from sink.message(SECTION_ENDS)


def _after_call(source: Source, sink: Sink) -> Reader[None]:
    """Skip text between a call and the end of its section.

    Raises:
        NotACall: The section does not end there: the text is content.
    """
    source.mark()
    begin, parts = source.place, list[str]()
    end = yield from source.until(TURN, parts.append)
    text = "".join(parts)
    if not end and text.strip() and any(token.startswith(text.strip()) for token in HEADER_ENDS.literals):
        sink.report("repaired", "The end of a section is cut off", text, (begin, source.place))
    elif end == "<|close|>" and text.strip():
        sink.report("text_left_out", f"Text after a call was left out: {text.strip()}", text, (begin, source.place))
    elif text:
        raise NotACall


def _end_of_section(source: Source, sink: Sink, begin: int) -> Reader[None]:
    """Read `SECTION<|sep|>`, after `<|close|>`."""
    section = yield from source.collect_while(SECTION)
    if section in CALL_SECTIONS and not sink.tools:
        raise NotACall
    stray: list[str] = []
    yield from source.until(stops("<|sep|>", "<|open|>"), stray.append)
    is_whole = yield from source.take(SEPARATOR)
    if section == "think" and sink.content and not sink.reasoning:
        sink.report_unopened(f"<|close|>{section}")
    if section not in (*SECTIONS, "argument") or not is_whole or "".join(stray).strip():
        detail = f"The end of a section called {section!r} was left out"
        sink.report("text_left_out", detail, span=(begin, source.place))


def attributes_in(header: str) -> dict[str, str]:
    """Return the attributes of a header; their quotes are escaped with backslashes or as in XML."""
    return {key: without_entities(re.sub(r"\\(.)", r"\1", value)) for key, value in ATTRIBUTE.findall(header)}


def kimi_call(source: Source, sink: Sink, header: str) -> Reader[None]:
    """Read a call's arguments and its end."""
    attributes = attributes_in(header)
    if not ATTRIBUTES.fullmatch(header.removeprefix("call")):
        raise MalformedCall(f"{header[:80]!r} is not the header of a call")
    sink.open(attributes.get("tool") or attributes.get("name", ""))
    sink.flush()
    sink.write("{")
    is_first = True
    while True:
        yield from source.skip_space()
        if not (yield from source.take(stops("<|open|>argument"))):
            break
        argument_header = yield from source.collect(HEADER_ENDS)
        if not (yield from source.take(SEPARATOR)) or not ATTRIBUTES.fullmatch(argument_header):
            raise MalformedCall(f"{argument_header[:80]!r} is not the header of an argument")
        argument = attributes_in(argument_header)
        key = argument.get("key", "")
        types = types_of(argument, {}) or sink.tools.types(sink.name, key)
        sink.write_key(key, is_first=is_first)
        is_first = False
        end = yield from typed_value(source, sink, ARGUMENT_END, types, trims=False)
        if end not in ARGUMENT_END.own:
            raise MalformedCall(f"the argument {key!r} has no end")
        yield from source.take(stops("<|close|>argument"))
        if (yield from source.ends_inside(SEPARATOR, least=1)):
            raise TruncatedCall
        yield from source.take(SEPARATOR)
    parts_of_call = stops("<|close|>call", "<|open|>argument")
    if not (yield from source.peek()) or (yield from source.ends_inside(parts_of_call, least=1)):
        raise TruncatedCall
    if not (yield from source.take(stops("<|close|>call"))):
        raise MalformedCall("expected an argument, found text")
    sink.write("}")
    sink.close()
    yield from source.take(SEPARATOR)


K3_CALLS = wrapped(
    "<|open|>tools<|sep|>",
    elements(
        '<|open|>call tool="$NAME" index="$AT"<|sep|>',
        "<|close|>call<|sep|>",
        '<|open|>argument key="$KEY" type="$TYPE"<|sep|>',
        "<|close|>argument<|sep|>",
        between="",
    ),
    "<|close|>tools<|sep|>",
)

DIALECTS = (
    Dialect(
        name="kimi-k3", writes=K3_CALLS,
        content_frame=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
        thought_frame=("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
        models="Kimi-K3", drops=("<|end_of_msg|>",),
        markers=(
            Marker("<|open|>", kimi, keeps=True, channel=True), Marker("<|close|>", kimi, keeps=True, channel=True),
        ),
        example=(
            '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="a" type="number"<|sep|>1'
            "<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
        ),
    ),
)  # fmt: skip
