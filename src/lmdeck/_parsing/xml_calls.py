"""XML-like calls: a function element with one element for each parameter.

The tool's schema decides the types of the parameters. Each family names the elements differently, and end tags may be missing;
`Elements` has the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.argument_values import decode_arguments
from lmdeck._parsing.json_calls import ARGUMENT_KEYS, json_arguments
from lmdeck._parsing.literals import without_entities
from lmdeck._parsing.members import Block
from lmdeck._parsing.offered_tools import ANY, STRING, json_for
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.typed_values import typed_value
from lmdeck._parsing.value_ends import ValueEnd, literal_after, read_value

NAME = late_pattern(
    r"""^\s*(?:name\s*=\s*)?(?:"([^"]*)"|'([^']*)'|“([^”]*)”|["']?([^"'>]*?)["']?)\s*(?:\s[\w-]+\s*=.*)?$""", re.DOTALL
)
CONTROL = late_pattern(r"<[|｜][\w.:\-]{1,40}[|｜]>")
PARTIAL_CONTROL = late_pattern(r"<(?:[|｜][\w.:\-]{0,40}[|｜]?)?\Z")
STRING_ATTRIBUTE = late_pattern(r"""\bstring\s*=\s*["'“”]?(true|false)""")
VALUE_ATTRIBUTE = late_pattern(r"""\bstring\s*=\s*"((?!(?:true|false)")[^"]*)\"""")
WORD = late_pattern(r"<([^\s=]*)")
CDATA = ("<![CDATA[", "]]>")
KEY = late_pattern(r"""\s*["']?([^"'<>\s]+)["']?(?:\s[^<>]*)?>""")
HEADER_LIMIT = 300
GAP_LIMIT = 400
"""How many characters there may be before the first parameter."""
HEADER_END = stops(">", "<")
SPACE = late_pattern(r"\s*")
OTHER_TEXT = late_pattern(r"[^\S\n]*+(.|\n)")
MARKUP_BEGINS = ("\n", "<", "[")
WHOLE = ARGUMENT_KEYS | {"properties"}


class Elements(Struct, frozen=True):
    """The tags of a family: of functions, of parameters, and of the block's end.

    With `ends_with_text`, the end tag of a function is the token at which the model stops, which servers may remove.
    """

    function: tuple[str, ...]
    function_end: tuple[str, ...]
    parameter: tuple[str, ...]
    parameter_end: tuple[str, ...]
    ends: tuple[str, ...] = ()
    trims: bool = True
    entities: bool = False
    declared_only: bool = False
    ends_with_text: bool = False

    @property
    def body(self) -> Stops:
        """The tags that may come next inside a function."""
        return stops(*self.parameter, *self.function_end, *self.ends, *self.function)

    def within(self, opening: str) -> Elements:
        """Return the spelling inside a function with this opening tag.

        If one end tag has the function's name, only that one ends it.
        """
        word = WORD.match(opening)
        same = tuple(end for end in self.function_end if word and end == f"</{word.group(1)}>")
        return replace(self, function_end=same or self.function_end)

    def value_end(self, opening: str, is_opening: Callable[[str], bool]) -> ValueEnd:
        """Return the tags that end the text after `opening`.

        `is_opening` returns whether a tag in it opens a parameter.
        """
        word = WORD.match(opening)
        same = tuple(end for end in self.parameter_end if word and end == f"</{word.group(1)}>")
        return ValueEnd(
            own=same or self.parameter_end, opens=(opening,), call_ends=self.function_end, block_ends=self.ends,
            cdata=CDATA if self.entities else None, is_opening=is_opening,
        )  # fmt: skip


def elements_calls(source: Source, sink: Sink, elements: Elements) -> Reader[None]:
    """Read functions, each separately, up to the end of the block, which may be missing."""
    block = Block(source, sink)
    opening, closing = stops(*elements.function), stops(*elements.function_end)
    ends = stops(*elements.ends, *elements.function)
    is_first = True
    while True:
        yield from source.skip_space()
        if block.has_calls and (yield from source.take(closing)):
            sink.report("repaired", f"After the call of {sink.completed[-1].name!r}: a superfluous closing element")
            continue
        if not (yield from source.ahead(opening)):
            if is_first:
                raise NotACall
            break
        yield from block.member(elements_call(source, sink, elements), ends, tags=closing)
        is_first = False
    block.end()


def elements_call(source: Source, sink: Sink, elements: Elements) -> Reader[None]:
    """Read one function, from its opening element on."""
    opening = stops(*elements.function)
    elements = elements.within((yield from source.take(opening)))
    header, alone = yield from read_header(source, sink)
    attributes: dict[str, str] = {}
    while not alone and (yield from literal_after(source, 0, opening)):
        yield from source.skip_space()
        yield from source.take(opening)
        again, is_empty = yield from read_header(source, sink)
        if is_empty and (value := VALUE_ATTRIBUTE.search(again)):
            attributes[name_in(again)] = without_entities(value.group(1))
            continue
        alone = is_empty
        if attributes or name_in(again) != name_in(header):
            raise MalformedCall(f"the function {name_in(header)!r} has no end")
        sink.note("a doubled opening element")
    sink.hold()
    sink.open(name_in(header))
    is_json = False
    if not alone:
        space = yield from source.collect_while(SPACE)
        is_json = (yield from source.peek()) == "{"
        if attributes:
            yield from _attribute_parameters(source, sink, elements, attributes)
        elif is_json:
            sink.release()
            yield from json_arguments(source, sink.write, sink, stops(*elements.function_end))
        elif (yield from source.ahead(named_openings(sink))):
            sink.release()
            yield from named_parameters(source, sink, elements)
        else:
            yield from parameters(source, sink, elements, space)
        yield from source.skip_space()
        ended = yield from source.take(stops(*elements.function_end))
        if ended and not sink.has_keys and (yield from literal_after(source, 0, stops(*elements.parameter, "{"))):
            raise MalformedCall(f"the function {name_in(header)!r} ends before its parameters")
    if not (is_json or sink.has_keys) and (yield from _is_mentioned(source, sink)):
        raise NotACall
    sink.close()


def _attribute_parameters(source: Source, sink: Sink, elements: Elements, attributes: dict[str, str]) -> Reader[None]:
    """Write parameters whose values are attributes, as in DeepSeek V4 Flash (codex-relay #49)."""
    ends = stops(*elements.function_end)
    if not (yield from source.ahead(ends)):
        is_cut = not (yield from source.peek()) or (yield from source.ends_inside(ends, least=1))
        raise TruncatedCall if is_cut else MalformedCall("text between its parameters")
    sink.release()
    write_attributes(sink, attributes)


def write_attributes(sink: Sink, attributes: dict[str, str]) -> None:
    """Write parameters whose values are attributes."""
    if attributes:
        sink.note("values as attributes")
    sink.write("{")
    for at, (key, text) in enumerate(attributes.items()):
        sink.write_key(key, is_first=not at)
        sink.write(json_for(text, sink.tools.types(sink.name, key) or STRING))
    sink.write("}")


def _is_mentioned(source: Source, sink: Sink) -> Reader[bool]:
    """Whether a function without arguments is inside a line of text, and so probably not a call."""
    if sink.code_spans.is_line_start:
        return False
    while True:
        found = OTHER_TEXT.match(source.text, source.at, source.at + GAP_LIMIT)
        if found or source.closed or len(source.text) - source.at >= GAP_LIMIT:
            return found is not None and found.group(1) not in MARKUP_BEGINS
        yield


def parameters(source: Source, sink: Sink, elements: Elements, space: str = "") -> Reader[None]:
    """Read parameters up to the end of their function, which stays unread."""
    sink.write("{")
    is_first = True
    body = elements.body
    opening = set(elements.parameter)
    while True:
        between: list[str] = []
        if is_first:
            text, found = yield from source.within(body, GAP_LIMIT)
            between.append(text)
        else:
            found = yield from source.until(body, between.append)
        gap = "".join((space, *between))
        space = ""
        if not found and elements.ends_with_text and not is_first and not gap.strip():
            sink.note("a missing closing element")
            break
        if not found:
            rest = gap.strip()
            if is_first and rest and not any(tag.startswith(rest[rest.rfind("<") :]) for tag in body.literals):
                raise NotACall
            if not rest or not begins_end(rest, elements.function_end + elements.ends):
                raise TruncatedCall
            sink.note("a missing closing element")
            break
        if gap.strip() and is_first and found not in opening:
            raise NotACall
        sink.release()
        _check_gap(sink, elements, gap.strip())
        if found not in opening:
            if found not in elements.function_end:
                sink.note("a missing closing element")
            break
        line = gap[gap.rfind("\n") + 1 :]
        indent = line if line.isspace() and line != gap else ""
        source.at += len(found)
        is_first = yield from _parameter(source, sink, elements, found, indent=indent, is_first=is_first)
    sink.write("}")


def named_openings(sink: Sink) -> Stops:
    """Return the opening tags with the names of the open call's parameters."""
    return stops(*(f"<{key}>" for key in sink.tools.properties(sink.name)))


def named_parameters(source: Source, sink: Sink, elements: Elements) -> Reader[None]:
    """Read parameters as elements with their own names, `<KEY>VALUE</KEY>`."""
    openings = named_openings(sink)
    sink.note("elements named like parameters")
    sink.write("{")
    is_first = True
    while True:
        yield from source.skip_space()
        opening = yield from source.take(openings)
        if not opening:
            break
        key, closing = opening[1:-1], f"</{opening[1:]}"
        value_end = ValueEnd(
            own=(closing,), opens=openings.literals, call_ends=elements.function_end, block_ends=elements.ends
        )
        sink.write_key(key, is_first=is_first)
        is_first = False
        end = yield from typed_value(source, sink, value_end, sink.tools.types(sink.name, key), trims=elements.trims)
        if end != closing:
            sink.note("a missing closing element")
        else:
            source.at += len(closing)
    if not (yield from source.peek()) or (yield from source.ends_inside(elements.body, least=1)):
        raise TruncatedCall
    sink.write("}")


def _repeats(source: Source, tag: str, sink: Sink, before: str = "") -> Reader[bool]:
    """Read a repeated opening element if `before` follows it; return whether it was read."""
    wanted = tag + before
    while not source.closed and wanted.startswith(source.text[source.at : source.at + len(wanted)]):
        if len(source.text) - source.at >= len(wanted):
            break
        yield
    if not source.text.startswith(wanted, source.at):
        return False
    source.at += len(tag)
    sink.note("a doubled opening element")
    return True


def _check_gap(sink: Sink, elements: Elements, gap: str) -> None:
    """Report text between two parameters.

    Raises:
        MalformedCall: The text is a value whose opening element is missing.
    """
    text = gap
    for end in elements.parameter_end:
        text = text.replace(end, "")
    if text != gap and text.strip():
        raise MalformedCall("a value without the opening element of its parameter")
    if text != gap:
        sink.note("a superfluous closing element")
    elif gap:
        sink.report("text_left_out", f"Text between parameters was left out: {gap}")


def begins_end(rest: str, ends: tuple[str, ...]) -> bool:
    """Whether the text ended inside an end tag, so that the text before it is complete."""
    return len(rest) > 1 and any(end.startswith(rest) for end in ends)


def _parameter(
    source: Source, sink: Sink, elements: Elements, opening: str, *, indent: str, is_first: bool
) -> Reader[bool]:
    header, alone = yield from read_header(source, sink)
    key = name_in(header)
    types = sink.tools.types(sink.name, key)
    if not alone:
        yield from _repeats(
            source, f"{opening}{header}>", sink, before="" if types and STRING.isdisjoint(types) else "\n"
        )
    attribute = STRING_ATTRIBUTE.search(header)
    is_json = attribute is not None and attribute.group(1) == "false"
    if attribute and not types:
        types = ANY if is_json else STRING
    if key in WHOLE and key not in sink.tools.properties(sink.name) and is_first and not alone:
        return (yield from _whole_arguments(source, sink, elements, opening, key))
    declared = sink.tools.properties(sink.name)
    value_end = elements.value_end(opening, lambda header: _begins_parameter(header, declared, sink))
    if elements.declared_only and declared and key and key not in declared:
        left_out: list[str] = []
        end = "" if alone else (yield from read_value(source, left_out.append, value_end, sink))
        if text := "".join(left_out).strip():
            sink.report("text_left_out", f"The parameter {key!r}, which the tool does not have, was left out: {text}")
        yield from _end_of_parameter(source, sink, elements, end)
        return is_first
    sink.write_key(key, is_first=is_first)
    if alone:
        sink.write(json_for("", types or STRING))
        return False
    if elements.entities:
        end = yield from _decoded_value(source, sink, value_end, types)
    else:
        end = yield from typed_value(
            source, sink, value_end, types, indent=indent, trims=elements.trims, is_json=is_json
        )
    yield from _end_of_parameter(source, sink, elements, end)
    return False


def _begins_parameter(header: str, declared: Mapping[str, Any], sink: Sink) -> bool:
    """Whether an opening tag inside a value opens the next parameter, by the text after it."""
    found = KEY.match(header)
    return found is not None and not sink.has_key(found.group(1)) and (not declared or found.group(1) in declared)


def _end_of_parameter(source: Source, sink: Sink, elements: Elements, end: str) -> Reader[None]:
    if end in elements.parameter_end:
        yield from source.take(stops(end))
    else:
        sink.note("a missing closing element")


def _whole_arguments(source: Source, sink: Sink, elements: Elements, opening: str, key: str) -> Reader[bool]:
    """Read all arguments from a single parameter that the model invented for them."""
    parts: list[str] = []
    declared = sink.tools.properties(sink.name)
    value_end = elements.value_end(opening, lambda header: _begins_parameter(header, declared, sink))
    end = yield from read_value(source, parts.append, value_end, sink)
    if not end:
        raise TruncatedCall
    text = "".join(parts).strip()
    written = json_for(text, frozenset({"object"}))
    value = decode_arguments(written)
    fits = isinstance(value, dict) and (not declared or set(value) <= set(declared))
    inner = written[1:-1].strip() if fits else f"{encode_basestring(key)}: {json_for(text, ANY)}"
    sink.write(inner)
    yield from _end_of_parameter(source, sink, elements, end)
    return not inner


def _decoded_value(source: Source, sink: Sink, value_end: ValueEnd, types: frozenset[str]) -> Reader[str]:
    """Read a value that may contain entities and CDATA sections."""
    parts: list[str] = []
    end = yield from read_value(source, parts.append, value_end, sink)
    if not end:
        raise TruncatedCall
    begin, close = CDATA
    plain, *sections = "".join(parts).split(begin)
    decoded = [without_entities(plain)]
    for section in sections:
        inside, _, after = section.partition(close)
        decoded += [inside, without_entities(after)]
    text = "".join(decoded)
    sink.write(encode_basestring(text) if types == STRING else json_for(text, types))
    return end


def read_header(source: Source, sink: Sink) -> Reader[tuple[str, bool]]:
    """Return the rest of an opening element, and whether it closes itself (`/>`)."""
    header, has_noise = "", False
    while True:
        part, end = yield from source.within(HEADER_END, HEADER_LIMIT)
        header += part
        if not end:
            raise TruncatedCall
        if end == "<" and (yield from _passes_control(source)):
            sink.note("a token inside an element")
            has_noise = True
        elif end == ">" and (yield from _is_quoted_bracket(source, header)):
            source.at += 1
            header += ">"
        elif end == ">":
            source.at += 1
            return header.removesuffix("/"), header.endswith("/")
        elif "\n" in header and not has_noise:
            line, _, rest = header.partition("\n")
            source.unread(rest)
            source.unread("\n")
            return line.strip(), False
        else:
            raise NotACall


def _passes_control(source: Source) -> Reader[bool]:
    """Read a control token, which has no meaning inside an element; return whether there is one."""
    while True:
        found = CONTROL.match(source.text, source.at)
        if found:
            source.at = found.end()
            return True
        if source.closed or not PARTIAL_CONTROL.match(source.text, source.at):
            return False
        yield


def _is_quoted_bracket(source: Source, header: str) -> Reader[bool]:
    """Whether `>` is inside the quotes of a name, which must end before the next `>`."""
    if header.count('"') % 2 == 0:
        return False
    ends = stops(">", "<", "\n")
    while True:
        found = ends.pattern.search(source.text, source.at + 1, source.at + HEADER_LIMIT)
        if found:
            return found.group() == ">" and source.text[source.at + 1 : found.start()].count('"') % 2 == 1
        if source.closed or len(source.text) - source.at >= HEADER_LIMIT:
            return False
        yield


def name_in(header: str) -> str:
    """Return the name in the text after `=`: `NAME`, `"NAME"` or `"NAME" string="true"`."""
    found = NAME.match(header)
    if not found:
        raise NotACall
    return without_entities(next(text for text in (*found.groups(), "") if text is not None)).strip()
