"""JSON, XML or keys and values between `<tool_call>` and `</tool_call>`, and the same between other tags.

The tag does not say which form follows, and models of one family mix them, so one reader looks at what comes and takes any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from lmdeck._parsing.dialects.dialect import BodyReader, Marker, ReasoningTags
from lmdeck._parsing.json_calls import json_arguments, json_call, json_calls
from lmdeck._parsing.offered_tools import Toolbox
from lmdeck._parsing.sink import Calls
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, UnofferedCall, stops
from lmdeck._parsing.typed_values import typed_value
from lmdeck._parsing.xml_calls import Elements, begins_end, elements_calls

__all__ = ["BARE_FUNCTION", "FUNCTION", "THINK", "TOOL_CALL", "KeyValue", "coerced", "tagged"]

THINK = ReasoningTags("<think>", "</think>")
WORD = re.compile(r"[\w.\-]*")
FUNCTION = Elements(
    function=("<function=", "<function name=", "<invoke name="),
    function_end=("</function>", "</invoke>"),
    parameter=("<parameter=", "<parameter name=", "<param name="),
    parameter_end=("</parameter>", "</param>"),
    ends=("</tool_call>",),
)


@dataclass(frozen=True)
class KeyValue:
    """The spelling of `<arg_key>K</arg_key><arg_value>V</arg_value>`."""

    key: tuple[str, str] = ("<arg_key>", "</arg_key>")
    value: tuple[str, str] = ("<arg_value>", "</arg_value>")
    kind: tuple[str, str] | None = None
    separator: str = "<tool_sep>"
    ends: tuple[str, ...] = ("</tool_call>",)
    names: dict[Toolbox, object] = field(default_factory=dict)


def tagged(*ends: str, elements: Elements = FUNCTION, pairs: KeyValue | None = None, inner: str = "") -> BodyReader:  # noqa: C901 - one grammar, read top down
    """Make the reader of a block of any form that ends with one of `ends`."""
    wanted = stops(*ends)
    inner_end = (inner.replace("<", "</"),) if inner else ()
    pairs = replace(pairs or KeyValue(), ends=(*inner_end, *ends))
    elements = replace(elements, ends=ends) if ends else elements
    functions = stops(*elements.function)
    in_block = tagged(*inner_end, elements=elements, pairs=pairs) if inner else None

    def read(source: Source, calls: Calls) -> Reader[None]:  # noqa: C901 - one grammar, read top down
        count = len(calls.made)
        while True:
            char = yield from source.skip_space()
            if not char or (yield from source.take(wanted)):
                if not char and len(calls.made) == count:
                    raise TruncatedCall
                return
            if len(calls.made) > count and char not in "{[<,":
                return
            if char == "{":
                yield from json_call(source, calls, wanted)
            elif char == "[":
                yield from json_calls(source, calls, wanted)
            elif char == "," and len(calls.made) > count:
                source.at += 1
            elif char == "<" and (yield from source.ahead(functions)):
                yield from elements_calls(source, calls, elements)
            elif in_block and (yield from source.take(stops(inner))):
                yield from in_block(source, calls)
            elif len(calls.made) > count:
                return
            else:
                yield from _name_and_pairs(source, calls, pairs)
            source.mark()

    return read


def _name_and_pairs(source: Source, calls: Calls, pairs: KeyValue) -> Reader[None]:
    """Read `NAME`, then keys and values; a call without arguments is only its name."""
    offered = stops(*calls.toolbox.schemas)
    name = yield from source.take(offered)
    if not name:
        name = yield from source.collect_while(WORD)
    after = yield from source.peek()
    known = calls.toolbox.resolve(name) if name else None
    if not after:
        is_begun = any(offered.startswith(name) for offered in calls.toolbox.schemas)
        raise TruncatedCall if is_begun and name else NotACall
    if known is None or after not in "<{\\ \n\t\r(":
        yield from source.skip_space()
        begins = yield from source.ahead(stops(pairs.key[0], pairs.separator, *pairs.ends))
        raise UnofferedCall(f"the tool {name[:200]!r} was not offered") if name and begins else NotACall
    yield from _line_end(source)
    body = stops(pairs.key[0], pairs.separator, *pairs.ends, "{", "<user>", "<tool_call>")
    yield from source.skip_space()
    if not (yield from source.ahead(body)):
        raise NotACall
    calls.open(known)
    calls.flush()
    yield from _pairs(source, calls, pairs)


def _line_end(source: Source) -> Reader[None]:
    """Read a line end that was written as backslash and n."""
    yield from source.take(stops("\\n"))


def _pairs(source: Source, calls: Calls, pairs: KeyValue) -> Reader[None]:
    wanted = stops(pairs.key[0], pairs.separator, *pairs.ends, "<user>", "</user>", pairs.value[0], "<tool_call>")
    is_first = True
    while True:
        yield from _line_end(source)
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if char == "{" and is_first:
            yield from _json_instead(source, calls, pairs)
            return
        found = yield from source.ahead(wanted)
        if not found and char == "\\":
            source.at += 1
            continue
        if (found in ("<user>", "</user>") and found not in pairs.ends) or (found and found == pairs.separator):
            source.at += len(found)
            continue
        if found != pairs.key[0]:
            break
        source.at += len(found)
        is_first = yield from _pair(source, calls, pairs, is_first=is_first)
    if found not in pairs.ends:
        calls.note("a missing closing element")
        if not found and source.closed and begins_end(source.text[source.at :].strip(), pairs.ends):
            source.at = len(source.text)
        elif not found:
            raise MalformedCall(f"{char!r} stands where a key was expected")
    calls.write("{}" if is_first else "}")
    calls.close()


def _json_instead(source: Source, calls: Calls, pairs: KeyValue) -> Reader[None]:
    yield from json_arguments(source, calls.write, calls, stops(*pairs.ends))
    calls.close()
    yield from source.skip_space()
    yield from source.take(stops("</user>"))


def _pair(source: Source, calls: Calls, pairs: KeyValue, *, is_first: bool) -> Reader[bool]:
    """Read a key and its value; tell whether there is still none."""
    key = (yield from source.collect(stops(pairs.key[1], *pairs.ends))).strip()
    if (yield from source.take(stops(*pairs.key))) == "":
        calls.note(f"a key {key!r} without a value")
        return is_first
    types = calls.toolbox.types(calls.name, key)
    yield from source.skip_space()
    yield from _line_end(source)
    yield from source.skip_space()
    if pairs.kind and (yield from source.take(stops(pairs.kind[0]))):
        said = (yield from source.collect(stops(pairs.kind[1]))).strip()
        source.at += len(pairs.kind[1])
        types = types or frozenset({said})
        yield from source.skip_space()
    if not (yield from source.take(stops(pairs.value[0]))):
        calls.note(f"a key {key!r} without a value")
        return is_first
    calls.write("{" if is_first else "")
    calls.write_key(key, is_first=is_first)
    end = yield from typed_value(source, calls, stops(pairs.value[1], pairs.key[0], *pairs.ends), types, trims=False)
    if end == pairs.value[1]:
        source.at += len(end)
    else:
        calls.note("a missing closing element")
    return False


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
BARE_FUNCTION = Marker("<function=", tagged(elements=FUNCTION), keeps=True)
