"""JSON, XML or keys and values between `<tool_call>` tags, or between other tags.

The tag does not determine the form, and models of one family mix the forms, so one reader reads all of them.
"""

from __future__ import annotations

from msgspec.structs import replace

from lmdeck._parsing.dialects.dialect import BodyReader, Marker, ReasoningTags
from lmdeck._parsing.json_calls import json_arguments, json_calls, json_objects
from lmdeck._parsing.key_values import KeyValue, named_pairs
from lmdeck._parsing.named_elements import NAME_TAGS, named_by_child, tool_element
from lmdeck._parsing.python_calls import first_name_in_list, python_calls
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.value_ends import literal_after
from lmdeck._parsing.xml_calls import Elements, elements_calls

NAMED = stops("<function>")
OBJECT = stops("{")
FUNCTION_END = stops("</function>")
THINK = ReasoningTags("<think>", "</think>")
FUNCTION = Elements(
    function=("<function=", "<function name=", "<function ", "<invoke name="),
    function_end=("</function>", "</invoke>"),
    parameter=("<parameter=", "<parameter name=", "<parameter ", "<param name=", "<param="),
    parameter_end=("</parameter>", "</param>"),
    ends=("</tool_call>",),
)


def tag_block(*ends: str, elements: Elements = FUNCTION, pairs: KeyValue | None = None, inner: str = "") -> BodyReader:  # noqa: C901 - one grammar, read top down
    """Return a reader of a block of any form that ends with one of `ends`."""
    wanted = stops(*ends)
    inner_end = (inner.replace("<", "</"),) if inner else ()
    pairs = replace(pairs or KeyValue(), ends=(*inner_end, *ends))
    elements = replace(elements, ends=ends) if ends else elements
    functions = stops(*elements.function)
    begins = stops(*(end.replace("/", "", 1) for end in ends if end.startswith(("</", "<|/"))))
    around = stops(*ends, *begins.literals)
    inside = stops(*elements.function, *ends, *begins.literals, inner)
    in_block = tag_block(*inner_end, elements=elements, pairs=pairs) if inner else None

    def read(source: Source, sink: Sink) -> Reader[None]:  # noqa: C901 - one grammar, read top down
        count = len(sink.completed)
        while True:
            char = yield from source.skip_space()
            if len(sink.completed) == count and (yield from source.take(begins)):
                sink.note("a doubled opening tag")
                continue
            if not char or (yield from source.take(wanted)):
                if not char and len(sink.completed) == count:
                    raise TruncatedCall
                return
            if len(sink.completed) > count and char in "[<" and (yield from source.ends_inside(wanted, least=1)):
                sink.report("repaired", f"The end of the call of {sink.completed[-1].name!r} is cut off")
                return
            if len(sink.completed) > count and char not in "{[<,;.":
                sink.open_block = wanted.literals
                return
            if char == "{":
                yield from json_objects(source, sink, around)
            elif char == "[" and (yield from first_name_in_list(source)):
                source.at += 1
                yield from python_calls(source, sink, around, closer="]")
            elif char == "[" and (len(sink.completed) == count or (yield from literal_after(source, 1, OBJECT))):
                yield from json_calls(source, sink, around)
            elif (char == "," and len(sink.completed) > count) or (
                char in ";." and (yield from literal_after(source, 1, wanted))
            ):
                source.at += 1
            elif char == "<" and (yield from source.take(NAMED)):
                yield from named_function(source, sink, wanted)
            elif char == "<" and (yield from source.ahead(NAME_TAGS)):
                yield from named_by_child(source, sink, around)
            elif char == "<" and (yield from source.ahead(functions)):
                yield from elements_calls(source, sink, elements)
            elif char == "<" and (yield from tool_element(source, sink)):
                source.mark()
            elif in_block and (yield from source.take(stops(inner))):
                yield from in_block(source, sink)
            elif len(sink.completed) > count:
                sink.open_block = wanted.literals
                return
            elif char == "<" and (yield from source.ends_inside(inside, least=1)):
                raise TruncatedCall
            else:
                yield from named_pairs(source, sink, pairs)
            if len(sink.completed) > count:
                source.mark()

    return read


def named_function(source: Source, sink: Sink, ends: Stops) -> Reader[None]:
    """Read the name after `<function>` and the JSON after it.

    It is `NAME</function>`, or `<name>NAME</name>` inside the element (mlx-omni-server #126).
    """
    if (yield from source.ahead(NAME_TAGS)):
        yield from named_by_child(source, sink, FUNCTION_END)
        yield from source.take(FUNCTION_END)
        return
    name, end = yield from source.within(FUNCTION_END, 100)
    if not end:
        raise TruncatedCall
    source.at += len(end)
    if sink.tools.resolve(name) is None:
        raise NotACall
    char = yield from source.skip_space()
    if not char:
        raise TruncatedCall
    if char != "{":
        raise NotACall
    sink.open(name)
    sink.flush()
    yield from json_arguments(source, sink.write, sink, ends)
    yield from source.skip_space()
    sink.close()


def coerced(read: BodyReader) -> BodyReader:
    """Return a reader of a dialect whose models write numbers and truth values as strings."""

    def read_coerced(source: Source, sink: Sink) -> Reader[None]:
        sink.coerces = True
        try:
            yield from read(source, sink)
        finally:
            sink.coerces = False

    return read_coerced


TOOL_CALL = Marker("<tool_call>", tag_block("</tool_call>"))
NAMED_FUNCTION = Marker("<function>", tag_block(elements=FUNCTION), keeps=True, at_start=True)
BARE_FUNCTION = Marker("<function=", tag_block(elements=FUNCTION), keeps=True)
