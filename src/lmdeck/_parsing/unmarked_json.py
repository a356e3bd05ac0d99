"""Calls without any marker: JSON or a Python list on its own.

They must name an offered tool and fit its parameters. Because an answer or program text may look the same, such calls are read
as a draft and announced only when they are complete. Text may come before or after them, but not both. The first thing that a
call cannot contain makes the text an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.json_calls import (
    ARGUMENT_KEYS,
    CALLS_KEYS,
    KEYS_BESIDE_NAME,
    NAME_KEYS,
    OTHER_KEYS,
    json_arguments,
    json_calls,
    json_objects,
)
from lmdeck._parsing.named_elements import NAME_TAGS, element_of, named_by_child, tool_element
from lmdeck._parsing.python_calls import PARTIAL_LIST, PYTHON_LIST, first_name_in_list, python_call, python_calls
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import (
    MAX_UNREAD,
    NON_SPACE,
    MalformedCall,
    NotACall,
    Reader,
    Source,
    Stops,
    TruncatedCall,
    UnofferedCall,
    stops,
)

ENDS = stops("<|eom_id|>", "<|eot_id|>", "<|python_end|>")
LOOKAHEAD = MAX_UNREAD
LIST_OPENERS = frozenset({":[", ": ["})
"""The text before a bare list of calls on a line of text."""
AFTER_LIST_OPENER = late_pattern(r"\s*+(?:[A-Za-z_]|\Z)")
LIST_GUARDS = dict.fromkeys(LIST_OPENERS, ("\"'", rf"(?={AFTER_LIST_OPENER.pattern})"))
"""A list after a quoted key, or one that does not begin with a name, is not a list of calls."""
SENTENCE = late_pattern(
    r"\[[A-Za-z][A-Za-z_ -]{0,40}(?::[ \t]*|[ \t]+)([\w.\-]{1,80})[ \t]*"
    r"(?:\([ \t]*|[ \t](?:with|using)[ \t][^\n{\[\]}]{0,40}|:?[ \t]*|(\])\s{0,20})(?=\{)"
)
PARTIAL_SENTENCE = late_pattern(r"\[[A-Za-z][^\[\]{}\n]{0,180}(?:\]\s{0,20})?\Z")
LIST = late_pattern(rf"\[\s*\{{|{PYTHON_LIST.pattern}|{SENTENCE.pattern}")
HTML = (
    "a|abbr|address|article|aside|b|blockquote|body|br|button|caption|cite|code|col|colgroup|dd|del|details|dfn|div|dl|dt|em|"
    "fieldset|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|"
    "mark|meta|nav|ol|optgroup|option|p|path|pre|q|s|samp|script|section|select|small|span|strong|style|sub|summary|sup|svg|"
    "table|tbody|td|textarea|tfoot|th|thead|time|title|tr|u|ul|video"
)
NO_WRAPPER = rf"(?!(?:{HTML})[\s>/])"
"""Elements of HTML do not wrap calls."""
CALL = r"(?:call:)?([A-Za-z_][\w.\-]{0,80})(?:\(|(?=\{))"
"""The start of a Python call, or a name and a brace."""
WRAPPER = late_pattern(
    rf"<{NO_WRAPPER}"
    rf"([A-Za-z_][\w.:\-]{{0,39}})>\s{{0,20}}(?=\{{|\[\s{{0,20}}\{{|<[A-Za-z_]|{CALL})"
    rf"|\[([A-Za-z_][\w \-]{{0,39}})\]\s{{0,20}}(?=\{{|{CALL})"
    r"|<([A-Za-z_][\w.:\-]{0,39}(?<=use|all|ion|oke))\s{1,20}name\s?=\s?[\"']([\w.:\-]{1,80})[\"'][^<>\n]{0,80}>\s{0,20}(?=[{<])"
)
PARTIAL_WRAPPER = late_pattern(
    r"<(?:[A-Za-z_][\w.:\-]{0,39}(?:>\s{0,20}(?:\[\s{0,20}|[A-Za-z_][\w.:\-]{0,80}|<)?)?)?\Z"
    r"|\[(?:[A-Za-z_][\w \-]{0,39}(?:\]\s{0,20}(?:[A-Za-z_][\w.:\-]{0,80})?)?)?\Z"
    r"|<[A-Za-z_][\w.:\-]{0,39}(?<=use|all|ion|oke)\s[^<>\n]{0,140}(?:>\s{0,20})?\Z"
)
CALL_HEAD = late_pattern(CALL)
CALLS = late_pattern(r"(?:use|call|action|invoke)\Z", re.IGNORECASE)
"""The end of an element's name that makes it a call; `<tool>` and `<function>` may describe a tool."""
WORDS_OF_CALLS = late_pattern(r"tool|function|call|invok|action", re.IGNORECASE)
FIRST_KEY = late_pattern(r'\{\s*"([\w\-]+)"\s*:')
SECOND_KEY = late_pattern(r'\s*"[^"\\\n]*"\s*,\s*"([\w\-]+)"\s*:')
PARTIAL_KEYS = late_pattern(
    r'\{\s*(?:"[\w\-]*(?:"\s*(?::\s*(?:"[^"\\\n]*(?:"\s*(?:,\s*(?:"[\w\-]*(?:"\s*)?)?)?)?)?)?)?)?\Z'
)
UNDECIDED_KEYS = late_pattern(
    rf'\{{\s*(?:"(?:[\w\-]*(?:"\s*)?|(?:{"|".join(sorted(NAME_KEYS))})"\s*:\s*'
    r'(?:"[^"\\\n]*(?:"\s*(?:,\s*(?:"[\w\-]*(?:"\s*)?)?)?)?)?)?)?\Z'
)
"""Text on which `_begins_with_keys_of_call` cannot decide yet."""
SCHEMA_KEYS = frozenset({"type", "properties"})


class _Draft(Sink):
    """A sink of calls that are not announced yet.

    It records whether one of them names an offered tool.
    """

    is_draft = True

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink.tools, str, sink.source)
        self.dialect = sink.dialect
        self.begin_block(sink.source.place)
        self.names_tool = False

    def open(self, name: str) -> None:
        """Open a call."""
        super().open(name)
        self.names_tool = self.names_tool or self.tools.resolve(name) is not None


def drafted(source: Source, sink: Sink, read: Callable[[Source, Sink], Reader[None]]) -> Reader[None]:
    """Read calls without a marker and announce them if they are genuine.

    Raises:
        NotACall: They do not stand alone, name no offered tool or do not fit its parameters.
        MalformedCall: They name an offered tool but cannot be read.
    """
    draft = _Draft(sink)
    is_cut = False
    try:
        yield from read(source, draft)
    except MalformedCall as refusal:
        if not draft.names_tool or isinstance(refusal, UnofferedCall):
            raise NotACall from None
        raise
    except TruncatedCall:
        is_cut = True
    stands_alone = sink.is_at_start or not (yield from _text_follows(source))
    if not stands_alone or not all(_fits(draft, call.name, call.arguments) for call in draft.completed):
        raise NotACall
    if not draft.completed:
        raise TruncatedCall if is_cut and draft.names_tool else NotACall
    sink.merge_draft(draft)
    if is_cut:
        raise TruncatedCall
    source.mark()
    yield from source.take(ENDS)


def _text_follows(source: Source) -> Reader[bool]:
    """Whether text other than markup follows the calls."""
    while True:
        found = NON_SPACE.search(source.text, source.at)
        if found:
            return found.group() not in "<["
        if source.closed:
            return False
        yield


def _fits(sink: Sink, name: str, arguments: dict[str, object]) -> bool:
    """Whether arguments fit a tool: they include one of its parameters and are not a schema."""
    declared = sink.tools.properties(name)
    if set(arguments) >= SCHEMA_KEYS and not set(declared) >= SCHEMA_KEYS:
        return False
    return not arguments or not declared or not declared.keys().isdisjoint(arguments)


def starts_unmarked_json(source: Source, kinds: str, is_known: Callable[[str], bool]) -> Reader[bool]:
    """Whether a call may follow: an object, a list, a sentence about a call, or an unknown tag."""
    if source.text[source.at] == "{":
        return "{" in kinds and (yield from _begins_with_keys_of_call(source))
    is_bracket = source.text[source.at] == "["
    while True:
        rest = source.text[source.at : source.at + LOOKAHEAD]
        if WRAPPER.match(rest) or (is_bracket and LIST.match(rest)):
            return not is_known(rest)
        is_open = PARTIAL_WRAPPER.match(rest) or (
            is_bracket and (PARTIAL_LIST.fullmatch(rest) or PARTIAL_SENTENCE.match(rest))
        )
        if source.closed or len(rest) == LOOKAHEAD or not is_open:
            return False
        yield


def _begins_with_keys_of_call(source: Source) -> Reader[bool]:
    """Whether an object begins with the keys of a call: most JSON does not."""
    while True:
        rest = source.text[source.at : source.at + LOOKAHEAD]
        if first := FIRST_KEY.match(rest):
            if first.group(1) in CALLS_KEYS:
                return True
            if first.group(1) not in NAME_KEYS:
                return first.group(1) in KEYS_BESIDE_NAME
            if second := SECOND_KEY.match(rest, first.end()):
                return second.group(1) in NAME_KEYS | ARGUMENT_KEYS | OTHER_KEYS
        if source.closed or len(rest) == LOOKAHEAD or not PARTIAL_KEYS.match(rest):
            return True
        yield from source.wait_while(UNDECIDED_KEYS.match)


def read_unmarked_json(source: Source, sink: Sink) -> Reader[None]:
    """Read calls without a marker.

    They are one call, several separated by semicolons or commas, an array, a list as in Python, or a sentence.
    """
    if source.text[source.at] == "{":
        yield from drafted(source, sink, _objects)
        return
    rest = source.text[source.at : source.at + LOOKAHEAD]
    if rest[1:].lstrip().startswith("{"):
        yield from drafted(source, sink, _array)
    elif PYTHON_LIST.match(rest):
        yield from drafted(source, sink, _list)
    elif WRAPPER.match(rest):
        yield from wrapped_json(source, sink)
    else:
        yield from drafted(source, sink, _sentence)


def list_after_colon(source: Source, sink: Sink) -> Reader[None]:
    """Read a bare call list on a line of text, from the colon before it on."""
    distance = source.text.index("[", source.at) - source.at
    name = yield from first_name_in_list(source, distance)
    if sink.tools.resolve(name) is None:
        source.at += 1  # only the colon is certainly text
        raise NotACall
    sink.emit_content(source.text[source.at : source.at + distance])
    source.at += distance
    source.mark()
    sink.begin_block(source.place)
    yield from drafted(source, sink, _list)


def _list(source: Source, sink: Sink) -> Reader[None]:
    source.at += 1
    yield from python_calls(source, sink, ENDS, closer="]")


def _array(source: Source, sink: Sink) -> Reader[None]:
    yield from json_calls(source, sink, ENDS, strictly=True)


def _objects(source: Source, sink: Sink) -> Reader[None]:
    yield from json_objects(source, sink, ENDS, strictly=True)


def _sentence(source: Source, sink: Sink) -> Reader[None]:
    """Read `[Calling tool: NAME({…})]`, `[tool_call:NAME]{…}` and the like, from transcripts."""
    found = SENTENCE.match(source.text, source.at)
    if found is None or not WORDS_OF_CALLS.search(source.text, source.at, found.start(1)):
        raise NotACall
    name = found.group(1)
    if sink.tools.resolve(name) is None:
        raise NotACall
    source.at = found.end()
    if found.group(2):
        yield from _named_by_tag(name, source, sink, ENDS)
    else:
        yield from _in_brackets(source, sink, name, ENDS, closer="]")


def _in_brackets(source: Source, sink: Sink, name: str, ends: Stops, *, closer: str = "") -> Reader[None]:
    """Read the arguments of a call and its bracket: an object, or keywords as in Python."""
    if (yield from source.skip_space()) not in ("{", ""):
        yield from python_call(source, sink, ends, name, closer=closer)
        return
    sink.open(name)
    yield from json_arguments(source, sink.write, sink, ends, enclosing=")" + closer)
    yield from source.skip_space()
    yield from source.take(stops(f"){closer}", ")", closer))
    sink.close()


def _named_by_tag(name: str, source: Source, sink: Sink, closing: Stops) -> Reader[None]:
    """Read arguments after the name of a tool in brackets or in a tag.

    The forms are `[NAME] {…} [END_TOOL_REQUEST]` and `<NAME>{…}</NAME>` (openclaw #66178).
    """
    sink.open(name)
    yield from json_arguments(source, sink.write, sink, closing)
    sink.close()
    yield from source.skip_space()
    yield from source.take(closing)


def wrapped_json(source: Source, sink: Sink) -> Reader[None]:
    """Read calls between two tags that a model invented.

    For example `<action>{…}</action>`, `[TOOL_USE] NAME({…}) [/TOOL_USE]` or `<tool_use name="NAME">…</tool_use>`.
    """
    found = WRAPPER.match(source.text, source.at)
    if found is None:
        raise NotACall
    tag, called, label, labelled, element, named = found.groups()
    word, name, distance = tag or label or element, called or labelled or named, len(found.group())
    closing = stops(f"[/{word}]", f"[END_{word}]") if label else stops(f"</{word}>")

    def read(source: Source, sink: Sink) -> Reader[None]:
        source.at += distance
        if element:
            yield from _named_by_attribute(element, named, source, sink, closing)
        elif sink.tools.resolve(word) is not None and source.text[source.at] == "{":
            ends = stops(*closing.literals, f"</{word}>", "[END_TOOL_REQUEST]", "[/TOOL_REQUEST]")
            yield from _named_by_tag(word, source, sink, ends)
            return
        elif sink.tools.resolve(word) is not None and source.text[source.at] == "<":
            yield from element_of(word, source, sink, closing)
        elif name:
            yield from _named_inside(word, name, source, sink, closing)
        elif source.text[source.at] == "[":
            yield from _array(source, sink)
        elif source.text[source.at] == "<":
            yield from _named_by_child(word, source, sink, closing)
        else:
            yield from _objects(source, sink)
        yield from source.skip_space()
        if not (yield from source.take(closing)) and (yield from source.peek()):
            raise NotACall

    yield from drafted(source, sink, read)


def _named_inside(word: str, name: str, source: Source, sink: Sink, closing: Stops) -> Reader[None]:
    """Read `NAME(…)` or `NAME{…}` between tags."""
    head = CALL_HEAD.match(source.text, source.at)
    if head is None or sink.tools.resolve(name) is None or not WORDS_OF_CALLS.search(word):
        raise NotACall
    source.at = head.end()
    yield from _in_brackets(source, sink, name, closing)


def _named_by_attribute(word: str, name: str, source: Source, sink: Sink, closing: Stops) -> Reader[None]:
    """Read the inside of `<tool_use name="NAME">`."""
    if not CALLS.search(word):
        raise NotACall
    yield from element_of(name, source, sink, closing)


def _named_by_child(word: str, source: Source, sink: Sink, closing: Stops) -> Reader[None]:
    """Read `<name>NAME</name><arguments>…</arguments>` between tags, or `<NAME>…</NAME>`.

    Of the latter, there may be several.
    """
    if not WORDS_OF_CALLS.search(word):
        raise NotACall
    may_be_empty = CALLS.search(word) is not None
    if (yield from source.ahead(NAME_TAGS)):
        yield from named_by_child(source, sink, closing, may_be_empty=may_be_empty)
        return
    count = len(sink.completed)
    while (yield from tool_element(source, sink, may_be_empty=may_be_empty)):
        yield from source.skip_space()
    if len(sink.completed) == count:
        raise NotACall
