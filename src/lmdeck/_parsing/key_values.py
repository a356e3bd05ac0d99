"""Calls as a name with alternating keys and values.

The form is `NAME<arg_key>K</arg_key><arg_value>V</arg_value>…`. Any one of the four tags may be missing, doubled or mistaken
for another; if the others do not show which, the text is not a call.
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.json_calls import json_arguments
from lmdeck._parsing.offered_tools import types_of
from lmdeck._parsing.python_calls import python_call
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.typed_values import typed_value
from lmdeck._parsing.value_ends import ValueEnd, literal_after

NAME = late_pattern(r"[\w.\-]*")
KEY = late_pattern(r"[^\s<>{}\"]{1,200}\Z")
KEY_LIMIT = 400
PAIR_LIMIT = 4000
TAGS_OF_A_CALL = 2
"""Text that ends after this many tags is a call that was cut off; after fewer, it may be something else."""
NAME_END = stops(">")
FUNCTION_LINE = stops("function\n")
"""What Step-Audio 2 writes before the name."""
LINE_END = "\\n"  # a line end that was written as a backslash and an n


class KeyValue(Struct, frozen=True):
    """The tags around keys, values and their types, and those that end the call."""

    key: tuple[str, str] = ("<arg_key>", "</arg_key>")
    value: tuple[str, str] = ("<arg_value>", "</arg_value>")
    kind: tuple[str, str] | None = None
    separator: str = "<tool_sep>"
    ends: tuple[str, ...] = ("</tool_call>",)
    begins: str = "<tool_call>"

    @property
    def value_end(self) -> ValueEnd:
        """The tags that end a value."""
        name = r"\s*[\w.\-]{1,100}\s*"
        key = re.compile(rf"{name}{re.escape(self.key[1])}")
        call = rf"\s*{re.escape(self.begins)}{name}{re.escape(self.key[0])}"  # the next call, if the end of this one is missing
        return ValueEnd(
            own=self.value[1:], opens=self.key[:1], nested=self.value[:1], block_ends=self.ends,
            odd=tuple(tag for tag in (self.key[1], self.begins) if tag != self.value[0]),
            after=re.compile(f"{key.pattern}|{call}"), is_opening=lambda text: key.match(text) is not None,
        )  # fmt: skip

    @property
    def shares_tag(self) -> bool:
        """Whether one tag ends the key and begins the value."""
        return self.key[1] == self.value[0]

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags around keys and values."""
        return (*self.key, *self.value)


def named_pairs(source: Source, sink: Sink, pairs: KeyValue) -> Reader[None]:
    """Read `NAME`, then keys and values; a call without arguments is only its name.

    Raises:
        NotACall: Text follows that is not a call.
        MalformedCall: Keys and values follow that are not a complete call.
    """
    offered = stops(*sink.tools.schemas)
    kind = "" if "function" in sink.tools.schemas else (yield from source.take(FUNCTION_LINE))
    yield from source.skip_space()
    name = yield from source.take(offered)
    rest = yield from source.collect_while(NAME)
    if (
        rest
        and name
        and sink.tools.resolve(name + rest) is None
        and (yield from source.ahead(stops(pairs.key[1], pairs.value[0])))
    ):
        source.unread(rest)  # the key, whose first tag is missing
    else:
        name += rest
    after = yield from source.peek()
    if not after:
        is_partial = any(start.startswith(name) for start in (*offered.literals, *FUNCTION_LINE.literals))
        raise TruncatedCall if is_partial and (name or kind) else NotACall
    is_known = sink.tools.resolve(name) is not None
    yield from _space(source)
    if is_known and (yield from source.take(NAME_END)):
        yield from _space(source)  # GLM 5.3 Flash writes `NAME>{…}` (SGLang)
    tags = stops(*pairs.tags, pairs.separator, *pairs.ends)
    found = yield from source.ahead(tags)
    if not found and is_known and (yield from source.ends_inside(tags, least=1)):
        raise TruncatedCall
    if is_known and (yield from source.take(stops("("))):
        yield from python_call(source, sink, stops(*pairs.ends), name)
        return
    if not name:
        raise MalformedCall("a call without a name") if found in pairs.tags else NotACall
    if not found and not (is_known and (yield from _begins_body(source, pairs))):
        raise NotACall
    sink.open(name)
    sink.flush()
    yield from _Pairs(source, sink, pairs).read()


def _begins_body(source: Source, pairs: KeyValue) -> Reader[bool]:
    """Whether arguments begin here: JSON, another tag, or a key without its first tag."""
    if (yield from source.ahead(stops("{", "<user>", "</user>", pairs.begins))):
        return True
    if not (yield from source.peek()):
        raise TruncatedCall
    return (yield from _word_before(source, stops(pairs.key[1], pairs.value[0])))


def _word_before(source: Source, tags: Stops) -> Reader[bool]:
    """Whether a single word precedes one of the tags."""
    while True:
        found = tags.pattern.search(source.text, source.at, source.at + KEY_LIMIT)
        if found:
            return KEY.match(source.text[source.at : found.start()].strip()) is not None
        rest = source.text[source.at : source.at + KEY_LIMIT]
        words = rest.partition("<")[0].split()
        if source.closed or len(rest) == KEY_LIMIT or len(words) > 1 or "<" in rest[: -tags.longest]:
            return False
        yield


def _space(source: Source) -> Reader[str]:
    """Skip white space, and line ends that are written as two characters."""
    while True:
        char = yield from source.skip_space()
        if char != "\\" or not (yield from source.take(stops(LINE_END))):
            return char


class _Pairs:
    """The keys and values of one call."""

    def __init__(self, source: Source, sink: Sink, pairs: KeyValue) -> None:
        self._source = source
        self._sink = sink
        self._pairs = pairs
        self._is_first = True
        self._lacks_key_end = False

    def read(self) -> Reader[None]:
        """Read up to the end of the call, which stays unread."""
        source, sink, pairs = self._source, self._sink, self._pairs
        stray = stops("<user>", "</user>", pairs.separator)
        ends = stops(*pairs.ends)
        while True:
            char = yield from _space(source)
            if not char:
                raise TruncatedCall
            if char == "{" and self._is_first:
                yield from json_arguments(source, sink.write, sink, ends)
                sink.close()
                yield from source.skip_space()
                yield from source.take(stops("</user>"))
                return
            if (yield from source.ahead(ends)):
                break
            if (yield from source.ahead(self._next_call())):
                sink.note("a missing closing element")
                break
            if (yield from source.take(stray)):
                continue
            is_cut_end = yield from source.ends_inside(ends)
            if not is_cut_end and (yield from source.ends_inside(stops(*pairs.tags), least=1)):
                raise TruncatedCall
            if is_cut_end or not (yield from self._pair()):
                sink.note("a missing closing element")
                break
        sink.write("{}" if self._is_first else "}")
        sink.close()

    def _next_call(self) -> Stops:
        """Return the start of the next call if the end of this one is missing."""
        declared, begins = self._sink.tools.properties(self._sink.name), self._pairs.begins
        others = [name for name in self._sink.tools.schemas if name not in declared]
        return stops(*(f"{begins}{name}{end}" for name in others for end in ("\n", "<")))

    def _pair(self) -> Reader[bool]:
        """Read a key and its value; return whether there was one."""
        source, sink, pairs = self._source, self._sink, self._pairs
        key = yield from self._key()
        if key is None:
            return False
        if not key:
            return True
        if not pairs.shares_tag and (yield from self._begins_keys()):
            yield from self._keys_first(key)
            return True
        if not pairs.shares_tag:
            yield from _space(source)
        types = sink.tools.types(sink.name, key)
        if pairs.kind and (yield from source.take(stops(pairs.kind[0]))):
            type_name = (yield from source.collect(stops(pairs.kind[1]))).strip()
            source.at += len(pairs.kind[1])
            types = types or types_of({"type": type_name}, {})
            yield from _space(source)
        if not (yield from self._begins_value(key)):
            return True
        yield from self._value(key, types, pairs.value_end)
        return True

    def _value(self, key: str, types: frozenset[str], value_end: ValueEnd) -> Reader[None]:
        """Read the value of a key, and its closing tag."""
        source, sink, closing = self._source, self._sink, self._pairs.value[1]
        sink.write("{" if self._is_first else "")
        sink.write_key(key, is_first=self._is_first)
        self._is_first = False
        if (yield from typed_value(source, sink, value_end, types, trims=False)) == closing:
            source.at += len(closing)
            yield from self._doubled(closing)
        else:
            sink.note("a missing closing element")

    def _keys_first(self, key: str) -> Reader[None]:
        """Read more keys, and then one value for each.

        Raises:
            MalformedCall: There are fewer or more values than keys.
        """
        source, sink, pairs = self._source, self._sink, self._pairs
        opening, keys = stops(pairs.value[0]), [key]
        while (yield from source.ahead(stops(pairs.key[0]))):
            keys.append((yield from self._key()) or "")
            yield from _space(source)
        sink.note("keys before their values")
        inner_end = replace(pairs.value_end, opens=pairs.value[:1], nested=())
        for name in keys:
            if not (yield from source.take(opening)):
                raise MalformedCall(f"the key {name!r} has no value") if source.text[source.at :] else TruncatedCall
            value_end = inner_end if name is not keys[-1] else pairs.value_end
            yield from self._value(name, sink.tools.types(sink.name, name), value_end)
            yield from _space(source)
        if (yield from source.ahead(opening)):
            raise MalformedCall("there are more values than keys")

    def _key(self) -> Reader[str | None]:
        """Read a key and the tags around it, and return the key.

        It is `""` for a stray tag, and None if no key follows.
        """
        source, sink, pairs = self._source, self._sink, self._pairs
        opening = yield from source.take(stops(pairs.key[0], pairs.begins))
        if opening:
            yield from self._doubled(pairs.key[0])
        elif (yield from source.take(stops(pairs.key[1], pairs.value[1]))):
            sink.note("a superfluous closing element")
            return ""
        elif not (yield from _word_before(source, stops(pairs.key[1], pairs.value[0]))):
            char = yield from source.peek()
            if self._is_first or char != "<":
                raise MalformedCall(f"expected a key, found {char!r}")
            return None
        if opening != pairs.key[0]:
            sink.note("a misplaced element")
        key = (yield from source.collect(stops(*pairs.tags, *pairs.ends))).strip()
        closing = yield from source.ahead(stops(*pairs.tags, *pairs.ends))
        if closing in pairs.ends or (pairs.shares_tag and closing != pairs.key[1]):
            raise MalformedCall(f"the key {key!r} has no value")
        self._lacks_key_end = closing == pairs.value[0] and not pairs.shares_tag
        if not self._lacks_key_end:
            source.at += len(closing)
        if closing != pairs.key[1]:
            sink.note("a misplaced element")
        if not KEY.match(key) and key not in sink.tools.properties(sink.name):
            raise MalformedCall(f"{key[:80]!r} is not the name of a parameter")
        return key

    def _begins_value(self, key: str) -> Reader[bool]:
        """Read the tags before a value; return whether a value follows, and not the end of the call.

        Raises:
            MalformedCall: Other tags follow.
        """
        source, sink, pairs = self._source, self._sink, self._pairs
        if pairs.shares_tag:
            return True
        yield from self._doubled(pairs.key[1])
        if (yield from source.take(stops(pairs.value[0]))):
            closing = stops(pairs.key[1])
            if self._lacks_key_end and (yield from literal_after(source, 0, closing)):
                yield from source.skip_space()
                yield from source.take(closing)
            else:
                yield from self._doubled_opening()
            return True
        if not (yield from source.peek()):
            raise TruncatedCall
        if (yield from source.ahead(stops(*pairs.ends))) or (yield from self._begins_pair()):
            sink.note(f"a key {key!r} without a value")
            return False
        if (yield from source.ahead(stops(pairs.value[1]))):
            raise MalformedCall(f"the key {key!r} has no value")
        sink.note("a misplaced element")
        yield from source.take(stops(pairs.key[0]))
        return True

    def _begins_pair(self) -> Reader[bool]:
        """Whether a whole pair follows, and after it another key or the end of the call."""
        (key, key_end), (value, value_end) = self._pairs.key, self._pairs.value
        return (yield from self._follow((key,), (key_end,), (value,), (value_end,), (key, *self._pairs.ends)))

    def _begins_keys(self) -> Reader[bool]:
        """Whether other keys follow, and the values after them."""
        (key, key_end), (value, value_end) = self._pairs.key, self._pairs.value
        yield from _space(self._source)
        return (yield from self._follow((key,), (key_end,), (key,))) or (
            yield from self._follow((key,), (key_end,), (value,), (value_end,), (value,))
        )

    def _follow(self, *tags: tuple[str, ...]) -> Reader[bool]:
        """Whether tags follow, one of each group.

        The first one follows at once; there may be text between the others.

        Raises:
            TruncatedCall: The text ends after `TAGS_OF_A_CALL` of them or more.
        """
        source, pairs = self._source, self._pairs
        if not (yield from source.ahead(stops(*tags[0]))):
            return False
        wanted, distance = stops(*pairs.tags, *pairs.ends), 0
        for at, expected in enumerate(tags):
            while not (found := wanted.pattern.search(source.text, source.at + distance, source.at + PAIR_LIMIT)):
                if len(source.text) - source.at >= PAIR_LIMIT or (source.closed and at < TAGS_OF_A_CALL):
                    return False
                if source.closed:
                    raise TruncatedCall
                yield
            if found.group() not in expected:
                return False
            distance = found.end() - source.at
        return True

    def _doubled(self, tag: str) -> Reader[None]:
        """Read repetitions of a tag that was just read."""
        while True:
            yield from _space(self._source)
            if not (yield from self._source.take(stops(tag))):
                return
            self._sink.note("a doubled element")

    def _doubled_opening(self) -> Reader[None]:
        """Read a repetition of a value's opening tag, unless the value begins with such an element."""
        source, (opening, closing) = self._source, self._pairs.value
        if not (yield from source.ahead(stops(opening))):
            return
        ends = stops(opening, closing, *self._pairs.ends)
        closed, place = 0, source.at
        while not source.closed and len(source.text) - source.at < 4 * KEY_LIMIT:
            yield
        place = source.at + len(opening)
        while found := ends.pattern.search(source.text, place, source.at + 4 * KEY_LIMIT):
            if found.group() != closing:
                break
            closed += 1
            place = found.end()
        if closed < 2:
            source.at += len(opening)
            self._sink.note("a doubled element")
