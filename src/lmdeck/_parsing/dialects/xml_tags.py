"""JSON, XML or keys and values between `<tool_call>` and `</tool_call>`, and the same between other tags.

The tag does not say which form follows, and models of one family mix them, so one reader looks at what comes and takes any.
"""

from __future__ import annotations

from dataclasses import replace

from lmdeck._parsing.dialects.dialect import BodyReader, Marker, ReasoningTags
from lmdeck._parsing.json_calls import json_arguments, json_calls, json_objects
from lmdeck._parsing.key_values import KeyValue, named_pairs
from lmdeck._parsing.sink import Calls
from lmdeck._parsing.source import NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.value_ends import literal_behind
from lmdeck._parsing.xml_calls import Elements, elements_calls

__all__ = ["BARE_FUNCTION", "FUNCTION", "NAMED_FUNCTION", "THINK", "TOOL_CALL", "coerced", "tagged"]

NAMED = stops("<function>")
THINK = ReasoningTags("<think>", "</think>")
FUNCTION = Elements(
    function=("<function=", "<function name=", "<invoke name="),
    function_end=("</function>", "</invoke>"),
    parameter=("<parameter=", "<parameter name=", "<param name="),
    parameter_end=("</parameter>", "</param>"),
    ends=("</tool_call>",),
)


def tagged(*ends: str, elements: Elements = FUNCTION, pairs: KeyValue | None = None, inner: str = "") -> BodyReader:  # noqa: C901 - one grammar, read top down
    """Make the reader of a block of any form that ends with one of `ends`."""
    wanted = stops(*ends)
    inner_end = (inner.replace("<", "</"),) if inner else ()
    pairs = replace(pairs or KeyValue(), ends=(*inner_end, *ends))
    elements = replace(elements, ends=ends) if ends else elements
    functions = stops(*elements.function)
    begins = stops(*(end.replace("/", "", 1) for end in ends if end.startswith(("</", "<|/"))))
    around = stops(*ends, *begins.literals)
    inside = stops(*elements.function, *ends, *begins.literals, inner)
    in_block = tagged(*inner_end, elements=elements, pairs=pairs) if inner else None

    def read(source: Source, calls: Calls) -> Reader[None]:  # noqa: C901 - one grammar, read top down
        count = len(calls.made)
        while True:
            char = yield from source.skip_space()
            if len(calls.made) == count and (yield from source.take(begins)):
                calls.note("a doubled opening tag")
                continue
            if not char or (yield from source.take(wanted)):
                if not char and len(calls.made) == count:
                    raise TruncatedCall
                return
            if len(calls.made) > count and char not in "{[<,;.":
                return
            if char == "{":
                yield from json_objects(source, calls, around)
            elif char == "[":
                yield from json_calls(source, calls, around)
            elif (char == "," and len(calls.made) > count) or (
                char in ";." and (yield from literal_behind(source, 1, wanted))
            ):
                source.at += 1
            elif char == "<" and (yield from source.take(NAMED)):
                yield from named_function(source, calls, wanted)
            elif char == "<" and (yield from source.ahead(functions)):
                yield from elements_calls(source, calls, elements)
            elif in_block and (yield from source.take(stops(inner))):
                yield from in_block(source, calls)
            elif len(calls.made) > count:
                return
            elif char == "<" and (yield from source.ends_inside(inside, least=1)):
                raise TruncatedCall
            else:
                yield from named_pairs(source, calls, pairs)
            source.mark()

    return read


def named_function(source: Source, calls: Calls, ends: Stops) -> Reader[None]:
    """Read `NAME</function>` and JSON behind it, behind `<function>` (mlx-omni-server #126)."""
    name, end = yield from source.within(stops("</function>"), 100)
    if not end:
        raise TruncatedCall
    source.at += len(end)
    if calls.toolbox.resolve(name) is None:
        raise NotACall
    char = yield from source.skip_space()
    if not char:
        raise TruncatedCall
    if char != "{":
        raise NotACall
    calls.open(name)
    calls.flush()
    yield from json_arguments(source, calls.write, calls, ends)
    calls.close()


def coerced(read: BodyReader) -> BodyReader:
    """Make the reader of a dialect whose models write numbers and truth values as strings."""

    def read_coerced(source: Source, calls: Calls) -> Reader[None]:
        calls.coerces = True
        try:
            yield from read(source, calls)
        finally:
            calls.coerces = False

    return read_coerced


TOOL_CALL = Marker("<tool_call>", tagged("</tool_call>"))
NAMED_FUNCTION = Marker("<function>", tagged(elements=FUNCTION), keeps=True, at_start=True)
BARE_FUNCTION = Marker("<function=", tagged(elements=FUNCTION), keeps=True)
