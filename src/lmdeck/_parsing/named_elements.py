"""Calls as an element that names the tool: in a child, an attribute or its tag.

`<tool_use><name>NAME</name><arguments>{…}</arguments></tool_use>` is how prompts of chat clients ask for calls (Cherry Studio);
models also write `<tool_use name="NAME">…</tool_use>`. The arguments are JSON, or elements; those of `<NAME KEY="VALUE" />` are
attributes.
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.json_calls import json_arguments
from lmdeck._parsing.literals import without_entities
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.xml_calls import (
    Elements,
    named_openings,
    named_parameters,
    parameters,
    read_header,
    write_attributes,
)

NAME_TAGS = stops("<name>", "<tool_name>", "<function_name>")
ARGUMENT_TAGS = stops("<arguments>", "<parameters>", "<parameter>", "<input>", "<tool_input>", "<args>", "<params>")
PARAMETERS = ("<parameter name=", "<param name=", "<parameter=", "<param=")
PARAMETERS_END = ("</parameter>", "</param>")
NAME_LIMIT = 100
ATTRIBUTE = late_pattern(r"""([\w.:\-]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)')""")
ATTRIBUTES = late_pattern(rf"(?:\s*+{ATTRIBUTE.pattern})*+\s*")


def named_by_child(source: Source, sink: Sink, ends: Stops, *, may_be_empty: bool = True) -> Reader[None]:
    """Read `<name>NAME</name>` and the arguments after it, up to one of `ends`.

    Raises:
        NotACall: The tool was not offered, or other text than arguments follows.
    """
    opening = yield from source.take(NAME_TAGS)
    name, closing = yield from source.within(stops(opening.replace("<", "</")), NAME_LIMIT)
    if not closing:
        raise TruncatedCall
    source.at += len(closing)
    yield from source.skip_space()
    yield from element_of(name, source, sink, ends, may_be_empty=may_be_empty)


def tool_openings(sink: Sink) -> Stops:
    """Return the starts of elements that have the names of the offered tools."""
    return stops(*(f"<{name}{end}" for name in sink.tools.schemas for end in (">", " ", "\n", "/")))


def tool_element(source: Source, sink: Sink, *, may_be_empty: bool = True) -> Reader[bool]:
    """Read an element that has the name of an offered tool; return whether there was one.

    Raises:
        NotACall: It has neither arguments nor attributes, and may not be empty.
        MalformedCall: They cannot be read.
    """
    opening = yield from source.take(tool_openings(sink))
    if not opening:
        return False
    name = opening[1:-1]
    closing = stops(f"</{name}>")
    if opening.endswith(">"):
        yield from source.skip_space()
        yield from element_of(name, source, sink, closing, may_be_empty=may_be_empty)
        yield from source.take(closing)
        return True
    source.at -= 1
    attributes, alone = yield from _attributes(source, sink)
    if not (attributes or may_be_empty):
        raise NotACall
    yield from source.skip_space()
    if not alone and not (yield from source.take(closing)):
        is_cut = not (yield from source.peek()) or (yield from source.ends_inside(closing, least=1))
        raise TruncatedCall if is_cut else MalformedCall("text beside its attributes")
    sink.open(name)
    if not attributes.keys() <= sink.tools.properties(sink.name).keys():
        raise MalformedCall(f"the tool does not have all of its attributes: {', '.join(attributes)}")
    write_attributes(sink, attributes)
    sink.close()
    return True


def _attributes(source: Source, sink: Sink) -> Reader[tuple[dict[str, str], bool]]:
    """Return the attributes of an opening tag, and whether it ends with `/>`."""
    try:
        header, alone = yield from read_header(source, sink)
    except NotACall:
        raise MalformedCall("an opening tag has no end") from None
    if not ATTRIBUTES.fullmatch(header):
        raise MalformedCall(f"{header.strip()[:80]!r} are not attributes")
    return {key: without_entities(a or b) for key, a, b in ATTRIBUTE.findall(header)}, alone


def element_of(name: str, source: Source, sink: Sink, ends: Stops, *, may_be_empty: bool = False) -> Reader[None]:
    """Read the arguments of a tool up to one of `ends`.

    They are JSON or elements, possibly inside another element.

    Raises:
        NotACall: The tool was not offered, or other text than arguments follows.
    """
    if sink.tools.resolve(name) is None:
        raise NotACall
    opening = yield from source.take(ARGUMENT_TAGS)
    closing = stops(opening.replace("<", "</")) if opening else ends
    sink.open(name)
    sink.hold()
    yield from _arguments(source, sink, closing, may_be_empty=may_be_empty or opening != "")
    yield from source.skip_space()
    if opening:
        yield from source.take(closing)
        yield from source.skip_space()
    if not (yield from source.ahead(ends)) and (yield from source.ends_inside(ends, least=1)):
        sink.note("a missing closing element")
    sink.close()


def _arguments(source: Source, sink: Sink, ends: Stops, *, may_be_empty: bool) -> Reader[None]:
    elements = Elements(function=(), function_end=ends.literals, parameter=PARAMETERS, parameter_end=PARAMETERS_END)
    char = yield from source.skip_space()
    if not char:
        raise TruncatedCall
    if char == "{":
        sink.release()
        yield from json_arguments(source, sink.write, sink, ends)
    elif (yield from source.ahead(stops(*PARAMETERS))):
        yield from parameters(source, sink, elements)
    elif (yield from source.ahead(named_openings(sink))):
        yield from named_parameters(source, sink, elements)
        if not (yield from source.ahead(ends)):
            raise MalformedCall("text between its parameters")
    elif not (may_be_empty and (yield from source.ahead(ends))):
        begins = stops(*ends.literals, *ARGUMENT_TAGS.literals, *PARAMETERS, *named_openings(sink).literals)
        is_cut = yield from source.ends_inside(begins, least=1)
        raise TruncatedCall if is_cut else NotACall
